"""Depth statistics of the weights along rays: mean, median, first crossing of a threshold, standard deviation."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.composite import check_offsets
from unrender.kernels.ray_depths import reference


class RayDepths(NamedTuple):
    """Distances along rays; 0 for rays without weight."""

    expected: Float[Tensor, " rays"]
    """Σ weight · distance / Σ weight."""
    median: Float[Tensor, " rays"]
    """Distance at which half of the weight is reached."""
    first: Float[Tensor, " rays"]
    """Distance at which the accumulated weight reaches `threshold`; 0 for rays that stay below it."""
    std: Float[Tensor, " rays"]
    """Standard deviation of the distance, weighted."""
    near_median: Float[Tensor, " rays"]
    """Weight within ± `bound` · median around the median."""


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
    """Return depth statistics of each ray; the weight of a sample is spread uniformly over its length.

    Samples are packed, nearest first: those of ray r are offsets[r] to offsets[r + 1]. Weights, as `composite` returns
    them, are ≥ 0.
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
