"""Total variation of the values of a sparse grid."""

from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.kernels._autograd import differentiable
from unrender.kernels._dispatch import implementation
from unrender.kernels.total_variation import reference


@checked
def total_variation(
    values: Float[Tensor, "corners channels"], neighbors: Int[Tensor, "corners 6"]
) -> Float[Tensor, ""]:
    """Return the mean over all pairs of neighbors of Σ (valueᵢ − valueⱼ)², summed over channels.

    `neighbors` are those along −x, +x, −y, +y, −z, +z, or −1. If i is a neighbor of j, then j is one of i.
    Differentiable in: values (not twice).
    """
    fast = implementation("total_variation", values.device)
    if fast is None:
        return reference.forward(values, neighbors)
    return differentiable(fast, values, neighbors)
