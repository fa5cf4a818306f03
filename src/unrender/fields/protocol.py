"""What all radiance fields have in common: where they lie, and what can be asked of them."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays
from unrender.render.sample import RaySamples

FARTHEST = 1000.0
"""How far rays go in contracted space, in half sides of the inner cube."""


class RenderOutput(NamedTuple):
    """A picture of a field."""

    color: Float[Tensor, "height width 3"]
    opacity: Float[Tensor, "height width"]
    distance: Float[Tensor, "height width"]
    """Mean distance along the ray of what is seen, in world units; 0 where there is nothing."""


class RadianceField(Protocol):
    """Density and color everywhere in space, learned from pictures."""

    @property
    def background(self) -> Tensor:
        """Color behind everything, if no other is asked for."""

    @property
    def contracted(self) -> bool:
        """Whether the field has no end: then space far from its middle is contracted."""

    @property
    def near(self) -> float:
        """The distance from cameras at which there can be something, in world units."""

    def __call__(self, points: Tensor, directions: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return density per world unit and color, at points seen in directions of unit length, both [n, 3]."""

    def samples(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return where on rays, in one row, there can be something to see; with `quick`, at fewer places."""

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Return what a camera sees."""


@runtime_checkable
class KnowsDensity(Protocol):
    """A field that can leave out colors."""

    def density_at(self, points: Tensor, /) -> Tensor:
        """Return the density per world unit at points [n, 3]."""


@runtime_checkable
class KnowsPlaces(Protocol):
    """A field that knows where to look."""

    def samples(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return where on rays, in one row, there can be something to see."""


@runtime_checkable
class KnowsWay(Protocol):
    """A field that knows where it begins and ends, and where it is empty."""

    def even_samples(
        self, rays: Rays, count: int, *, near: float | None = None, far: float | None = None
    ) -> RaySamples:
        """Return the middles of `count` equal parts of the way of each ray, in one row, but for those in empty space.

        The way is that through the field, or from `near` to `far` where both are given.
        """


@runtime_checkable
class KnowsBox(Protocol):
    """A field that knows in which part of the world it lies."""

    def box(self) -> Float[Tensor, "2 3"]:
        """Return the lowest and the highest corner of the box that it fills; of one without end, of its inner cube."""


class FieldSpace(TensorStruct):
    """Where a field lies in the world: in a cube, or in all space."""

    middle: Float[Tensor, "3"]
    half_side: float
    """Of the cube, in world units."""
    contracted: bool = False
    """Whether all space around the cube belongs to it too. It is then bent by the contraction of Mip-NeRF 360 (Barron
    et al. 2022, eq. 10, with the largest coordinate for the norm), so that the cube is the inner half by side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.half_side < float("inf"):
            raise InputError(f"FieldSpace: `half_side` should be a length > 0, got {self.half_side}")

    @checked
    def into_cube(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Map points to [0, 1]³; without contraction, those beyond the cube are mapped outside of it.

        Differentiable in: points.
        """
        local = (points - self.middle) / self.half_side
        if not self.contracted:
            return (local + 1) / 2
        largest = local.abs().amax(-1, keepdim=True).clamp(min=1)
        return (local * (2 - 1 / largest) / largest + 2) / 4

    @checked
    def from_cube(self, places: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Map [0, 1]³ back into the world; of contracted space, its border lies infinitely far.

        Differentiable in: places.
        """
        if not self.contracted:
            return self.middle + (2 * places - 1) * self.half_side
        bent = 4 * places - 2
        largest = bent.abs().amax(-1, keepdim=True).clamp(min=1)
        return self.middle + bent / (largest * (2 - largest)) * self.half_side

    def holds(self, points: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
        """Say which points lie in it."""
        if self.contracted:
            return torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
        return ((points - self.middle).abs() <= self.half_side).all(-1)
