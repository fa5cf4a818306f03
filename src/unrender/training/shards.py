"""Shards: the parts of a training step, each with its own images and random numbers, that workers take between them."""

import dataclasses
import logging
import math
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from unrender.data.depth_supervision import DepthBatch, DepthSupervision
from unrender.data.frames import Frame
from unrender.data.pixels import PixelBatch, PixelSource
from unrender.data.seeds import derived_seed
from unrender.errors import InputError
from unrender.workers import Workers, is_launched

log = logging.getLogger("unrender")
DEPTH_LOSS_WEIGHT = 0.02
"""Default weight of the depth loss for measured points."""
SHARDS = 8
"""Shards of a training step under torchrun, by default."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One part of each training step.

    What it draws follows from the seed, the number of the step and the number of the shard alone, whoever draws it.
    """

    index: int
    weight: float
    """Its fraction of all training pixels."""
    frame: Int[Tensor, " frames"]
    """Which of the training images are its images."""
    pixels: PixelSource
    depths: DepthSupervision | None

    @classmethod
    def whole(cls, pixels: PixelSource, depths: DepthSupervision | None = None) -> "Shard":
        """Return the only shard of a training: all of each step."""
        return cls(0, 1.0, torch.arange(len(pixels.frames)), pixels, depths)

    def begin(self, seed: int, step: int) -> int:
        """Begin with the draws of a step; return the seed of its other random numbers."""
        self.pixels.seek(step, derived_seed(seed, step, self.index, 0))
        return derived_seed(seed, step, self.index, 1)

    def draw(self, num_rays: int, patch_size: int) -> PixelBatch:
        """Draw the shard's part of `num_rays` rays, in patches; frames are numbered among all training images."""
        patches = max(1, round(self.weight * num_rays / patch_size**2))
        batch = self.pixels.draw(patches, patch_size)
        if self.weight == 1:
            return batch
        return batch.replace(frame=self.frame.to(batch.frame.device)[batch.frame])

    def draw_depths(self, count: int, generator: torch.Generator) -> DepthBatch | None:
        """Draw rays of known depth; None where there are none."""
        return None if self.depths is None else self.depths.draw(count, generator)


def resolve_shards(num_shards: int | None) -> int:
    """Return the number of shards of each step: by default 1; under torchrun, `SHARDS`."""
    if num_shards is not None:
        return num_shards
    return SHARDS if is_launched() else 1


def load_shards(
    frames: Sequence[Frame],
    num_shards: int,
    workers: Workers,
    *,
    memory_mib: float,
    depth_loss_weight: float | None,
    seed: int,
    device: torch.device,
) -> list[Shard]:
    """Load the shards of this worker: every `num_shards`-th image each, in an equal part of `memory_mib`.

    Pixels are moved to the device if it can hold them all in the way they are drawn from there. Depth is loaded where
    there is any and the depth loss has a weight; without a weight, measured points are used, but not depth images,
    which can cost several dB.
    """
    if num_shards < workers.count:
        raise InputError(
            f"{workers.count} workers, but steps have {num_shards} shards: give as many `shards` as workers, or more"
        )
    if num_shards > len(frames):
        raise InputError(f"`shards` is {num_shards}, more than the {len(frames)} training images")
    num_depth_images = sum(frame.depth_file is not None for frame in frames)
    if depth_loss_weight is None and num_depth_images:
        log.info(
            "depth images of %d frames are not used in training; give depth_loss_weight = %g to use them",
            num_depth_images,
            DEPTH_LOSS_WEIGHT,
        )
    sizes = [frame.camera.height * frame.camera.width for frame in frames]
    shards = []
    for index in workers.items(num_shards):
        own = range(index, len(frames), num_shards)
        chosen = [frames[number] for number in own]
        pixels = PixelSource(
            chosen,
            memory_mib=memory_mib / num_shards,
            seed=seed if num_shards == 1 else derived_seed(seed, index),
        )
        if device.type != "cpu":
            pixels.move_to(device)
        depths = None if depth_loss_weight == 0 else _known_depths(chosen, depth_loss_weight is None, seed)
        weight = math.fsum(sizes[number] for number in own) / math.fsum(sizes)
        shards.append(Shard(index, weight, torch.tensor(own), pixels, depths))
    return shards


def _known_depths(frames: Sequence[Frame], points_only: bool, seed: int) -> DepthSupervision | None:
    if points_only:
        frames = [dataclasses.replace(frame, depth_file=None) for frame in frames]
    return DepthSupervision(frames, seed=seed) or None
