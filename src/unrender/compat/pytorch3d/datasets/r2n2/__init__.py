"""R2N2: renderings and voxels of models of ShapeNetCore."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.datasets.r2n2.r2n2 import R2N2
from unrender.compat.pytorch3d.datasets.r2n2.utils import BlenderCamera

__all__ = ["R2N2", "BlenderCamera"]


__getattr__ = refuse_unknown(__name__)
