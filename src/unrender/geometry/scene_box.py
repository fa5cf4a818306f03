"""The region of space that a field models: a box, or all space around one."""

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.rays import RayInterval, Rays, clip_to_box
from unrender.geometry.world_origin import ZERO, WorldOrigin
from unrender.kernels.contraction import contract, contracted_steps, uncontract

FAR = 1000.0
"""Where rays end in contracted space, in half extents of the box."""


class SceneBox(TensorStruct):
    """A box with sides along the axes of the world or, contracted, all space.

    Contracted space is mapped into a cube twice as wide as the box by the contraction of Mip-NeRF 360 (Barron et al.
    2022, eq. 10, with the maximum norm): the box itself is not distorted, and everything around it fills the rest.
    """

    center: Float[Tensor, "3"]
    half_extent: Float[Tensor, "3"]
    """Half the sides, in world units."""
    contracted: bool = False
    origin: WorldOrigin = ZERO
    """World coordinates of the origin of the frame that the box is in; see `Scene.origin`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not bool(((self.half_extent > 0) & self.half_extent.isfinite() & self.center.isfinite()).all()):
            raise InputError(
                "SceneBox: `center` should be finite and `half_extent` lengths > 0, got "
                f"{self.center.tolist()} and {self.half_extent.tolist()}"
            )

    @classmethod
    def cube(cls, center: Float[Tensor, "3"], half_extent: float, *, contracted: bool = False) -> Self:
        """Return the cube of side 2 `half_extent`."""
        return cls(center, torch.full_like(center, half_extent), contracted)

    @classmethod
    def from_bounds(
        cls, low: Float[Tensor, "3"], high: Float[Tensor, "3"], *, contracted: bool = False
    ) -> Self:
        """Return the box between two opposite corners, the lowest and the highest."""
        return cls((low + high) / 2, (high - low) / 2, contracted)

    @classmethod
    def of_voxels(
        cls, low: Float[Tensor, "3"], voxel_size: float, shape: Sequence[int], *, contracted: bool = False
    ) -> Self:
        """Return the box of a grid of cubic voxels that begins at a corner."""
        return cls.from_bounds(low, low + voxel_size * low.new_tensor(shape), contracted=contracted)

    @property
    def bounds(self) -> Float[Tensor, "2 3"]:
        """The lowest and the highest corner of the box, whether or not it is contracted."""
        return torch.stack([self.center - self.half_extent, self.center + self.half_extent])

    @property
    def radius(self) -> Float[Tensor, ""]:
        """Half the longest side, in world units."""
        return self.half_extent.amax()

    @checked
    def normalize(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Map points to [0, 1]³; without contraction, points outside the box are mapped outside of it.

        Differentiable in: points.
        """
        local = (points - self.center) / self.half_extent
        return (contract(local) + 2) / 4 if self.contracted else (local + 1) / 2

    @checked
    def denormalize(self, coordinates: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Return the inverse of `normalize`; in contracted space, faces of the unit cube lie infinitely far away.

        Differentiable in: coordinates.
        """
        local = uncontract(4 * coordinates - 2) if self.contracted else 2 * coordinates - 1
        return self.center + local * self.half_extent

    def contains(self, points: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
        """Return which points lie in the modeled region; in contracted space, all do."""
        if self.contracted:
            return torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
        return ((points - self.center).abs() <= self.half_extent).all(-1)

    def intersect(self, rays: Rays, near: float = 0.0) -> RayInterval:
        """Return where rays enter and leave the modeled region, not before `near`; t_far ≤ t_near where they miss it.

        In contracted space rays end at `FAR` half extents. Rays of nan miss.
        Differentiable in: rays, where they hit the box.
        """
        if self.contracted:
            t_far = (FAR * self.radius).expand(rays.origins.shape[:-1])
            t_far = t_far.masked_fill(rays.directions.isnan().any(-1), 0)
            return RayInterval(torch.full_like(t_far, near), t_far)
        t_near, t_far = clip_to_box(rays, *self.bounds)
        return RayInterval(t_near.clamp(min=near), t_far)

    def local_rays(self, rays: Rays) -> Rays:
        """Return rays in the frame where the box is [−1, 1]³; directions keep the distance, and are not of unit length.

        Differentiable in: rays.
        """
        return Rays((rays.origins - self.center) / self.half_extent, rays.directions / self.half_extent)

    def step_lengths(self, rays: Rays, t: Float[Tensor, " rays"], step: float) -> Float[Tensor, " rays"]:
        """Return how far to advance a row of rays from `t`, in world units, so that steps are `step` within the box.

        Outside, in contracted space, they grow so that all have the same length in contracted coordinates.
        """
        if not self.contracted:
            return torch.full_like(t, step)
        local = self.local_rays(rays)
        return contracted_steps(local.origins, local.directions, t, step)
