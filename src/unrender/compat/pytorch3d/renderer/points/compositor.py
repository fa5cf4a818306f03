"""Compositors of points, with a background color."""

from typing import Any

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.compositing import alpha_composite, norm_weighted_sum

Color = Any


class AlphaCompositor(nn.Module):
    """Composite points front to back."""

    def __init__(self, background_color: Color = None) -> None:
        super().__init__()
        self.background_color = background_color

    def forward(self, fragments: Tensor, alphas: Tensor, ptclds: Tensor, **kwargs: Any) -> Tensor:
        """Return images [N, C, H, W] of points [N, K, H, W] with features [C, P]."""
        color = kwargs.get("background_color", self.background_color)
        return with_background(fragments, alpha_composite(fragments, alphas, ptclds), color)


class NormWeightedCompositor(nn.Module):
    """Average points by their weights."""

    def __init__(self, background_color: Color = None) -> None:
        super().__init__()
        self.background_color = background_color

    def forward(self, fragments: Tensor, alphas: Tensor, ptclds: Tensor, **kwargs: Any) -> Tensor:
        """Return images [N, C, H, W] of points [N, K, H, W] with features [C, P]."""
        color = kwargs.get("background_color", self.background_color)
        return with_background(fragments, norm_weighted_sum(fragments, alphas, ptclds), color)


def with_background(pix_idxs: Tensor, images: Tensor, background_color: Color) -> Tensor:
    """Fill pixels without points; a color that lacks the last channel of the images gets 1 there."""
    if background_color is None:
        return images
    color = torch.as_tensor(background_color).to(images)
    channels = images.shape[1]
    if color.dim() == 0:
        color = color.expand(channels)
    if color.dim() > 1:
        raise ValueError(f"Wrong shape of background_color: {list(color.shape)}")
    if len(color) + 1 == channels:
        color = torch.cat([color, color.new_ones(1)])
    if len(color) != channels:
        raise ValueError(f"Background color has {len(color)} channels not {channels}")
    return torch.where(pix_idxs[:, :1] < 0, color.view(1, -1, 1, 1), images)


_add_background_color_to_images = with_background

__getattr__ = refuse_unknown(__name__)
