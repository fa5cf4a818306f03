"""Eigenvalues of symmetric 3 × 3 matrices."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.common.workaround.symeig3x3 import symeig3x3

__all__ = ["symeig3x3"]


__getattr__ = refuse_unknown(__name__)
