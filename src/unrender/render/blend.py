"""Blending of fragment layers to an RGBA image."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.constants import constant
from unrender.kernels._dispatch import can_read
from unrender.kernels.blend_layers import blend_layers
from unrender.kernels.rasterize import Fragments
from unrender.kernels.silhouette.reference import LOGIT_AT_BLUR

WHITE = (1.0, 1.0, 1.0)


@checked
def blend_hard(
    colors: Float[Tensor, "*batch height width layers channels"],
    fragments: Fragments,
    background: tuple[float, ...] = WHITE,
) -> Float[Tensor, "*batch height width channels_and_alpha"]:
    """Return the color of the nearest layer, or the background; alpha is 1 or 0.

    Differentiable in: colors.
    """
    covered = fragments.face_ids[..., 0, None] >= 0
    color = torch.where(covered, colors[..., 0, :], constant(background, colors))
    return torch.cat([color, covered.to(color.dtype)], -1)


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
    """Blend layers by coverage and depth, differentiably (Liu et al., Soft Rasterizer, 2019).

    C = Σ_k w_k C_k + w_b C_b (eq. 3), w_k ∝ D_k exp(z_k / γ), w_b ∝ exp(ε / γ) (eq. 4), with D_k = sigmoid(−d²/σ)
    (eq. 2), σ = blur² / 9.21 (`blur` in pixels, as passed to `rasterize`), z_k from 1 at the near end to 0 at the far
    end of `depth_range` (by default that of each image), ε = 1e-10. Alpha is 1 − Π (1 − D_k) (eq. 5).
    Differentiable in: colors, depths, squared distances.
    """
    if not blur > 0 or not gamma > 0:
        raise InputError(f"blend_softmax: `blur` and `gamma` should be positive, got {blur} and {gamma}")
    covered = _covered(fragments)
    face_ids, depth, squared, color = (
        field.flatten(0, field.dim() - axes - 1)[covered]
        for field, axes in (
            (fragments.face_ids, 1),
            (fragments.depth, 1),
            (fragments.squared_distance, 1),
            (colors, 2),
        )
    )
    near, far = _near_far(fragments, depth_range)
    if not isinstance(covered, slice):
        near, far = (d.expand(fragments.depth[..., :1].shape).flatten()[covered] for d in (near, far))
    ends, sharpness = (near.reshape(-1), far.reshape(-1)), LOGIT_AT_BLUR / blur**2
    pixels = blend_layers(
        color, depth, squared, face_ids, *ends, constant(background, color), sharpness, gamma
    )
    if isinstance(covered, slice):
        return pixels.view(*colors.shape[:-2], -1)
    image = colors.new_tensor([*background, 0.0]).repeat(fragments.face_ids[..., 0].numel(), 1)
    return image.index_copy(0, covered, pixels).view(*colors.shape[:-2], -1)


@checked
def blend_silhouette(fragments: Fragments, *, blur: float) -> Float[Tensor, "*batch height width"]:
    """Compute a soft silhouette from the layers: 1 − Π (1 − sigmoid(−d²/σ)), σ = blur² / 9.21.

    `render_silhouette` computes the same over all faces instead of the nearest layers.
    Differentiable in: squared distances.
    """
    filled = fragments.face_ids >= 0
    return 1 - (1 - torch.sigmoid(fragments.squared_distance * (-LOGIT_AT_BLUR / blur**2)) * filled).prod(-1)


def _covered(fragments: Fragments) -> Tensor | slice:
    """Return the pixels that show more than the background; all of them on a GPU, which would have to be waited for."""
    if not can_read(fragments.face_ids):
        return slice(None)
    return (fragments.face_ids[..., 0] >= 0).flatten().nonzero()[:, 0]


def _near_far(fragments: Fragments, depth_range: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Return the near and far depth: as given, or the minimum and maximum of each image."""
    filled, depth = fragments.face_ids >= 0, fragments.depth.detach()
    if depth_range is not None:
        return depth.new_tensor(depth_range[0]), depth.new_tensor(depth_range[1])
    axes = (-3, -2, -1)
    near = depth.masked_fill(~filled, torch.inf).amin(axes, keepdim=True)
    far = depth.masked_fill(~filled, -torch.inf).amax(axes, keepdim=True)
    tiny = torch.finfo(depth.dtype).tiny
    return near.nan_to_num(posinf=0), torch.maximum(far, near * (1 + 1e-6) + tiny).nan_to_num(posinf=1)
