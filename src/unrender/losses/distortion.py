"""How far the weights along rays are spread: haze and floaters are, surfaces are not."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.kernels.composite import check_offsets


@checked
def distortion_loss(
    weights: Float[Tensor, " samples"],
    places: Float[Tensor, " samples"],
    lengths: Float[Tensor, " samples"],
    offsets: Int[Tensor, " bounds"],
) -> Float[Tensor, ""]:
    """Return the mean over rays of Σᵢⱼ wᵢ wⱼ |sᵢ − sⱼ| + ⅓ Σᵢ wᵢ² δᵢ.

    Places s, the middles of parts of length δ, rise along each ray, whose samples are offsets[r] to offsets[r + 1].
    They have any unit: distances, or what grows with them. 0 if there are no rays.

    Differentiable in: weights, places, lengths.
    Source: Barron et al. 2022 (Mip-NeRF 360), eq. 15, as sums that run along the rays.
    """
    check_offsets("distortion_loss", offsets, weights)
    w, s = weights.double(), places.double()
    before, moment = _before(w, offsets), _before(w * s, offsets)
    between = 2 * (w * (s * before - moment)).sum()
    within = (w.square() * lengths).sum() / 3
    return ((between + within) / max(len(offsets) - 1, 1)).to(weights)


def _before(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum over the samples of the same ray that come before each."""
    total = torch.cat([values.new_zeros(1), values.cumsum(0)])
    start = total[offsets[:-1]].repeat_interleave(offsets.diff())
    return total[:-1] - start
