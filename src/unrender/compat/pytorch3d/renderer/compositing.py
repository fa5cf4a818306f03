"""Compositing of the points of each pixel."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.kernels.composite import composite_alphas
from unrender.kernels.scatter_sum import gather_columns

EPSILON = 1e-4
"""Least sum of alphas that features are divided by."""


def alpha_composite(pointsidx: Tensor, alphas: Tensor, pt_clds: Tensor) -> Tensor:
    """Composite features [C, P] of points [N, K, H, W] front to back: Σ α_k c_k Π (1 − α_j), [N, C, H, W]."""
    alphas, features = _rows(pointsidx, alphas, pt_clds)
    found = composite_alphas(alphas, features).color
    assert found is not None
    return found.movedim(-1, 1)


def weighted_sum(pointsidx: Tensor, alphas: Tensor, pt_clds: Tensor) -> Tensor:
    """Return Σ α_k c_k [N, C, H, W]."""
    alphas, features = _rows(pointsidx, alphas, pt_clds)
    return (alphas[..., None] * features).sum(-2).movedim(-1, 1)


def norm_weighted_sum(pointsidx: Tensor, alphas: Tensor, pt_clds: Tensor) -> Tensor:
    """Return Σ α_k c_k / Σ α_k [N, C, H, W]."""
    alphas, features = _rows(pointsidx, alphas, pt_clds)
    total = alphas.sum(-1, keepdim=True).clamp(min=EPSILON)
    return ((alphas[..., None] * features).sum(-2) / total).movedim(-1, 1)


def _rows(pointsidx: Tensor, alphas: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return alphas [N, H, W, K], 0 in empty slots, and features [N, H, W, K, C]."""
    ids = pointsidx.movedim(1, -1)
    alphas = torch.where(ids >= 0, alphas.movedim(1, -1), 0)
    if not features.shape[1]:
        return alphas, alphas.new_zeros(*ids.shape, features.shape[0])
    gathered = gather_columns(features, ids.clamp(min=0).long().reshape(-1))
    return alphas, gathered.mT.view(*ids.shape, -1)


__getattr__ = refuse_unknown(__name__)
