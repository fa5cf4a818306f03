"""Inverse transform sampling along rays."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown


def sample_pdf(bins: Tensor, weights: Tensor, n_samples: int, det: bool = False, eps: float = 1e-5) -> Tensor:
    """Draw positions [..., n_samples] from bins with edges [..., n + 1] and weights [..., n].

    Random, or with `det` at uniform quantiles from 0 to 1; each bin has at least a weight of `eps`.
    """
    mass = weights + eps
    reached = torch.cat([torch.zeros_like(mass[..., :1]), (mass / mass.sum(-1, keepdim=True)).cumsum(-1)], -1)
    shape = (*reached.shape[:-1], n_samples)
    if det:
        fractions = torch.linspace(0, 1, n_samples, device=reached.device, dtype=reached.dtype).expand(shape)
    else:
        fractions = torch.rand(shape, device=reached.device, dtype=reached.dtype)
    after = torch.searchsorted(reached, fractions.contiguous(), right=True)
    low, high = (after - 1).clamp(min=0), after.clamp(max=reached.shape[-1] - 1)
    start, end, left, right = (t.gather(-1, i) for t in (reached, bins) for i in (low, high))
    width = end - start
    part = (fractions - start) / torch.where(width < eps, 1, width)
    return left + part * (right - left)


sample_pdf_python = sample_pdf

__getattr__ = refuse_unknown(__name__)
