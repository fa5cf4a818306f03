"""Blending of fragments into RGBA images."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.renderer._fragments import Fragments
from unrender.kernels import rasterize
from unrender.kernels.silhouette.reference import LOGIT_AT_BLUR
from unrender.render import blend


class BlendParams(NamedTuple):
    """Softness of edges (`sigma`, in NDC²) and of depth (`gamma`), and the background color."""

    sigma: float = 1e-4
    gamma: float = 1e-4
    background_color: Tensor | Sequence[float] = (1.0, 1.0, 1.0)

    @property
    def blur(self) -> float:
        """The edge width of `unrender`: the distance, in NDC, at which coverage has fallen to 1/10,000."""
        return float((self.sigma * LOGIT_AT_BLUR) ** 0.5)

    def background(self, channels: int) -> tuple[float, ...]:
        """Return the background color as numbers; a gray one has any number of channels."""
        color = torch.as_tensor(self.background_color, dtype=torch.float32).flatten().tolist()
        return tuple(color) if len(color) == channels or len(set(color)) > 1 else (color[0],) * channels


def core_fragments(fragments: Fragments) -> rasterize.Fragments:
    """Convert to fragments of unrender; lengths stay in NDC, and empty slots keep their values."""
    dists = torch.zeros_like(fragments.zbuf) if fragments.dists is None else fragments.dists
    return rasterize.Fragments(fragments.pix_to_face, fragments.bary_coords, fragments.zbuf, dists)


def _layers(ids: Tensor, depth: Tensor | None = None, dists: Tensor | None = None) -> rasterize.Fragments:
    """Return what blending reads of fragments; the rest, which may be missing or empty in those given, is 0."""
    zero = torch.zeros((), device=ids.device).expand(ids.shape)
    weights = zero[..., None].expand(*ids.shape, 3)
    return rasterize.Fragments(
        ids, weights, zero if depth is None else depth, zero if dists is None else dists
    )


def hard_rgb_blend(colors: Tensor, fragments: Fragments, blend_params: BlendParams) -> Tensor:
    """Select the nearest of colors [N, H, W, K, C]; alpha is 1 or 0."""
    layers = _layers(fragments.pix_to_face)
    return blend.blend_hard(colors, layers, blend_params.background(colors.shape[-1]))


def softmax_rgb_blend(
    colors: Tensor,
    fragments: Fragments,
    blend_params: BlendParams,
    znear: float | Tensor = 1.0,
    zfar: float | Tensor = 100,
) -> Tensor:
    """Blend layers by coverage and depth (Liu et al., Soft Rasterizer, 2019)."""
    ours = _layers(fragments.pix_to_face, fragments.zbuf, fragments.dists)
    near, far = (torch.as_tensor(z, dtype=torch.float32).detach().flatten().tolist() for z in (znear, zfar))
    settings = {"blur": blend_params.blur, "gamma": blend_params.gamma}
    background = blend_params.background(colors.shape[-1])
    if len(set(near)) == 1 == len(set(far)):
        depths = near[0], far[0]
        return blend.blend_softmax(colors, ours, **settings, depth_range=depths, background=background)
    images = [
        blend.blend_softmax(
            colors[i],
            ours[i],
            **settings,
            depth_range=(near[i % len(near)], far[i % len(far)]),
            background=background,
        )
        for i in range(len(colors))
    ]
    return torch.stack(images)


def sigmoid_alpha_blend(colors: Tensor, fragments: Fragments, blend_params: BlendParams) -> Tensor:
    """Select the color of the nearest face, with alpha 1 − Π (1 − coverage) over the layers."""
    layers = _layers(fragments.pix_to_face, dists=fragments.dists)
    alpha = blend.blend_silhouette(layers, blur=blend_params.blur)
    return torch.cat([colors[..., 0, :], alpha[..., None]], -1)


register(__name__)
__getattr__ = refuse_unknown(__name__)
