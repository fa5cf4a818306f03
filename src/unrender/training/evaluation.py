"""How well a field renders views it was not trained on: patches of them during training, whole views afterwards."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.data.frames import Frame
from unrender.data.pixels import PixelSource
from unrender.fields.protocol import RenderedField
from unrender.fields.trainable import TrainableField
from unrender.losses.images import SSIM_WINDOW, match_exposure, psnr, ssim
from unrender.losses.perceptual import PerceptualLoss
from unrender.render.march import RenderOutput, march
from unrender.training.targets import composited_on

NUM_FRAMES, NUM_PATCHES, PATCH_SIZE = 4, 64, 8
"""Test views during training, patches of them together, and pixels along the side of a patch."""


class MeasuredView(NamedTuple):
    """A rendered view, its image on the same background, and how far they differ."""

    rendered: RenderOutput
    target: Float[Tensor, "height width 3"]
    metrics: dict[str, float | None]
    """psnr, ssim, … by name; None where a metric is not defined."""


def measure_view(
    field: RenderedField,
    frame: Frame,
    background: Float[Tensor, "3"] | None = None,
    perceptual: PerceptualLoss | None = None,
) -> MeasuredView:
    """Render a view and compare it with its image, both composited on `background` or on the field's own."""
    view = frame.load_image()
    behind = (field.background if background is None else background).detach().to(view.image.device)
    target = composited_on(behind, view.image, view.alpha)
    rendered = field.render(frame.camera, background).to(view.image.device)
    is_whole = view.mask is None
    has_ssim = is_whole and min(target.shape[:2]) >= SSIM_WINDOW
    metrics: dict[str, float | None] = {
        "psnr": psnr(rendered.color, target, view.mask),
        "ssim": ssim(rendered.color, target) if has_ssim else None,
    }
    if view.alpha is None:  # a photo, whose exposure may differ
        matched = match_exposure(rendered.color, target, view.mask)
        metrics["psnr_matched"] = psnr(matched, target, view.mask)
    if perceptual is not None:
        metrics["lpips"] = perceptual(rendered.color, target) if is_whole else None
    return MeasuredView(rendered, target, metrics)


class HeldOutPatches:
    """Random patches of a few test views, whose PSNR is measured during training."""

    def __init__(self, frames: Sequence[Frame], background: Literal["white", "black"] = "white") -> None:
        self._batch, self._background = None, 1.0 if background == "white" else 0.0
        if frames:
            pixels = PixelSource(frames[:: -(-len(frames) // NUM_FRAMES)])
            self._size = min(PATCH_SIZE, *(min(c.height, c.width) for c in pixels.cameras))
            self._batch = pixels.draw(NUM_PATCHES, self._size)

    def __len__(self) -> int:
        return 0 if self._batch is None else NUM_PATCHES

    @torch.no_grad()
    def psnr(self, field: TrainableField) -> float | None:
        """Return the PSNR of all patches together; None where no pixel is valid."""
        batch = self._batch
        if batch is None or not bool(batch.valid.any()):
            return None
        background = field.background
        batch = batch.to(background.device)
        if batch.alpha is not None:
            background = torch.full_like(background, self._background)
        rendered = march(field, batch.rays, field.sample, background=background)
        image = composited_on(background, batch.colors, batch.alpha)
        rows = (-1, self._size)
        return psnr(rendered.color.view(*rows, 3), image.view(*rows, 3), batch.valid.view(rows))
