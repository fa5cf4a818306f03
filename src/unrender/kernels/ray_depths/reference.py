"""How far away what rays see is, by the definition."""

import torch
from torch import Tensor

from unrender.kernels.composite.reference import pad_rays


def forward(
    weights: Tensor, distances: Tensor, lengths: Tensor, offsets: Tensor, threshold: float, bound: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return mean, median, first crossing, spread, and the weight about the median, of each ray.

    expected    = Σ wᵢ tᵢ / Σ wᵢ
    reach(x)    = tₖ + (x − Σ_{i<k} wᵢ) / wₖ · lₖ − lₖ / 2      of the first k with Σ_{i≤k} wᵢ ≥ x
    median      = reach(½ Σ wᵢ)
    first       = reach(threshold)                              0 where Σ wᵢ < threshold
    std²        = Σ wᵢ ((tᵢ − expected)² + lᵢ² / 12) / Σ wᵢ
    near_median = Σ wᵢ · the share of [tᵢ − lᵢ / 2, tᵢ + lᵢ / 2] within [1 − bound, 1 + bound] · median
    """
    w, t, length = (pad_rays(values.double(), offsets)[0] for values in (weights, distances, lengths))
    total = w.sum(1)
    seen = total > 0
    whole = torch.where(seen, total, 1)
    expected = (w * t).sum(1) / whole
    median = torch.where(seen, _reach(total / 2, w, t, length), 0)
    crosses = seen & (total >= threshold)
    first = torch.where(crosses, _reach(torch.full_like(total, threshold), w, t, length), 0)
    variance = (w * ((t - expected[:, None]).square() + length.square() / 12)).sum(1) / whole
    low, high = (1 - bound) * median[:, None], (1 + bound) * median[:, None]
    shared = torch.minimum(t + length / 2, high) - torch.maximum(t - length / 2, low)
    within = torch.where(length > 0, (shared / length).clamp(0, 1), ((t >= low) & (t <= high)).double())
    results = (expected, median, first, variance.sqrt(), (w * within).sum(1))
    return tuple(values.to(weights.dtype) for values in results)  # type: ignore[return-value]


def _reach(wanted: Tensor, w: Tensor, t: Tensor, length: Tensor) -> Tensor:
    """Return where the weights of each ray add up to what is wanted, within the part of the sample that does it."""
    if w.shape[1] == 0:
        return torch.zeros_like(wanted)
    reached = w.cumsum(1)
    k = (reached < wanted[:, None]).sum(1, keepdim=True).clamp(max=w.shape[1] - 1)
    own, after, here, part = (values.gather(1, k)[:, 0] for values in (w, reached, t, length))
    share = (wanted - (after - own)) / torch.where(own > 0, own, 1)
    return here + part * (share.clamp(0, 1) - 0.5)
