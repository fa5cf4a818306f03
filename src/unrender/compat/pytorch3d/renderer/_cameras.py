"""Cameras of PyTorch3D: rows X R + T, +x left, +y up, +z forward; a batch of each.

The shorter side of an image is 2 units long in normalized coordinates (NDC), which are +1 at the top left. Settings
given to a call (`R`, `T`, `focal_length`, …) stand for those of the camera.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unrender.compat.pytorch3d.renderer.utils import (
    Setting,
    TensorProperties,
    as_batch,
    convert_to_tensors_and_broadcast,
)
from unrender.compat.pytorch3d.transforms import Rotate, Transform3d, Translate
from unrender.errors import InputError
from unrender.geometry.constants import constant
from unrender.kernels._dispatch import can_read
from unrender.kernels.look_at import look_at_pose

Device = torch.device | str
_R, _T = torch.eye(3)[None], torch.zeros(1, 3)
ORIGIN, UP = ((0, 0, 0),), ((0, 1, 0),)


class CamerasBase(TensorProperties):
    """Common interface of all cameras."""

    R: Tensor
    T: Tensor
    _FIELDS: tuple[str, ...] = ()
    """Arguments of the constructor."""
    _SHARED_FIELDS: tuple[str, ...] = ()
    """Those that the whole batch shares."""

    def get_projection_transform(self, **kwargs: Any) -> Transform3d:
        """Return the transform from the camera's frame to NDC, or to pixels if the intrinsics are in pixels."""
        raise NotImplementedError

    def unproject_points(self, xy_depth: Tensor, **kwargs: Any) -> Tensor:
        """Unproject points [N, P, 3] from x, y and depth."""
        raise NotImplementedError

    def is_perspective(self) -> bool:
        """Return whether the projection is perspective."""
        raise NotImplementedError

    def in_ndc(self) -> bool:
        """Return whether the intrinsics are in NDC; otherwise they are in pixels."""
        raise NotImplementedError

    def get_znear(self) -> Tensor | float | None:
        """Return the depth of the near plane, if the camera has one."""
        near: Tensor | float | None = getattr(self, "znear", None)
        return near

    def get_image_size(self) -> Tensor | None:
        """Return height and width [N, 2], if the camera has them."""
        size: Tensor | None = getattr(self, "image_size", None)
        return size

    def get_camera_center(self, **kwargs: Any) -> Tensor:
        """Return the camera centers [N, 3]."""
        return self.get_world_to_view_transform(**kwargs).inverse().get_matrix()[:, 3, :3]

    def get_world_to_view_transform(self, **kwargs: Any) -> Transform3d:
        """Return the transform to the camera's frame; `R` and `T`, if given, replace the camera's permanently."""
        return get_world_to_view_transform(*self.pose(**kwargs))

    def pose(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return `R` and `T`; if given, they replace the camera's permanently."""
        self.R, self.T = R, T = kwargs.get("R", self.R), kwargs.get("T", self.T)
        if R.shape[1:] != (3, 3) or T.shape[1:] != (3,) or len(R) != len(T):
            raise InputError(
                f"`R` should be [N, 3, 3] and `T` [N, 3], got {list(R.shape)} and {list(T.shape)}"
            )
        return R, T

    def get_full_projection_transform(self, **kwargs: Any) -> Transform3d:
        """Return the transform from the world to NDC, or to pixels."""
        world_to_view = self.get_world_to_view_transform(**kwargs)
        return world_to_view.compose(self.get_projection_transform(**kwargs))

    def transform_points(self, points: Tensor, eps: float | None = None, **kwargs: Any) -> Tensor:
        """Project points of the world to NDC, or to pixels."""
        return self.get_full_projection_transform(**kwargs).transform_points(points, eps=eps)

    def get_ndc_camera_transform(self, **kwargs: Any) -> Transform3d:
        """Return the transform from the output of `get_projection_transform` to NDC."""
        return Transform3d(device=self.device)

    def ndc_projection(self, **kwargs: Any) -> Transform3d:
        """Return the transform from the world to NDC."""
        return self.get_full_projection_transform(**kwargs).compose(self.get_ndc_camera_transform(**kwargs))

    def transform_points_ndc(self, points: Tensor, eps: float | None = None, **kwargs: Any) -> Tensor:
        """Project points of the world to NDC."""
        return self.ndc_projection(**kwargs).transform_points(points, eps=eps)

    def transform_points_screen(
        self, points: Tensor, eps: float | None = None, with_xyflip: bool = True, **kwargs: Any
    ) -> Tensor:
        """Project points of the world to pixels; y runs downwards unless `with_xyflip` is off."""
        image_size = kwargs.get("image_size", self.get_image_size())
        to_screen = get_ndc_to_screen_transform(self, with_xyflip, image_size)
        return to_screen.transform_points(self.transform_points_ndc(points, eps=eps, **kwargs), eps=eps)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Self:
        """Return some of the cameras."""
        return self.members(index)

    def clone(self, other: Any = None) -> Self:
        """Copy the tensors."""
        return super().clone()


class FoVPerspectiveCameras(CamerasBase):
    """Perspective cameras with a vertical field of view; `K` [N, 4, 4] replaces all other parameters, if given."""

    K: Tensor | None
    fov: Tensor
    aspect_ratio: Tensor
    _FIELDS = ("K", "znear", "zfar", "aspect_ratio", "fov", "R", "T", "degrees")
    _SHARED_FIELDS = ("degrees",)

    def __init__(
        self,
        znear: Setting = 1.0,
        zfar: Setting = 100.0,
        aspect_ratio: Setting = 1.0,
        fov: Setting = 60.0,
        degrees: bool = True,
        R: Tensor = _R,
        T: Tensor = _T,
        K: Tensor | None = None,
        device: Device = "cpu",
    ) -> None:
        settings = {
            "znear": znear,
            "zfar": zfar,
            "aspect_ratio": aspect_ratio,
            "fov": fov,
            "R": R,
            "T": T,
            "K": K,
        }
        super().__init__(device=device, **settings)
        self.degrees = degrees

    def compute_projection_matrix(
        self, znear: Setting, zfar: Setting, fov: Setting, aspect_ratio: Setting, degrees: bool
    ) -> Tensor:
        """Return K [N, 4, 4]: x / (z · tan · aspect), y / (z · tan), and depth from 0 at near to 1 at far."""
        near, far, angle, aspect = self._each(znear, zfar, fov, aspect_ratio)
        angle = torch.deg2rad(angle) if degrees else angle
        tangent = (angle / 2).tan()
        rows = {(0, 0): 1 / (tangent * aspect), (1, 1): 1 / tangent}
        rows |= {(2, 2): far / (far - near), (2, 3): -far * near / (far - near), (3, 2): torch.ones_like(far)}
        return _matrix(rows)

    def _each(self, *values: Setting) -> list[Tensor]:
        tensors = [as_batch(v, torch.float32, self.device) for v in values]
        return list(torch.broadcast_tensors(*tensors, tensors[0].new_zeros(self._N)))[:-1]

    def get_projection_transform(self, **kwargs: Any) -> Transform3d:
        """Return the transform from the camera's frame to NDC."""
        K = kwargs.get("K", self.K)
        if K is None:
            names = ("znear", "zfar", "fov", "aspect_ratio", "degrees")
            K = self.compute_projection_matrix(*(kwargs.get(name, getattr(self, name)) for name in names))
        return _projection(K, self)

    def unproject_points(
        self,
        xy_depth: Tensor,
        world_coordinates: bool = True,
        scaled_depth_input: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Unproject points from x, y and depth, which is in world units, or 0 to 1 with `scaled_depth_input`."""
        if not scaled_depth_input:
            K, depth = self.get_projection_transform(**kwargs).get_matrix(), xy_depth[..., 2:]
            slope, shift = (K[:, row, 2].reshape(-1, *[1] * (xy_depth.dim() - 1)) for row in (2, 3))
            xy_depth = torch.cat(
                [xy_depth[..., :2].expand(*depth.shape[:-1], 2), (slope * depth + shift) / depth], -1
            )
        return _unproject(self, xy_depth, world_coordinates, kwargs)

    def is_perspective(self) -> bool:
        """Return whether the projection is perspective: yes."""
        return True

    def in_ndc(self) -> bool:
        """Return whether the intrinsics are in NDC: yes."""
        return True


class FoVOrthographicCameras(CamerasBase):
    """Orthographic cameras with a view box; `K` [N, 4, 4] replaces it, if given."""

    K: Tensor | None
    _FIELDS = ("K", "znear", "zfar", "R", "T", "max_y", "min_y", "max_x", "min_x", "scale_xyz")

    def __init__(
        self,
        znear: Setting = 1.0,
        zfar: Setting = 100.0,
        max_y: Setting = 1.0,
        min_y: Setting = -1.0,
        max_x: Setting = 1.0,
        min_x: Setting = -1.0,
        scale_xyz: Setting = ((1.0, 1.0, 1.0),),
        R: Tensor = _R,
        T: Tensor = _T,
        K: Tensor | None = None,
        device: Device = "cpu",
    ) -> None:
        box = {"max_y": max_y, "min_y": min_y, "max_x": max_x, "min_x": min_x, "scale_xyz": scale_xyz}
        super().__init__(device=device, znear=znear, zfar=zfar, **box, R=R, T=T, K=K)

    def compute_projection_matrix(
        self,
        znear: Tensor,
        zfar: Tensor,
        max_x: Tensor,
        min_x: Tensor,
        max_y: Tensor,
        min_y: Tensor,
        scale_xyz: Tensor,
    ) -> Tensor:
        """Return K [N, 4, 4]: it maps the box to −1 to 1, and its depth to 0 to 1."""
        width, height, depth = max_x - min_x, max_y - min_y, zfar - znear
        rows = {(0, 0): 2 / width * scale_xyz[:, 0], (0, 3): -(max_x + min_x) / width}
        rows |= {(1, 1): 2 / height * scale_xyz[:, 1], (1, 3): -(max_y + min_y) / height}
        rows |= {(2, 2): scale_xyz[:, 2] / depth, (2, 3): -znear / depth, (3, 3): torch.ones_like(depth)}
        return _matrix(rows)

    def get_projection_transform(self, **kwargs: Any) -> Transform3d:
        """Return the transform from the camera's frame to NDC."""
        K = kwargs.get("K", self.K)
        if K is None:
            names = ("znear", "zfar", "max_x", "min_x", "max_y", "min_y", "scale_xyz")
            values = (kwargs.get(name, getattr(self, name)) for name in names)
            K = self.compute_projection_matrix(*convert_to_tensors_and_broadcast(*values, device=self.device))
        return _projection(K, self)

    def unproject_points(
        self,
        xy_depth: Tensor,
        world_coordinates: bool = True,
        scaled_depth_input: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Unproject points from x, y and depth, which is in world units, or 0 to 1 with `scaled_depth_input`."""
        if not scaled_depth_input:
            K = self.get_projection_transform(**kwargs).get_matrix()
            slope, shift = (K[:, row, 2].reshape(-1, *[1] * (xy_depth.dim() - 1)) for row in (2, 3))
            depth = slope * xy_depth[..., 2:] + shift
            xy_depth = torch.cat([xy_depth[..., :2].expand(*depth.shape[:-1], 2), depth], -1)
        return _unproject(self, xy_depth, world_coordinates, kwargs)

    def is_perspective(self) -> bool:
        """Return whether the projection is perspective: no."""
        return False

    def in_ndc(self) -> bool:
        """Return whether the intrinsics are in NDC: yes."""
        return True


class _CalibratedCameras(CamerasBase):
    """Cameras with focal length and principal point, in NDC or in pixels; `K` replaces both, if given."""

    K: Tensor | None
    focal_length: Tensor
    principal_point: Tensor
    image_size: Tensor | None
    _in_ndc: bool
    _FIELDS = ("K", "R", "T", "focal_length", "principal_point", "_in_ndc", "image_size")
    _SHARED_FIELDS = ("_in_ndc",)

    def __init__(
        self,
        focal_length: Setting = 1.0,
        principal_point: Setting = ((0.0, 0.0),),
        R: Tensor = _R,
        T: Tensor = _T,
        K: Tensor | None = None,
        device: Device = "cpu",
        in_ndc: bool = True,
        image_size: Setting = None,
    ) -> None:
        given = {"focal_length": focal_length, "principal_point": principal_point, "R": R, "T": T, "K": K}
        super().__init__(device=device, **given, image_size=image_size)
        self._in_ndc = in_ndc
        if self.image_size is not None and bool((self.image_size < 1).any()):
            raise InputError(f"{type(self).__name__}: `image_size` should be positive, got {self.image_size}")
        focal = self.focal_length[:, None] if self.focal_length.dim() == 1 else self.focal_length
        self.focal_length = focal.expand(-1, 2)

    def get_projection_transform(self, **kwargs: Any) -> Transform3d:
        """Return the transform from the camera's frame to NDC, or to pixels."""
        K = kwargs.get("K", self.K)
        if K is None:
            focal, center = (
                as_batch(kwargs.get(name, getattr(self, name)), torch.float32, self.device)
                for name in ("focal_length", "principal_point")
            )
            focal = focal[:, None] if focal.dim() == 1 else focal
            fx, fy = focal.expand(self._N, 2).unbind(1)
            px, py = center.expand(self._N, 2).unbind(1)
            one = torch.ones_like(fx)
            entries = (
                ((0, 2), (1, 2), (2, 3), (3, 2))
                if self.is_perspective()
                else ((0, 3), (1, 3), (2, 2), (3, 3))
            )
            K = _matrix({(0, 0): fx, (1, 1): fy, **dict(zip(entries, (px, py, one, one), strict=True))})
        return _projection(K, self)

    def unproject_points(
        self, xy_depth: Tensor, world_coordinates: bool = True, from_ndc: bool = False, **kwargs: Any
    ) -> Tensor:
        """Unproject points from depth and x, y: in NDC if the intrinsics are or with `from_ndc`, else in pixels."""
        if self.is_perspective():
            xy_depth = torch.cat([xy_depth[..., :2], 1 / xy_depth[..., 2:]], -1)
        return _unproject(self, xy_depth, world_coordinates, kwargs, from_ndc)

    def get_principal_point(self, **kwargs: Any) -> Tensor:
        """Return the principal point [N, 2]."""
        matrix = self.get_projection_transform(**kwargs).get_matrix()
        return matrix[:, 2 if self.is_perspective() else 3, :2]

    def get_ndc_camera_transform(self, **kwargs: Any) -> Transform3d:
        """Return the transform to NDC, from NDC or from pixels, whose principal point has +x right and +y down."""
        if self.in_ndc():
            return Transform3d(device=self.device)
        image_size = kwargs.get("image_size", self.get_image_size())
        center = self.get_principal_point(**kwargs)
        shift = Translate(torch.cat([-2 * center, torch.zeros_like(center[:, :1])], 1), device=self.device)
        return shift.compose(get_screen_to_ndc_transform(self, False, image_size))

    def in_ndc(self) -> bool:
        """Return whether the intrinsics are in NDC; otherwise they are in pixels."""
        return self._in_ndc


class PerspectiveCameras(_CalibratedCameras):
    """Pinhole cameras with focal length and principal point, in NDC or in pixels."""

    def is_perspective(self) -> bool:
        """Return whether the projection is perspective: yes."""
        return True


class OrthographicCameras(_CalibratedCameras):
    """Orthographic cameras with focal length and principal point, in NDC or in pixels."""

    def is_perspective(self) -> bool:
        """Return whether the projection is perspective: no."""
        return False


def _matrix(entries: dict[tuple[int, int], Tensor]) -> Tensor:
    """Build matrices [N, 4, 4] whose other entries are 0."""
    zero = torch.zeros_like(next(iter(entries.values())))
    rows = [[entries.get((i, j), zero) for j in range(4)] for i in range(4)]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _projection(K: Tensor, cameras: CamerasBase) -> Transform3d:
    if K.shape != (len(cameras), 4, 4):
        raise InputError(
            f"{type(cameras).__name__}: `K` should be [{len(cameras)}, 4, 4], got {list(K.shape)}"
        )
    return Transform3d(matrix=K.mT.contiguous(), device=K.device)


def _unproject(
    cameras: CamerasBase,
    points: Tensor,
    world_coordinates: bool,
    settings: dict[str, Any],
    from_ndc: bool = False,
) -> Tensor:
    transform = cameras.get_projection_transform(**settings)
    if world_coordinates:
        transform = cameras.get_world_to_view_transform(**settings).compose(transform)
    if from_ndc:
        transform = transform.compose(cameras.get_ndc_camera_transform(**settings))
    return transform.inverse().transform_points(points)


def get_world_to_view_transform(R: Tensor = _R, T: Tensor = _T) -> Transform3d:
    """Return the transform X R + T."""
    if R.shape[1:] != (3, 3) or T.shape[1:] != (3,) or len(R) != len(T):
        raise InputError(f"`R` should be [N, 3, 3] and `T` [N, 3], got {list(R.shape)} and {list(T.shape)}")
    return Rotate(R, R.dtype, R.device).compose(Translate(T, dtype=T.dtype, device=T.device))


def camera_position_from_spherical_angles(
    distance: Setting, elevation: Setting, azimuth: Setting, degrees: bool = True, device: Device = "cpu"
) -> Tensor:
    """Return positions [N, 3] about the origin: azimuth from +z toward +x, elevation toward +y."""
    far, up, around = convert_to_tensors_and_broadcast(distance, elevation, azimuth, device=device)
    if degrees:
        up, around = up * (math.pi / 180), around * (math.pi / 180)
    directions = [up.cos() * around.sin(), up.sin(), up.cos() * around.cos()]
    return (far[..., None] * torch.stack(directions, -1)).view(-1, 3)


def look_at_rotation(
    camera_position: Setting,
    at: Setting = ORIGIN,
    up: Setting = UP,
    device: Device = "cpu",
) -> Tensor:
    """Return the rotation [N, 3, 3] of cameras at a position that look at a target."""
    eye, target, above = convert_to_tensors_and_broadcast(
        *(_row(value, device) for value in (camera_position, at, up)), device=device
    )
    if not eye.shape == target.shape == above.shape == (len(eye), 3):
        shapes = [list(values.shape) for values in (eye, target, above)]
        raise InputError(f"look_at_rotation: positions and directions should be [N, 3], got {shapes}")
    if not can_read(eye):
        pose = look_at_pose(eye, target, above)  # +x right, +y down, where PyTorch3D has left and up
        return (pose[:, :3, :3] * constant((-1.0, -1.0, 1.0), pose)[:, None]).mT
    z_axis = normalize(target - eye, eps=1e-5)
    x_axis = normalize(torch.linalg.cross(above, z_axis), eps=1e-5)
    y_axis = normalize(torch.linalg.cross(z_axis, x_axis), eps=1e-5)
    straight = (x_axis.abs() <= 5e-3).all(1, keepdim=True)
    x_axis = torch.where(straight, normalize(torch.linalg.cross(y_axis, z_axis), eps=1e-5), x_axis)
    return torch.stack([x_axis, y_axis, z_axis], -1)


def look_at_view_transform(
    dist: Setting = 1.0,
    elev: Setting = 0.0,
    azim: Setting = 0.0,
    degrees: bool = True,
    eye: Setting = None,
    at: Setting = ORIGIN,
    up: Setting = UP,
    device: Device = "cpu",
) -> tuple[Tensor, Tensor]:
    """Return R [N, 3, 3] and T [N, 3] of cameras at `eye`, or by distance and angles about `at`, that look at `at`."""
    target = as_batch(_row(at, device), torch.float32, torch.device(device))
    if eye is not None:
        place = as_batch(_row(eye, device), torch.float32, torch.device(device))
    else:
        place = camera_position_from_spherical_angles(dist, elev, azim, degrees, device) + target
    place, target, above = convert_to_tensors_and_broadcast(place, target, _row(up, device), device=device)
    R = look_at_rotation(place, target, above, device)
    return R, -(place[:, None] @ R)[:, 0]


def _row(value: Setting, device: Device) -> Setting:
    """Add a batch axis to three numbers; the defaults are on the device already."""
    if isinstance(value, Tensor):
        return value[None] if value.dim() == 1 else value
    if value is ORIGIN or value is UP:
        return constant(tuple(map(float, value[0])), torch.empty(0, device=device))[None]
    return [value] if isinstance(value, Sequence) and not isinstance(value[0], Sequence | Tensor) else value


def get_ndc_to_screen_transform(
    cameras: CamerasBase, with_xyflip: bool = False, image_size: Setting = None
) -> Transform3d:
    """Return the transform from NDC to pixels, for an image of (height, width)."""
    if image_size is None:
        raise InputError(
            "NDC become pixels only with `image_size=((height, width),)`, here or in the cameras"
        )
    sizes = torch.as_tensor(image_size, dtype=torch.float32, device=cameras.device).view(-1, 2)
    height, width = sizes.expand(len(cameras), 2).unbind(1)
    sign, scale, one = (
        (-1.0 if with_xyflip else 1.0),
        sizes.amin(1).expand(len(cameras)) / 2,
        torch.ones_like(width),
    )
    entries = {(0, 0): sign * scale, (1, 1): sign * scale, (2, 2): one, (3, 3): one}
    entries |= {(0, 3): -sign * width / 2, (1, 3): -sign * height / 2}
    return Transform3d(matrix=_matrix(entries).mT, device=cameras.device)


def get_screen_to_ndc_transform(
    cameras: CamerasBase, with_xyflip: bool = False, image_size: Setting = None
) -> Transform3d:
    """Return the inverse of `get_ndc_to_screen_transform`."""
    return get_ndc_to_screen_transform(cameras, with_xyflip, image_size).inverse()
