"""Reference implementation of blending by coverage and depth."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

EPSILON = 1e-10
"""Closeness of the background, in [0, 1] (ε in eq. 4)."""
WIDENING = 1 + 1e-6
"""Least ratio of the far to the near end of the depths."""


def forward(
    colors: Tensor,
    depth: Tensor,
    squared: Tensor,
    face_ids: Tensor,
    near: Tensor,
    far: Tensor,
    background: Tensor,
    sharpness: float,
    gamma: float,
) -> Tensor:
    """Blend the layers of each pixel (Soft Rasterizer, eq. 3 to 5), for d² times `sharpness` = d² / σ.

    C = Σ_k w_k C_k + w_b C_b, w_k ∝ D_k exp(z_k / γ), w_b ∝ exp(ε / γ), D_k = sigmoid(−d²/σ), z_k = (far − depth) /
    (far − near), and alpha 1 − Π (1 − D_k). `colors` [pixels, layers, channels]; `depth`, `squared` and `face_ids`
    [pixels, layers], of which −1 are empty; `near` and `far` [images], among which the pixels are divided evenly.
    """
    near, far = (d.repeat_interleave(len(colors) // max(len(d), 1))[:, None] for d in (near, far))
    filled = face_ids >= 0
    closeness = (far - depth) / (far - near) * filled
    nearest = closeness.detach().amax(-1, keepdim=True).clamp(min=EPSILON)  # cancels out; prevents overflow
    weights = torch.sigmoid(squared * -sharpness) * filled * ((closeness - nearest) / gamma).exp()
    background_weight = ((EPSILON - nearest) / gamma).exp().clamp(min=EPSILON)
    mixed = torch.linalg.vecdot(weights[..., None], colors, dim=-2) + background_weight * background
    log_transparency = (logsigmoid(squared * sharpness) * filled).sum(-1, keepdim=True)
    return torch.cat(
        [mixed / (weights.sum(-1, keepdim=True) + background_weight), -torch.expm1(log_transparency)], -1
    )


def depth_extent(depth: Tensor, face_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and max_term depth [images] of the layers [*batch, height, width, layers], near < far."""
    filled = face_ids >= 0
    near = depth.masked_fill(~filled, torch.inf).amin((-3, -2, -1))
    far = depth.masked_fill(~filled, -torch.inf).amax((-3, -2, -1))
    return positive_range(near.flatten(), far.flatten())


def positive_range(near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Return a range of positive length; 0 to 1 where nothing is visible, at infinity and before."""
    tiny = torch.finfo(near.dtype).tiny
    return near.nan_to_num(posinf=0), torch.maximum(far, near * WIDENING + tiny).nan_to_num(posinf=1)
