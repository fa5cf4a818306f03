"""Volumes: grids of voxels with density and color, in any pose.

Volume frame: one unit is one voxel. +x runs along the width, +y along the height, +z along the depth, so that voxel
[k, j, i] reaches from (i, j, k) to (i, j, k) + 1 and has its value at the center.
"""

from itertools import product
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError, ShapeError
from unrender.geometry.camera import transform
from unrender.geometry.rays import RayInterval, Rays, clip_to_box
from unrender.kernels.sample_grid import sample_grid


class Volume(TensorStruct):
    """A box of voxels, or a batch of them; one is a field that can be marched through."""

    density: Float[Tensor, "*batch depth height width"]
    """Absorption per world unit, ≥ 0. In a volume from a file: its values, which a `TransferFunction` makes visible."""
    world_from_volume: Float[Tensor, "*batch 4 4"]
    """Affine: voxels may be longer along one axis than another, and lie in any direction."""
    color: Float[Tensor, "*batch depth height width channels"] | None = None
    """Emitted color; white if None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 in self.density.shape[-3:]:
            raise ShapeError(
                f"Volume: a volume has at least one voxel along each axis, got {list(self.density.shape)}"
            )

    @classmethod
    def in_box(
        cls,
        density: Float[Tensor, "*batch depth height width"],
        low: Float[Tensor, "3"],
        high: Float[Tensor, "3"],
        color: Float[Tensor, "*batch depth height width channels"] | None = None,
    ) -> Self:
        """Fill the box between two corners of the world; width runs along x, height along y, depth along z.

        Differentiable in: density, low, high, color.
        """
        if not bool((high > low).all()):
            raise InputError(
                f"Volume.in_box: `high` should be above `low`, got {low.tolist()} to {high.tolist()}"
            )
        scale = (high - low) / low.new_tensor(density.shape[:-4:-1])
        matrix = torch.cat([torch.diag(scale), low[:, None]], 1)
        matrix = torch.cat([matrix, matrix.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
        return cls(density, matrix.to(density.dtype).expand(*density.shape[:-3], 4, 4), color)

    @property
    def size(self) -> Float[Tensor, "3"]:
        """Width, height and depth, in voxels."""
        return self.world_from_volume.new_tensor(self.density.shape[:-4:-1])

    @property
    def volume_from_world(self) -> Float[Tensor, "*batch 4 4"]:
        """The inverse of `world_from_volume`."""
        inverse: Tensor = torch.linalg.inv(self.world_from_volume)
        return inverse

    @property
    def corners(self) -> Float[Tensor, "*batch 8 3"]:
        """The corners of the box, in the world."""
        ends = [self.size * self.size.new_tensor(end) for end in product((0.0, 1.0), repeat=3)]
        return transform(self.world_from_volume, torch.stack(ends))

    @property
    def bounds(self) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"]]:
        """Lowest and highest coordinates in the world."""
        return self.corners.amin(-2), self.corners.amax(-2)

    @checked
    def contains(self, points: Float[Tensor, "*batch points 3"]) -> Bool[Tensor, "*batch points"]:
        """Tell which points of the world are in the box."""
        inside = transform(self.volume_from_world, points)
        return ((inside >= 0) & (inside <= self.size)).all(-1)

    def clip(self, rays: Rays) -> RayInterval:
        """Return where rays enter and leave the box of this one volume; they miss it where t_far ≤ t_near.

        Differentiable in: rays, where they hit the box.
        """
        self._check_single("clip")
        inside = self.rays_in_volume(rays)
        return clip_to_box(inside, torch.zeros_like(self.size), self.size)

    def rays_in_volume(self, rays: Rays) -> Rays:
        """Return rays in the volume frame; directions keep the distance, so they have no unit length there.

        Differentiable in: rays.
        """
        origins = transform(self.volume_from_world, rays.origins.reshape(-1, 3))
        ahead = self.volume_from_world.clone()
        ahead[..., :3, 3] = 0
        directions = transform(ahead, rays.directions.reshape(-1, 3))
        return Rays(origins.view_as(rays.origins), directions.view_as(rays.directions))

    def __call__(
        self, points: Float[Tensor, "*points 3"], directions: Float[Tensor, "*points 3"] | None = None
    ) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points channels"]]:
        """Return density and color between the voxels, trilinearly; beyond the box they fade over half a voxel.

        It looks the same from all directions. Differentiable in: the volume, points.
        """
        self._check_single("march")
        inside = transform(self.volume_from_world, points.reshape(-1, 3))
        density = sample_grid(self.density[..., None], inside)[:, 0]
        color = inside.new_ones(len(inside), 3) if self.color is None else sample_grid(self.color, inside)
        return density.view(points.shape[:-1]), color.view(*points.shape[:-1], color.shape[-1])

    def _check_single(self, what: str) -> None:
        if self.batch_shape:
            raise ShapeError(
                f"Volume: {what} one volume at a time, not a batch of {list(self.batch_shape)}: index it"
            )
