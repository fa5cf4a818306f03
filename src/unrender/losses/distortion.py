"""Distortion loss of volume rendering weights, which suppresses floaters."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.kernels.composite import check_offsets


@checked
def distortion_loss(
    weights: Float[Tensor, " samples"],
    positions: Float[Tensor, " samples"],
    lengths: Float[Tensor, " samples"],
    offsets: Int[Tensor, " bounds"],
) -> Float[Tensor, ""]:
    """Compute the mean over rays of Σᵢⱼ wᵢ wⱼ |sᵢ − sⱼ| + ⅓ Σᵢ wᵢ² δᵢ.

    Use it as a regularizer of radiance fields: it concentrates the weights along each ray. Positions s are the
    midpoints of ray intervals of length δ, ascending along each ray, in distance or any increasing function of it. The
    samples of ray r are offsets[r] to offsets[r + 1]. The loss is 0 if there are no rays.

    Differentiable in: weights, positions, lengths.
    Source: Barron et al. 2022 (Mip-NeRF 360), eq. 15, computed with cumulative sums.
    """
    check_offsets("distortion_loss", offsets, weights)
    w, s = weights.double(), positions.double()
    before, moment = _exclusive_cumsum(w, offsets), _exclusive_cumsum(w * s, offsets)
    between = 2 * (w * (s * before - moment)).sum()
    within = (w.square() * lengths).sum() / 3
    return ((between + within) / max(len(offsets) - 1, 1)).to(weights)


def _exclusive_cumsum(values: Tensor, offsets: Tensor) -> Tensor:
    """Compute the exclusive cumulative sum along each ray."""
    total = torch.cat([values.new_zeros(1), values.cumsum(0)])
    start = total[offsets[:-1]].repeat_interleave(offsets.diff())
    return total[:-1] - start
