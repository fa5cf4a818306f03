"""Plain functions as fields."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.protocol import Field, RenderedField
from unrender.fields.render_field import render_field
from unrender.fields.uniform_samples import check_interval, uniform_samples
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays
from unrender.geometry.scene_box import SceneBox
from unrender.render.march import FieldFunction, RenderOutput
from unrender.render.sample import RaySamples


class CallableField:
    """A `Field` from a function: points and unit directions, both [n, 3], to density [n] per world unit and color.

    Rays are sampled uniformly between the distances `near` and `far`; surfaces are extracted within `scene_box`.
    """

    def __init__(
        self,
        function: FieldFunction,
        *,
        near: float | None = None,
        far: float | None = None,
        scene_box: SceneBox | None = None,
        background: Float[Tensor, "3"] | None = None,
        num_samples: int = 128,
    ) -> None:
        check_interval("CallableField", near, far)
        self._function, self._near, self._far, self._box = function, near, far, scene_box
        self._num_samples = num_samples
        self.background = torch.zeros(3) if background is None else background

    @property
    def scene_box(self) -> SceneBox:
        """The scene box that was given; InputError if none was."""
        if self._box is None:
            raise InputError("CallableField: a function has no bounds; give a box")
        return self._box

    @property
    def near(self) -> float:
        """Distance from the origins of rays at which samples start."""
        return self._near or 0.0

    def __call__(self, points: Tensor, directions: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return density and color."""
        return self._function(points, directions)

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the density alone; the function is called with directions along z."""
        forward = torch.zeros_like(points)
        forward[:, 2] = 1
        return self._function(points, forward)[0]

    def sample(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return uniform samples; with `quick`, half as many."""
        return self.sample_uniform(rays, self._num_samples // (2 if quick else 1))

    def sample_uniform(
        self, rays: Rays, num_samples: int, *, near: float | None = None, far: float | None = None
    ) -> RaySamples:
        """Return the centers of equal intervals of each ray."""
        near, far = (self._near, self._far) if near is None or far is None else (near, far)
        if near is None or far is None:
            raise InputError("a function has no bounds; give `near` and `far`")
        return uniform_samples(rays, near, far, num_samples)

    def render(
        self, camera: Camera, background: Tensor | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Render the view of a camera; see `render_field`."""
        return render_field(self, camera, background, quick=quick)

    def bounds(self) -> Float[Tensor, "2 3"]:
        """Return the corners of the box that was given."""
        return self.scene_box.bounds


def as_field(
    field: RenderedField | FieldFunction, *, near: float | None = None, far: float | None = None
) -> Field:
    """Return a field as it is, and a function as a `CallableField` between two distances."""
    if isinstance(field, Field):
        return field
    if not callable(field):
        raise InputError(
            f"a {type(field).__name__} has no density to sample along rays or on a grid; use its `render` and "
            "`measure_depth`, and `fuse_depths` for a mesh"
        )
    return CallableField(field, near=near, far=far)
