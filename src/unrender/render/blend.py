"""Layers of fragments become one image: red, green, blue, and how opaque the pixel is."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels.rasterize import Fragments
from unrender.kernels.silhouette.reference import EDGE

WHITE = (1.0, 1.0, 1.0)


@checked
def blend_hard(
    colors: Float[Tensor, "*batch height width layers channels"],
    fragments: Fragments,
    background: tuple[float, ...] = WHITE,
) -> Float[Tensor, "*batch height width channels_and_alpha"]:
    """Show the nearest layer, or the background; alpha is 1 or 0.

    Differentiable in: colors.
    """
    seen = fragments.face_ids[..., 0, None] >= 0
    color = torch.where(seen, colors[..., 0, :], colors.new_tensor(background))
    return torch.cat([color, seen.to(color.dtype)], -1)


@checked
def blend_softmax(
    colors: Float[Tensor, "*batch height width layers channels"],
    fragments: Fragments,
    *,
    blur: float,
    gamma: float = 1e-4,
    depth_range: tuple[float, float] | None = None,
    background: tuple[float, ...] = WHITE,
) -> Float[Tensor, "*batch height width channels_and_alpha"]:
    """Mix layers by how far they cover the pixel and how near they are (Liu et al., Soft Rasterizer, 2019).

    C = Σ_k w_k C_k + w_b C_b (eq. 3), w_k ∝ D_k exp(z_k / γ), w_b ∝ exp(ε / γ) (eq. 4), with D_k = sigmoid(−d²/σ)
    (eq. 2), σ = blur² / 9.21 (`blur` as given to `rasterize`), z_k from 1 at the near to 0 at the far end of
    `depth_range` (by default that of each image), ε = 1e-10. Alpha is 1 − Π (1 − D_k) (eq. 5).
    Differentiable in: colors, depths, squared distances.
    """
    if not blur > 0 or not gamma > 0:
        raise InputError(f"blend_softmax: `blur` and `gamma` should be positive, got {blur} and {gamma}")
    filled = fragments.face_ids >= 0
    coverage = torch.sigmoid(fragments.squared_distance * (-EDGE / blur**2)) * filled
    near, far = depth_range or _depth_ranges(fragments)
    closeness = (far - fragments.depth) / (far - near) * filled
    epsilon = 1e-10
    nearest = closeness.amax(-1, keepdim=True).clamp(min=epsilon)
    weights = coverage * ((closeness - nearest) / gamma).exp()
    rest = ((epsilon - nearest) / gamma).exp().clamp(min=epsilon)
    mixed = (weights[..., None] * colors).sum(-2) + rest * colors.new_tensor(background)
    alpha = 1 - (1 - coverage).prod(-1, keepdim=True)
    return torch.cat([mixed / (weights.sum(-1, keepdim=True) + rest), alpha], -1)


@checked
def blend_silhouette(fragments: Fragments, *, blur: float) -> Float[Tensor, "*batch height width"]:
    """Compute how far the layers cover each pixel: 1 − Π (1 − sigmoid(−d²/σ)), σ = blur² / 9.21.

    `render_silhouette` does the same over all faces instead of the nearest layers.
    Differentiable in: squared distances.
    """
    filled = fragments.face_ids >= 0
    return 1 - (1 - torch.sigmoid(fragments.squared_distance * (-EDGE / blur**2)) * filled).prod(-1)


def _depth_ranges(fragments: Fragments) -> tuple[Tensor, Tensor]:
    """Find the smallest and the largest depth in each image."""
    filled, depth = fragments.face_ids >= 0, fragments.depth.detach()
    axes = (-3, -2, -1)
    near = depth.masked_fill(~filled, torch.inf).amin(axes, keepdim=True)
    far = depth.masked_fill(~filled, -torch.inf).amax(axes, keepdim=True)
    tiny = torch.finfo(depth.dtype).tiny
    return near.nan_to_num(posinf=0), torch.maximum(far, near * (1 + 1e-6) + tiny).nan_to_num(posinf=1)
