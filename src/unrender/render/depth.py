"""Depth of views: the values."""

from jaxtyping import Bool, Float
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import rays_of


class DepthMap(TensorStruct):
    """How far away what a camera sees in a field is, in world units; 0 where there is nothing.

    Distances lie along the rays; z, along the camera's axis, follows from them exactly.
    """

    camera: Camera
    expected_distance: Float[Tensor, "height width"]
    """Mean of where light is absorbed. Between two surfaces where a ray meets both."""
    median_distance: Float[Tensor, "height width"]
    """Half of what is absorbed is absorbed before. Always on what absorbs."""
    first_surface_distance: Float[Tensor, "height width"]
    """Where the opacity reaches a threshold; 0 of rays whose opacity does not."""
    opacity: Float[Tensor, "height width"]
    """Share of the light that is absorbed, in [0, 1]."""
    std: Float[Tensor, "height width"]
    """Spread of where light is absorbed along the ray, about the mean."""
    confidence: Float[Tensor, "height width"]
    """Probability, in [0, 1], that the median distance is off by at most 1 %, or another bound asked for."""
    valid: Bool[Tensor, "height width"]
    """Where there is a surface: enough of the light is absorbed."""

    @property
    def expected_z(self) -> Float[Tensor, "height width"]:
        """Of the expected distance."""
        return self.expected_distance * ahead(self.camera)

    @property
    def median_z(self) -> Float[Tensor, "height width"]:
        """Of the median distance."""
        return self.median_distance * ahead(self.camera)

    @property
    def first_surface_z(self) -> Float[Tensor, "height width"]:
        """Of the distance to the first surface."""
        return self.first_surface_distance * ahead(self.camera)


class DepthView(TensorStruct):
    """Depth seen by one camera, of a field or measured, and the colors that belong to it."""

    camera: Camera
    depth: Float[Tensor, "height width"]
    """z in world units; 0 where it is unknown."""
    color: Float[Tensor, "height width 3"] | None = None
    """RGB in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        size = (self.camera.height, self.camera.width)
        if self.camera.batch_shape or tuple(self.depth.shape) != size:
            raise InputError(
                f"DepthView: `camera` should be one, of the size of `depth`, {list(self.depth.shape)}; got "
                f"{list(self.camera.batch_shape)} of {list(size)}"
            )


def ahead(camera: Camera) -> Float[Tensor, "height width"]:
    """Return how much z grows along the ray of each pixel, for each unit of distance; 0 where there is no ray.

    Differentiable in: the camera.
    """
    forward = camera.camera_from_world[..., None, None, 2, :3]
    return (rays_of(camera).directions * forward).sum(-1).nan_to_num()
