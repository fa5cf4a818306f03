"""Rays along which it is known how far away the first surface is: what radiance fields learn depth from."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender.data.frames import Frame
from unrender.geometry.rays import Rays, rays_of

MOST = 4_000_000
"""Depths that are held: 20 bytes each. Of more, as many of each frame are chosen at random."""
RAYS_OF_DEPTH = 0.25
"""For each ray whose color is learned from, so many are, along which depth is known."""


class DepthBatch(NamedTuple):
    """Some rays, and where they end."""

    rays: Rays
    distances: Float[Tensor, " rays"]
    """Along the ray, in world units."""


class DepthSupervision:
    """What the depth pictures of frames say, or the points that were measured where they look; random rays of it.

    Frames that have a picture of depth count with that, others with the points they show. Of pictures, only pixels
    that the frame's mask allows, and that something covers whole: at its outline, the middle of a pixel says little of
    the rest of it.
    """

    def __init__(self, frames: Sequence[Frame], *, seed: int = 0) -> None:
        self._origins = torch.stack([frame.camera.position for frame in frames])
        generator, most = torch.Generator().manual_seed(seed), max(1, MOST // len(frames))
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
            logging.getLogger("unrender").info("%d depths of %d of %d frames are learned from too", *known)

    def __len__(self) -> int:
        return len(self._distances)

    def draw(self, count: int, generator: torch.Generator) -> DepthBatch:
        """Choose so many at random, all with the same probability; none if none is known."""
        chosen = torch.randint(max(len(self), 1), (count if len(self) else 0,), generator=generator)
        rays = Rays(self._origins[self._frame[chosen]], self._directions[chosen])
        return DepthBatch(rays, self._distances[chosen])


def _known(frame: Frame) -> tuple[Float[Tensor, "depths 3"], Float[Tensor, " depths"]]:
    """Return in which directions, from the camera, a frame knows how far it is."""
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
    away = frame.points - frame.camera.position
    distance = away.norm(dim=-1)
    return away / distance[:, None], distance
