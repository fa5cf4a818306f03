"""How well a field renders views it was not trained on: patches of them during training, whole views afterwards."""

from collections.abc import Sequence
from typing import Literal

import torch

from unrender.data.frames import Frame
from unrender.data.pixels import PixelSource
from unrender.fields.trainable import TrainableField
from unrender.losses.images import psnr
from unrender.render.march import march
from unrender.training.targets import composited_on

NUM_FRAMES, NUM_PATCHES, PATCH_SIZE = 4, 64, 8
"""Test views during training, patches of them together, and pixels along the side of a patch."""


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
        if batch.alpha is not None:
            background = torch.full_like(background, self._background)
        rendered = march(field, batch.rays, field.sample, background=background)
        image = composited_on(background, batch.colors, batch.alpha)
        rows = (-1, self._size)
        return psnr(rendered.color.view(*rows, 3), image.view(*rows, 3), batch.valid.view(rows))
