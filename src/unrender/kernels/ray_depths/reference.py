"""Reference implementation of depth statistics of rays."""

import torch
from torch import Tensor

from unrender.kernels.composite.reference import pad_rays


def forward(
    weights: Tensor, distances: Tensor, lengths: Tensor, offsets: Tensor, threshold: float, bound: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return mean, median, first crossing, standard deviation, and the weight around the median, of each ray.

    expected    = Σ wᵢ tᵢ / Σ wᵢ
    reach(x)    = tₖ + (x − Σ_{i<k} wᵢ) / wₖ · lₖ − lₖ / 2      of the first k with Σ_{i≤k} wᵢ ≥ x
    median      = reach(½ Σ wᵢ)
    first       = reach(threshold)                              0 where Σ wᵢ < threshold
    std²        = Σ wᵢ ((tᵢ − expected)² + lᵢ² / 12) / Σ wᵢ
    near_median = Σ wᵢ · the fraction of [tᵢ − lᵢ / 2, tᵢ + lᵢ / 2] within [1 − bound, 1 + bound] · median
    """
    w, t, length = (pad_rays(values.double(), offsets)[0] for values in (weights, distances, lengths))
    total = w.sum(1)
    visible = total > 0
    positive_total = torch.where(visible, total, 1)
    expected = (w * t).sum(1) / positive_total
    median = torch.where(visible, _reach(total / 2, w, t, length), 0)
    crosses = visible & (total >= threshold)
    first = torch.where(crosses, _reach(torch.full_like(total, threshold), w, t, length), 0)
    variance = (w * ((t - expected[:, None]).square() + length.square() / 12)).sum(1) / positive_total
    low, high = (1 - bound) * median[:, None], (1 + bound) * median[:, None]
    overlap = torch.minimum(t + length / 2, high) - torch.maximum(t - length / 2, low)
    within = torch.where(length > 0, (overlap / length).clamp(0, 1), ((t >= low) & (t <= high)).double())
    results = (expected, median, first, variance.sqrt(), (w * within).sum(1))
    return tuple(values.to(weights.dtype) for values in results)  # type: ignore[return-value]


def _reach(target: Tensor, w: Tensor, t: Tensor, length: Tensor) -> Tensor:
    """Return the distance at which the accumulated weight of each ray reaches `target`, within the sample that does."""
    if w.shape[1] == 0:
        return torch.zeros_like(target)
    reached = w.cumsum(1)
    k = (reached < target[:, None]).sum(1, keepdim=True).clamp(max=w.shape[1] - 1)
    own, after, here, extent = (values.gather(1, k)[:, 0] for values in (w, reached, t, length))
    fraction = (target - (after - own)) / torch.where(own > 0, own, 1)
    return here + extent * (fraction.clamp(0, 1) - 0.5)
