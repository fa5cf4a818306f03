"""What rays should show: image colors composited on a background."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from unrender.data.pixels import PixelBatch

Background = Literal["auto", "white", "black", "random"]


def composited_on(
    background: Float[Tensor, "*#batch 3"], colors: Float[Tensor, "*batch 3"], alpha: Tensor | None
) -> Float[Tensor, "*batch 3"]:
    """Return colors, which are not multiplied by alpha, composited on a background; opaque ones as they are."""
    return colors if alpha is None else torch.lerp(background.expand_as(colors), colors, alpha[..., None])


def training_targets(
    batch: PixelBatch,
    field_background: Float[Tensor, "3"],
    background: Background,
    generator: Generator,
    white_fraction: float = 0.0,
) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
    """Return the colors that rays should have, and the background to render them on.

    Transparent images are composited on random colors, white or black; with `auto`, a fraction on white and the others
    on random colors. Opaque ones have the background that is optimized with the field.
    """
    if batch.alpha is None:
        return batch.colors, field_background.expand_as(batch.colors)
    if background in ("auto", "random"):
        behind = torch.rand(batch.colors.shape, generator=generator).to(batch.colors)
        if background == "auto" and white_fraction > 0:
            is_white = torch.rand(len(behind), 1, generator=generator) < white_fraction
            behind = torch.where(is_white.to(behind.device), 1.0, behind)
    else:
        behind = torch.full_like(batch.colors, 1.0 if background == "white" else 0.0)
    return composited_on(behind, batch.colors, batch.alpha), behind


def squared_error(
    colors: Float[Tensor, "rays 3"], target: Float[Tensor, "rays 3"], valid: Bool[Tensor, " rays"]
) -> Float[Tensor, ""]:
    """Return the mean squared error over valid rays; 0 if there are none. Differentiable in: colors, target."""
    squares = (colors - target).square().mean(1)
    return torch.where(valid, squares, 0).sum() / valid.sum().clamp(min=1)


def constant_error(
    target: Float[Tensor, "rays 3"], background: Float[Tensor, "rays 3"], valid: Bool[Tensor, " rays"]
) -> Float[Tensor, ""]:
    """Return the mean squared error of the better of two constant images: the mean color, and the background alone."""
    target, background = target.detach(), background.detach()
    count = valid.sum().clamp(min=1)
    mean = torch.where(valid[:, None], target, 0).sum(0) / count
    return torch.minimum(
        squared_error(mean.expand_as(target), target, valid), squared_error(background, target, valid)
    )
