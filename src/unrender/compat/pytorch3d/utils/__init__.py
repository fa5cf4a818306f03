"""Shape primitives."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.utils.ico_sphere import ico_sphere
from unrender.compat.pytorch3d.utils.torus import torus

__all__ = ["ico_sphere", "torus"]

__getattr__ = refuse_unknown(__name__)
