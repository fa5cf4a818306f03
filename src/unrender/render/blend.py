"""Blending of fragment layers to an RGBA image."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.constants import constant
from unrender.kernels._dispatch import can_read
from unrender.kernels.blend_layers import blend_layers, depth_extent
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
    near, far = _near_far(fragments, depth_range)
    empty, sharpness = constant(background, colors), LOGIT_AT_BLUR / blur**2
    if not can_read(colors):  # a GPU would have to be waited for
        layers = (colors, fragments.depth, fragments.squared_distance)
        return blend_layers(*layers, fragments.face_ids, near, far, empty, sharpness, gamma)
    layers = (
        colors.flatten(0, -3),
        fragments.depth.flatten(0, -2),
        fragments.squared_distance.flatten(0, -2),
    )
    face_ids = fragments.face_ids.flatten(0, -2)
    covered = (face_ids[:, 0] >= 0).nonzero()[:, 0]
    image_ids = covered.div(max(len(face_ids) // max(len(near), 1), 1), rounding_mode="floor")
    color, depth, squared = (t[covered] for t in layers)
    ends = (near[image_ids], far[image_ids])
    pixels = blend_layers(color, depth, squared, face_ids[covered], *ends, empty, sharpness, gamma)
    image = colors.new_tensor([*background, 0.0]).repeat(len(face_ids), 1)
    return image.index_copy(0, covered, pixels).view(*colors.shape[:-2], -1)


@checked
def blend_silhouette(fragments: Fragments, *, blur: float) -> Float[Tensor, "*batch height width"]:
    """Compute a soft silhouette from the layers: 1 − Π (1 − sigmoid(−d²/σ)), σ = blur² / 9.21.

    `render_silhouette` computes the same over all faces instead of the nearest layers.
    Differentiable in: squared distances.
    """
    filled = fragments.face_ids >= 0
    return 1 - (1 - torch.sigmoid(fragments.squared_distance * (-LOGIT_AT_BLUR / blur**2)) * filled).prod(-1)


def _near_far(fragments: Fragments, given: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Return the near and far depth of each image: as given, or the minimum and maximum."""
    if given is None:
        return depth_extent(fragments.depth, fragments.face_ids)
    near, far = (fragments.depth.new_full((fragments.depth.shape[:-3].numel(),), end) for end in given)
    return near, far
