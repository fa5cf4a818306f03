"""How far away what rays see is: mean, median, first crossing and spread of weights along them."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.composite import check_offsets
from unrender.kernels.ray_depths import reference


class RayDepths(NamedTuple):
    """Distances along rays; 0 where there is nothing to say."""

    expected: Float[Tensor, " rays"]
    """Σ weight · distance / Σ weight."""
    median: Float[Tensor, " rays"]
    """Half of the weights are nearer."""
    first: Float[Tensor, " rays"]
    """Where the weights add up to `threshold`; 0 of rays whose weights do not."""
    std: Float[Tensor, " rays"]
    """Of the weights, about `expected`."""
    near_median: Float[Tensor, " rays"]
    """Weight within `bound` · median of the median."""


@checked
def ray_depths(
    weights: Float[Tensor, " samples"],
    distances: Float[Tensor, " samples"],
    lengths: Float[Tensor, " samples"],
    offsets: Int[Tensor, " bounds"],
    *,
    threshold: float = 0.25,
    bound: float = 0.01,
) -> RayDepths:
    """Say how far away what each ray sees is; the weight of a sample is spread evenly over its length.

    Samples of all rays follow one another, nearest first; those of ray r are offsets[r] to offsets[r + 1]. Weights, as
    `composite` gives them, are ≥ 0.
    Differentiable in: nothing.
    """
    if not (0 < threshold < 1 and 0 < bound < 1):
        raise InputError(
            f"ray_depths: `threshold` and `bound` should be above 0 and below 1, got {threshold} and {bound}"
        )
    check_offsets("ray_depths", offsets, weights)
    fast = implementation("ray_depths", weights.device)
    forward = reference.forward if fast is None else fast.forward
    return RayDepths(
        *forward(weights.detach(), distances.detach(), lengths.detach(), offsets, threshold, bound)
    )
