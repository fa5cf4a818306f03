"""The interface of every field: density and color at points, samples along rays, renderings."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays
from unrender.geometry.scene_box import SceneBox
from unrender.kernels.ray_depths import RayDepths
from unrender.render.march import RenderOutput
from unrender.render.sample import RaySamples


@runtime_checkable
class RenderedField(Protocol):
    """A scene that renders itself: what views, depth maps and the viewer need of a field."""

    @property
    def scene_box(self) -> SceneBox:
        """The region of space that is modeled."""

    @property
    def near(self) -> float:
        """Distance along rays at which rendering starts, in world units."""

    @property
    def background(self) -> Tensor:
        """Default background color [3]."""

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Render image, opacity and distance from a camera; with `quick`, from fewer samples."""

    def bounds(self) -> Tensor:
        """Return the lowest and the highest corner [2, 3] of the occupied region, or of the uncontracted box."""


@runtime_checkable
class Field(RenderedField, Protocol):
    """Density and color at every point of space: the interface that rendering, depth, export and viewer use.

    `TrainableField` implements all of it for a module with a `forward`, and `CallableField` for a plain function.
    """

    def __call__(self, points: Tensor, directions: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return density [n] per world unit and color [n, 3], from points and unit directions, both [n, 3]."""

    def density(self, points: Tensor, /) -> Tensor:
        """Return the density [n] per world unit at points [n, 3], without colors."""

    def sample(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return the samples along a row of rays at which to evaluate the field; with `quick`, fewer."""

    def sample_uniform(
        self, rays: Rays, num_samples: int, *, near: float | None = None, far: float | None = None
    ) -> RaySamples:
        """Return the centers of `num_samples` equal intervals of each ray, without those in known empty space.

        Intervals divide the ray within the scene box or, where both are given, from `near` to `far`.
        """


@runtime_checkable
class HasDepths(Protocol):
    """A field without density, which computes the depth of its views itself."""

    def depths(self, camera: Camera, *, threshold: float, bound: float) -> tuple[RayDepths, Tensor]:
        """Return depth statistics of the pixels, and their opacity, all [height, width]; see `ray_depths`."""


class DensityGrid(NamedTuple):
    """The density of a field whose parameters lie on a regular grid, in contracted coordinates if space is contracted.

    Grid point i of n along an axis has the coordinate i / (n − 1) of the unit cube of the scene box.
    """

    log_density: Float[Tensor, "x y z"]
    is_known: Bool[Tensor, "x y z"]
    """Where there is a parameter; other grid points are empty or unobserved."""
    voxel_size: float
    """Side of a voxel, in world units; in contracted space, of those in the inner cube."""


@runtime_checkable
class HasDensityGrid(Protocol):
    """A field whose surface can be extracted from its own grid, without resampling."""

    def density_grid(self) -> DensityGrid:
        """Return the density at all grid points."""


@runtime_checkable
class Croppable(Protocol):
    """A field that can be cropped, faster than by masking its density."""

    def crop(self, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> RenderedField | None:
        """Return the part of the field between two corners; None if there is nothing."""
