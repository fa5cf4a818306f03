"""Depth maps of views, with uncertainty, and depth images with their cameras."""

from jaxtyping import Bool, Float
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import rays_of


class DepthMap(TensorStruct):
    """Depth of a field rendered from a camera, in world units; 0 where nothing is visible.

    Distances are along the rays; z, along the camera's axis, follows from them exactly. The z of an equirectangular
    camera is the distance.
    """

    camera: Camera
    expected_distance: Float[Tensor, "height width"]
    """Mean distance, weighted; between two surfaces if a ray meets both."""
    median_distance: Float[Tensor, "height width"]
    """Where half of the weight is reached: always on a surface."""
    first_surface_distance: Float[Tensor, "height width"]
    """Where the opacity reaches a threshold; 0 for rays that stay below it."""
    opacity: Float[Tensor, "height width"]
    """Sum of the weights, in [0, 1]."""
    std: Float[Tensor, "height width"]
    """Standard deviation of the distance along the ray, weighted."""
    confidence: Float[Tensor, "height width"]
    """Probability, in [0, 1], that the error of the median distance is at most 1 %, or the bound that was requested."""
    valid: Bool[Tensor, "height width"]
    """Where there is a surface: the opacity is high enough."""

    @property
    def expected_z(self) -> Float[Tensor, "height width"]:
        """Z-depth of the expected distance."""
        return self.expected_distance * z_per_distance(self.camera)

    @property
    def median_z(self) -> Float[Tensor, "height width"]:
        """Z-depth of the median distance."""
        return self.median_distance * z_per_distance(self.camera)

    @property
    def first_surface_z(self) -> Float[Tensor, "height width"]:
        """Z-depth of the first surface."""
        return self.first_surface_distance * z_per_distance(self.camera)


class DepthView(TensorStruct):
    """A depth image with its camera, rendered or measured, and optionally its colors."""

    camera: Camera
    depth: Float[Tensor, "height width"]
    """z in world units, or the distance of equirectangular cameras; 0 where it is unknown."""
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


def z_per_distance(camera: Camera) -> Float[Tensor, "height width"]:
    """Return the z of a point at distance 1 along the ray of each pixel; 0 where there is no ray.

    Equirectangular cameras have depth along the rays: 1.
    Differentiable in: the camera.
    """
    if camera.projection == "equirectangular":
        return rays_of(camera).directions.isfinite().all(-1).to(camera.focal.dtype)
    forward = camera.camera_from_world[..., None, None, 2, :3]
    return (rays_of(camera).directions * forward).sum(-1).nan_to_num()
