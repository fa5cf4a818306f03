"""Camera poses and intrinsics, projection and unprojection.

Camera frame (OpenCV): +x right, +y down, +z forward. Image coordinates are in pixels, x to the right and y down, row 0
at the top; the first pixel covers [0, 1] and has its center at 0.5.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender._struct import TensorStruct
from unrender.errors import InputError, ShapeError
from unrender.geometry.constants import constant
from unrender.geometry.lens import Lens
from unrender.geometry.rotations import rotation_from_quaternion
from unrender.kernels._dispatch import can_read
from unrender.kernels.look_at import look_at_pose
from unrender.kernels.project_points import project_points

Projection = Literal["perspective", "orthographic", "equirectangular"]
POLE_ROUNDING = 1e-5
"""Latitude beyond the poles, in radians, that counts as rounding."""
Numbers = Tensor | Sequence[float] | float


class Camera(TensorStruct):
    """One camera or a batch of cameras with the same image size.

    A point (X, Y, Z) in the camera frame projects to x = focal_x · X / Z + center_x, and likewise for y. Orthographic
    projection omits the division; its focal length is in pixels per world unit. A `lens` distorts X / Z and Y / Z.

    An equirectangular camera (360°) has the longitude atan2(X, Z) in place of X / Z, and the latitude
    atan2(Y, √(X² + Z²)) in place of Y / Z; its focal length is in pixels per radian. Its depth is the distance from the
    camera, in every function that takes or returns one.

    Example: `Camera.look_at((2.0, 1.0, 2.0), fov_degrees=60.0, height=256, width=256)` looks at the origin.
    """

    focal: Float[Tensor, "*batch 2"]
    center: Float[Tensor, "*batch 2"]
    camera_from_world: Float[Tensor, "*batch 4 4"]
    """Rigid transform from world to camera coordinates."""
    height: int
    width: int
    projection: Projection = "perspective"
    lens: Lens | None = None
    """Lens distortion, one per camera or one for all; None for a pinhole camera."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.height < 1 or self.width < 1:
            raise InputError(
                f"Camera: `height` and `width` should be at least 1, got {self.height} × {self.width}"
            )
        if self.projection not in get_args(Projection):
            raise InputError(
                f"Camera: `projection` should be one of {', '.join(get_args(Projection))}, got {self.projection!r}"
            )
        if self.lens is not None and self.projection != "perspective":
            raise InputError(
                f"Camera: `lens` requires a perspective projection, got one that is {self.projection}"
            )
        if self.lens is not None and self.lens.batch_shape not in ((), self.batch_shape):
            raise ShapeError(
                f"Camera: `lens` should be a single lens or have the batch shape {list(self.batch_shape)} of the "
                f"cameras, got batch shape {list(self.lens.batch_shape)}"
            )

    @classmethod
    def look_at(
        cls,
        eye: Float[Tensor, "*batch 3"] | Sequence[float],
        target: Float[Tensor, "*batch 3"] | Sequence[float] = (0.0, 0.0, 0.0),
        up: Float[Tensor, "*batch 3"] | Sequence[float] = (0.0, 1.0, 0.0),
        *,
        fov_degrees: float = 60.0,
        view_height: float | None = None,
        height: int,
        width: int,
    ) -> Self:
        """Create a camera at `eye` that looks at `target`, with `up` pointing up in the image.

        `fov_degrees` is the vertical field of view. With `view_height`, the projection is orthographic and the image
        is that many world units high.
        Differentiable in: eye, target, up.
        """
        like = next((t for t in (eye, target, up) if isinstance(t, Tensor)), None)
        like = torch.zeros(()) if like is None else like
        position, *others = torch.broadcast_tensors(*(_shared(t, like) for t in (eye, target, up)))
        pose = _look_at(position, *others)
        pixels = _focal_length(fov_degrees, height) if view_height is None else height / view_height
        return cls(
            torch.full_like(position[..., :2], pixels),
            _as_tensor((width / 2, height / 2), position).expand_as(position[..., :2]),
            pose,
            height,
            width,
            "perspective" if view_height is None else "orthographic",
        )

    @classmethod
    def from_opengl(
        cls,
        world_from_camera: Float[Tensor, "*batch 4 4"],
        focal: Numbers,
        center: Numbers | None = None,
        *,
        height: int,
        width: int,
    ) -> Self:
        """Create a camera from an OpenGL, Blender or NeRF pose: camera to world, +x right, +y up, +z backward."""
        flip = constant((1.0, -1.0, -1.0, 1.0), world_from_camera)
        pose = invert_rigid(world_from_camera * flip)
        return cls(*_intrinsics(pose, focal, center, height, width), pose, height, width)

    @classmethod
    def from_opencv(
        cls,
        rotation: Float[Tensor, "*batch 3 3"],
        translation: Float[Tensor, "*batch 3"],
        camera_matrix: Float[Tensor, "*batch 3 3"],
        *,
        height: int,
        width: int,
    ) -> Self:
        """Create a camera from an OpenCV pose and camera matrix, in which the first pixel's center is at 0, not 0.5."""
        pose = rigid(rotation, translation)
        focal = camera_matrix.diagonal(dim1=-2, dim2=-1)[..., :2]
        return cls(
            *_intrinsics(pose, focal, camera_matrix[..., :2, 2] + 0.5, height, width), pose, height, width
        )

    @classmethod
    def from_colmap(
        cls,
        quaternion: Float[Tensor, "*batch 4"],
        translation: Float[Tensor, "*batch 3"],
        focal: Numbers,
        center: Numbers | None = None,
        *,
        height: int,
        width: int,
    ) -> Self:
        """Create a camera from a COLMAP pose: quaternion (w, x, y, z) and translation, from world to camera."""
        pose = rigid(rotation_from_quaternion(quaternion), translation)
        return cls(*_intrinsics(pose, focal, center, height, width), pose, height, width)

    @classmethod
    def from_pytorch3d(
        cls,
        R: Float[Tensor, "*batch 3 3"],
        T: Float[Tensor, "*batch 3"],
        focal_ndc: Numbers,
        principal_ndc: Numbers = (0.0, 0.0),
        *,
        height: int,
        width: int,
    ) -> Self:
        """Create a camera from a PyTorch3D camera: row vectors X R + T, +x left, +y up.

        The shorter side of the image is 2 NDC units. For field-of-view cameras, `focal_ndc` is 1 / tan(fov / 2).
        """
        flip = constant((-1.0, -1.0, 1.0), R)
        pose = rigid((R * flip).mT, T * flip)
        scale = min(height, width) / 2
        focal = _pair(focal_ndc, pose) * scale
        center = _pair((width / 2, height / 2), pose) - _pair(principal_ndc, pose) * scale
        return cls(focal, center, pose, height, width)

    def to_equirectangular(self, height: int) -> Self:
        """Return the 360° camera of the same pose, whose image is twice as wide as `height`; its center is forward."""
        focal = torch.full_like(self.focal, height / math.pi)
        center = constant((float(height), height / 2), self.focal).expand_as(self.center)
        return type(self)(focal, center, self.camera_from_world, height, 2 * height, "equirectangular")

    def to_opengl(self) -> Float[Tensor, "*batch 4 4"]:
        """Return the camera-to-world matrix in OpenGL's convention: +y up, +z backward."""
        return self.world_from_camera * constant((1.0, -1.0, -1.0, 1.0), self.focal)

    def to_opencv(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return OpenCV's rotation, translation and camera matrix, in which the first pixel's center is at 0.

        Distortion coefficients are not included; read them from `lens`.
        Raises InputError for an equirectangular camera.
        """
        self._require_planar("to_opencv")
        (fx, fy), (cx, cy) = self.focal.unbind(-1), (self.center - 0.5).unbind(-1)
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        matrix = torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], -1).unflatten(-1, (3, 3))
        return self.camera_from_world[..., :3, :3], self.camera_from_world[..., :3, 3], matrix

    def to_pytorch3d(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return R, T, focal length and principal point in PyTorch3D's conventions (see `from_pytorch3d`).

        Raises InputError for a camera with a lens or an equirectangular one, which these conventions cannot express.
        """
        self._require_planar("to_pytorch3d")
        self._require_pinhole("to_pytorch3d")
        flip, scale = constant((-1.0, -1.0, 1.0), self.focal), min(self.height, self.width) / 2
        image_center = constant((self.width / 2, self.height / 2), self.focal)
        return (
            self.camera_from_world[..., :3, :3].mT * flip,
            self.camera_from_world[..., :3, 3] * flip,
            self.focal / scale,
            (image_center - self.center) / scale,
        )

    @property
    def world_from_camera(self) -> Float[Tensor, "*batch 4 4"]:
        """The inverse of `camera_from_world`."""
        return invert_rigid(self.camera_from_world)

    @property
    def position(self) -> Float[Tensor, "*batch 3"]:
        """The camera center in world coordinates."""
        return self.world_from_camera[..., :3, 3]

    def project(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Project world points to the image: x and y in pixels, and depth; nan outside the valid range of the lens.

        The x of an equirectangular camera wraps around behind it, where the image ends on both sides.
        Differentiable in: points and the camera.
        """
        if self.projection == "equirectangular":
            points_camera = transform(self.camera_from_world, points)
            x, y, z = points_camera.unbind(-1)
            angles = torch.stack([torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))], -1)
            flat = angles * self.focal[..., None, :] + self.center[..., None, :]
            return torch.cat([flat, points_camera.norm(dim=-1, keepdim=True)], -1)
        if self.lens is None:
            x, y, w, depth = self.project_homogeneous(points).unbind(-1)
            return torch.stack([x / w, y / w, depth], -1)
        points_camera = transform(self.camera_from_world, points)
        xy = self._lens_over_points(self.lens).distort(points_camera)
        xy = xy * self.focal[..., None, :] + self.center[..., None, :]
        return torch.cat([xy, points_camera[..., 2:]], -1)

    @checked
    def project_homogeneous(self, points: Float[Tensor, "*points_batch points 3"]) -> Tensor:
        """Project world points to homogeneous coordinates (x·w, y·w, w, depth).

        w is the depth in perspective and 1 in orthographic projection, so that the result is smooth across the camera
        plane. Batches of points and cameras broadcast.
        Raises InputError for a camera with a lens and for an equirectangular one, as this projection is linear.
        Differentiable in: points and the camera.
        """
        self._require_planar("project_homogeneous")
        self._require_pinhole("project_homogeneous")
        arguments = (points, self.camera_from_world, self.focal, self.center)
        return project_points(*arguments, self.projection == "perspective")

    @checked
    def unproject(self, pixels: Float[Tensor, "*points_batch points 3"]) -> Tensor:
        """Unproject image points (x, y, depth) to world coordinates; the inverse of `project`.

        The result is nan where the camera maps no direction to the pixel: beyond what a lens sees, or beyond the poles.
        Differentiable in: pixels and the camera.
        """
        depth = pixels[..., 2:]
        flat = (pixels[..., :2] - self.center[..., None, :]) / self.focal[..., None, :]
        if self.projection == "equirectangular":
            return transform(self.world_from_camera, _direction_of_angles(flat) * depth)
        if self.lens is not None:
            directions = self._lens_over_points(self.lens).undistort(flat)
            return transform(self.world_from_camera, directions * (depth / directions[..., 2:]))
        w = depth if self.projection == "perspective" else torch.ones_like(depth)
        return transform(self.world_from_camera, torch.cat([flat * w, depth], -1))

    def rays(self, pixels: Float[Tensor, "*pixels 2"]) -> tuple[Tensor, Tensor]:
        """Return origins and unit directions of the rays through image points, in world coordinates."""
        flat = (pixels - self.center) / self.focal
        world_from_camera = self.world_from_camera
        x, y, z, origin = world_from_camera[..., :3, :].unbind(-1)
        if self.projection == "orthographic":
            origins = flat[..., :1] * x + flat[..., 1:] * y + origin
            return origins, z.expand(origins.shape)
        if self.projection == "equirectangular":
            rays_camera = _direction_of_angles(flat)
        elif self.lens is not None:
            rays_camera = self.lens.undistort(flat)
        else:
            rays_camera = torch.cat([flat, torch.ones_like(flat[..., :1])], -1)
            rays_camera = rays_camera / rays_camera.norm(dim=-1, keepdim=True)
        directions = rays_camera[..., :1] * x + rays_camera[..., 1:2] * y + rays_camera[..., 2:] * z
        return origin.expand(directions.shape), directions

    def _lens_over_points(self, lens: Lens) -> Lens:
        """Add a trailing batch axis, so that the lens broadcasts over the points of each camera."""
        return lens[..., None] if lens.batch_shape else lens

    def _require_planar(self, function: str) -> None:
        if self.projection == "equirectangular":
            raise InputError(
                f"Camera.{function}: an equirectangular camera has no image plane; split its images into perspective "
                "views with `unrender import SCENE --output NEW`, or trace `rays_of(camera)`"
            )

    def _require_pinhole(self, function: str) -> None:
        if self.lens is not None:
            raise InputError(
                f"Camera.{function}: lens distortion is not supported when rasterizing meshes and points; remove it "
                "with `camera.replace(lens=None)`, or trace `rays_of(camera)`"
            )

    def crop(self, left: Numbers, top: Numbers, *, height: int, width: int) -> Self:
        """Crop the image to a window, in pixels; the window may extend beyond the image."""
        corner = torch.stack(
            torch.broadcast_tensors(_as_tensor(left, self.focal), _as_tensor(top, self.focal)), -1
        )
        return self.replace(center=self.center - corner, height=height, width=width)

    def resize(self, height: int, width: int) -> Self:
        """Scale the image to another resolution; the view stays the same."""
        scale = constant((width / self.width, height / self.height), self.focal)
        return self.replace(focal=self.focal * scale, center=self.center * scale, height=height, width=width)

    def resize_longest(self, size: int) -> Self:
        """Return the same view with `size` pixels along the longer side, aspect ratio kept."""
        scale = size / max(self.height, self.width)
        return self.resize(max(1, round(self.height * scale)), max(1, round(self.width * scale)))


def _direction_of_angles(angles: Tensor) -> Tensor:
    """Return unit directions from longitude and latitude (+y down) in radians; nan beyond the poles."""
    longitude, latitude = angles.unbind(-1)
    latitude = latitude.masked_fill(latitude.abs() > math.pi / 2 + POLE_ROUNDING, math.nan)
    across = latitude.cos()
    return torch.stack([longitude.sin() * across, latitude.sin(), longitude.cos() * across], -1)


def transform(a_from_b: Tensor, points: Tensor) -> Tensor:
    """Transform points by 4 × 4 rigid matrices; batches broadcast.

    Written out per coordinate: a matrix product starts all threads for three numbers, and its last bits depend on how
    many threads there are.
    """
    x, y, z, origin = a_from_b[..., None, :3, :].unbind(-1)
    return points[..., :1] * x + points[..., 1:2] * y + points[..., 2:] * z + origin


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """Build 4 × 4 rigid transforms from rotations and translations."""
    top = torch.cat([rotation, translation[..., None]], -1)
    bottom = constant((0.0, 0.0, 0.0, 1.0), top).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], -2)


def invert_rigid(matrix: Tensor) -> Tensor:
    """Invert rigid transforms: (R, t) becomes (Rᵀ, −Rᵀ t)."""
    inverse = matrix[..., :3, :3].mT
    return rigid(inverse, -(inverse @ matrix[..., :3, 3:])[..., 0])


def _look_at(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    if can_read(eye) and bool(((target - eye).detach().norm(dim=-1) == 0).any()):
        raise InputError("Camera.look_at: `eye` and `target` should differ, got the same point")
    return look_at_pose(eye, target, up)


def _intrinsics(
    pose: Tensor, focal: Numbers, center: Numbers | None, height: int, width: int
) -> tuple[Tensor, Tensor]:
    return _pair(focal, pose), _pair((width / 2, height / 2) if center is None else center, pose)


def _pair(value: Numbers, pose: Tensor) -> Tensor:
    tensor = _as_tensor(value, pose)
    return (tensor[..., None] if tensor.dim() == 0 else tensor).expand(*pose.shape[:-2], 2)


@functools.lru_cache(256)
def _focal_length(fov_degrees: float, height: int) -> float:
    """Return the focal length in pixels."""
    half_angle = torch.deg2rad(torch.tensor(fov_degrees / 2, dtype=torch.float64))
    return height / 2 / float(torch.tan(half_angle))


def _as_tensor(value: Numbers, like: Tensor) -> Tensor:
    return _shared(value, like).clone() if isinstance(value, tuple) else _shared(value, like)


def _shared(value: Numbers, like: Tensor) -> Tensor:
    """Convert to a tensor that must not be changed: constants are made once."""
    if isinstance(value, tuple) and all(isinstance(number, int | float) for number in value):
        return constant(value, like)
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)
