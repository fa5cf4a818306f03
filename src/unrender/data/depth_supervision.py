"""Rays of known depth, from depth images or measured points: the depth supervision of radiance fields."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.data.frames import Frame
from unrender.geometry.rays import Rays, rays_of

MAX_DEPTHS = 4_000_000
"""Depths in memory, 20 bytes each; larger sets are sampled, with equal numbers per frame."""
DEPTH_RAYS_PER_RAY = 0.25
"""Rays of known depth in a training step, for each ray of known color."""


class DepthBatch(NamedTuple):
    """Some rays, and where they end."""

    rays: Rays
    distances: Float[Tensor, " rays"]
    """Along the ray, in world units."""


class DeviceDepths(TensorStruct):
    """All rays of known depth on one device, from which a training step draws by itself."""

    frame: Int[Tensor, " depths"]
    """int32: the frame from whose camera each ray starts."""
    directions: Float[Tensor, "depths 3"]
    distances: Float[Tensor, " depths"]


class DepthSupervision:
    """Random rays of known depth, from the depth images of frames or from measured points.

    Frames with a depth image use that one, others the points visible in them. Of depth images, only pixels inside the
    frame's mask with an alpha of 1 are used: at silhouettes, the depth of the pixel's center is not that of all of it.
    """

    def __init__(self, frames: Sequence[Frame], *, seed: int = 0) -> None:
        self._origins = torch.stack([frame.camera.position for frame in frames])
        generator, most = torch.Generator().manual_seed(seed), max(1, MAX_DEPTHS // len(frames))
        kept: list[tuple[Tensor, Tensor]] = []
        with ThreadPoolExecutor(2) as pool:
            for directions, distances in pool.map(_known, frames):
                chosen: Tensor | slice = slice(None)
                if len(distances) > most:
                    chosen = torch.randperm(len(distances), generator=generator)[:most]
                kept.append((directions[chosen], distances[chosen]))
        counts = torch.tensor([len(distances) for _, distances in kept])
        self._frame: Int[Tensor, " depths"] = torch.arange(len(frames)).repeat_interleave(counts)
        self._directions, self._distances = (torch.cat(parts) for parts in zip(*kept, strict=True))
        if len(self):
            known = (len(self), int((counts > 0).sum()), len(frames))
            logging.getLogger("unrender").info("depth supervision: %d depths in %d of %d frames", *known)

    def __len__(self) -> int:
        return len(self._distances)

    def on_device(self, device: torch.device) -> DeviceDepths:
        """Return all rays on a device, to draw from there."""
        return DeviceDepths(
            self._frame.int().to(device), self._directions.to(device), self._distances.to(device)
        )

    def draw(self, count: int, generator: torch.Generator) -> DepthBatch:
        """Draw rays with equal probability; none if no depth is known."""
        chosen = torch.randint(max(len(self), 1), (count if len(self) else 0,), generator=generator)
        rays = Rays(self._origins[self._frame[chosen]], self._directions[chosen])
        return DepthBatch(rays, self._distances[chosen])


def _known(frame: Frame) -> tuple[Float[Tensor, "depths 3"], Float[Tensor, " depths"]]:
    """Return the directions from the camera in which a frame has depth, and the distances."""
    if frame.depth_file is not None:
        distance, directions, view = (
            frame.load_distance(),
            rays_of(frame.camera).directions,
            frame.load_image(),
        )
        known = (distance > 0) & ~directions.isnan().any(-1)
        if view.mask is not None:
            known &= view.mask
        if view.alpha is not None:
            known &= view.alpha == 1
        return directions[known], distance[known]
    if frame.points is None:
        return torch.zeros(0, 3), torch.zeros(0)
    offsets = frame.points - frame.camera.position
    distance = offsets.norm(dim=-1)
    return offsets / distance[:, None], distance
