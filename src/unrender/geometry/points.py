"""Point clouds: the value."""

from jaxtyping import Float, Int
from torch import Tensor

from unrender._struct import TensorStruct


class PointCloud(TensorStruct):
    """Points in world units, with what is known about each."""

    points: Float[Tensor, "*batch points 3"]
    normals: Float[Tensor, "*batch points 3"] | None = None
    """Outward unit normals."""
    colors: Float[Tensor, "*batch points channels"] | None = None
    """In [0, 1]."""
    weights: Float[Tensor, "*batch points"] | None = None
    """How much each point counts, ≥ 0."""
    lengths: Int[Tensor, "*batch"] | None = None
    """How many points of each cloud of a batch are real; the rest is padding."""
