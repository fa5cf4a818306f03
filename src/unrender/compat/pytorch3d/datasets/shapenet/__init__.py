"""ShapeNetCore."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.datasets.shapenet.shapenet_core import ShapeNetCore

__all__ = ["ShapeNetCore"]


__getattr__ = refuse_unknown(__name__)
