"""Point clouds: the value, and how it comes from a depth image."""

from jaxtyping import Float
from torch import Tensor

from unrender._struct import TensorStruct


class PointCloud(TensorStruct):
    """Points in world units, with what a sensor may know about each."""

    points: Float[Tensor, "*batch points 3"]
    normals: Float[Tensor, "*batch points 3"] | None = None
    """Outward unit normals."""
    colors: Float[Tensor, "*batch points channels"] | None = None
    """In [0, 1]."""
