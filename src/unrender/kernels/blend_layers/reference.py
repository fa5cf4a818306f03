"""Reference implementation of blending by coverage and depth."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

EPSILON = 1e-10
"""Closeness of the background, in [0, 1] (ε in eq. 4)."""


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
