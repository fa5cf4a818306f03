"""Fish-eye cameras with radial, tangential and thin-prism distortion; `Lens` of unrender has OpenCV's models.

With a = (x / z, y / z), r = |a| and θ = atan(r), a point is projected to f · d + c::

    q = (θ + k₀ θ³ + k₁ θ⁵ + …) a / r
    d = q + 2 (q · p) q + |q|² p + (s₀ |q|² + s₁ |q|⁴, s₂ |q|² + s₃ |q|⁴)

Without the radial part, d starts with a; without the others, their terms are missing.
"""

import math
from typing import Any, NoReturn

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.renderer._cameras import _R, _T, CamerasBase, Device
from unrender.compat.pytorch3d.renderer.utils import Setting
from unrender.errors import InputError

STEPS = 50
"""Steps of Newton's method, which converges quadratically where the distortion is one-to-one."""


class FishEyeCameras(CamerasBase):
    """Fish-eye cameras; points are in the camera's frame, or in the world if `world_coordinates` is set.

    `focal_length` [N, 1], `principal_point` [N, 2], and the coefficients k `radial_params` [N, any number],
    p `tangential_params` [N, 2] and s `thin_prism_params` [N, 4].
    """

    focal_length: Tensor
    principal_point: Tensor
    radial_params: Tensor
    tangential_params: Tensor
    thin_prism_params: Tensor
    _FIELDS = (
        "focal_length",
        "principal_point",
        "R",
        "T",
        "radial_params",
        "tangential_params",
        "thin_prism_params",
        "world_coordinates",
        "use_radial",
        "use_tangential",
        "use_thin_prism",
        "image_size",
    )
    _SHARED_FIELDS = ("world_coordinates", "use_radial", "use_tangential", "use_thin_prism")

    def __init__(
        self,
        focal_length: Setting = ((1.0,),),
        principal_point: Setting = ((0.0, 0.0),),
        radial_params: Setting = ((0.0,) * 6,),
        tangential_params: Setting = ((0.0, 0.0),),
        thin_prism_params: Setting = ((0.0,) * 4,),
        R: Tensor = _R,
        T: Tensor = _T,
        world_coordinates: bool = False,
        use_radial: bool = True,
        use_tangential: bool = True,
        use_thin_prism: bool = True,
        device: Device = "cpu",
        image_size: Setting = None,
    ) -> None:
        super().__init__(
            device=device,
            focal_length=focal_length,
            principal_point=principal_point,
            radial_params=radial_params,
            tangential_params=tangential_params,
            thin_prism_params=thin_prism_params,
            R=R,
            T=T,
            image_size=image_size,
        )
        if self.focal_length.dim() == 1:
            self.focal_length = self.focal_length[:, None]
        for name, columns in (
            ("focal_length", 1),
            ("principal_point", 2),
            ("tangential_params", 2),
            ("thin_prism_params", 4),
        ):
            shape = getattr(self, name).shape
            if shape != (len(self), columns):
                raise InputError(f"FishEyeCameras: `{name}` should be [N, {columns}], got {list(shape)}")
        self.world_coordinates = world_coordinates
        self.use_radial, self.use_tangential = use_radial, use_tangential
        self.use_thin_prism = use_thin_prism

    @property
    def focal(self) -> Tensor:
        """The focal length, as the attribute is called in PyTorch3D."""
        return self.focal_length

    def is_perspective(self) -> bool:
        """Return whether the projection is perspective: no."""
        return False

    def in_ndc(self) -> bool:
        """Return whether projected points are in NDC: yes."""
        return True

    def get_projection_transform(self, **kwargs: Any) -> NoReturn:
        """Raise NotImplementedError."""
        raise NotImplementedError("FishEyeCameras: the projection has no matrix; use `transform_points`")

    def transform_points(self, points: Tensor, eps: float | None = None, **kwargs: Any) -> Tensor:
        """Project points [P, 3], or [M, P, 3] by one camera or M of them; the third coordinate is 1.

        Several cameras give [N, P, 3]. A point behind a camera is projected like its reflection through the center.
        """
        points, count = points.to(self.device), len(self)
        batch = len(points) if points.dim() == 3 else 1
        if points.shape[-1] != 3 or points.dim() not in (2, 3) or (count > 1 and batch not in (1, count)):
            raise InputError(
                f"FishEyeCameras: takes points [P, 3] or [M, P, 3] for 1 or M cameras, got {list(points.shape)} for "
                f"{count}"
            )
        if self.world_coordinates:
            points = self.get_world_to_view_transform(**kwargs).transform_points(points, eps=eps)
        side, z = points[..., :2], points[..., 2:]
        radius, depth = side.norm(dim=-1, keepdim=True), z.abs()
        angle = torch.atan2(radius, depth)
        ratio = torch.where(radius > 0, angle / radius.where(radius > 0, 1), 1 / depth.where(depth > 0, 1))
        distorted = side * torch.where(z < 0, -ratio, ratio) * (1 + self._radial(angle))
        image = (distorted if self.use_radial else side / z) + self._offset(distorted)
        xy = self._each(self.focal_length) * image + self._each(self.principal_point)
        return torch.cat([xy, torch.ones_like(xy[..., :1])], -1)

    def transform_points_ndc(self, points: Tensor, eps: float | None = None, **kwargs: Any) -> Tensor:
        """Project points as `transform_points` does, whose results are in NDC."""
        return self.transform_points(points, eps=eps, **kwargs)

    def unproject_points(
        self,
        xy_depth: Tensor,
        world_coordinates: bool = True,
        scaled_depth_input: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Return the points at z = 1 in the camera's frame that are projected to x and y.

        As in PyTorch3D, the other arguments have no effect, and the radial part is inverted even without `use_radial`.
        """
        xy = xy_depth.to(self.device)[..., :2]
        distorted = self._without_offset(
            (xy - self._each(self.principal_point)) / self._each(self.focal_length)
        )
        radius = distorted.norm(dim=-1, keepdim=True)
        scale = torch.where(radius > 0, self._angle(radius).tan() / radius.where(radius > 0, 1), 1)
        plane = distorted * scale
        return torch.cat([plane, torch.ones_like(plane[..., :1])], -1)

    def _each(self, values: Tensor) -> Tensor:
        """Return a setting with an axis for points; that of a single camera has no batch axis."""
        return values if len(self) == 1 else values[:, None]

    def _radial(self, angle: Tensor, derivative: bool = False) -> Tensor:
        """Return Σ kᵢ θ^(2 i + 2), or the derivative of θ times it."""
        coefficients = self._each(self.radial_params)
        powers = 2 * torch.arange(1, coefficients.shape[-1] + 1, device=angle.device)
        if derivative:
            coefficients = coefficients * (powers + 1)
        return (coefficients * angle**powers).sum(-1, keepdim=True)

    def _offset(self, distorted: Tensor) -> Tensor:
        """Return the tangential and thin-prism parts."""
        squared, offset = distorted.square().sum(-1, keepdim=True), torch.zeros_like(distorted)
        if self.use_tangential:
            p = self._each(self.tangential_params)
            offset = offset + 2 * (distorted * p).sum(-1, keepdim=True) * distorted + squared * p
        if self.use_thin_prism:
            s = self._each(self.thin_prism_params)
            offset = offset + s[..., 0::2] * squared + s[..., 1::2] * squared.square()
        return offset

    def _without_offset(self, image: Tensor) -> Tensor:
        """Solve q + offset(q) = d by Newton's method."""
        if not (self.use_tangential or self.use_thin_prism):
            return image
        distorted, identity = image, torch.eye(2, device=image.device, dtype=image.dtype)
        p, s = self._each(self.tangential_params)[..., None, :], self._each(self.thin_prism_params)
        for _ in range(STEPS):
            row, squared = distorted[..., None, :], distorted.square().sum(-1, keepdim=True)
            jacobian = identity
            if self.use_tangential:
                jacobian = jacobian * (1 + 2 * (row * p).sum(-1, keepdim=True)) + 2 * (
                    row.mT @ p + p.mT @ row
                )
            if self.use_thin_prism:
                jacobian = jacobian + 2 * (s[..., 0::2] + 2 * s[..., 1::2] * squared)[..., None] * row
            missing = image - distorted - self._offset(distorted)
            distorted = distorted + torch.linalg.solve(jacobian, missing[..., None])[..., 0]
        return distorted

    def _angle(self, radius: Tensor) -> Tensor:
        """Solve θ (1 + Σ kᵢ θ^(2 i + 2)) = |q| by Newton's method, up to 90 degrees from the axis."""
        angle, limit = radius, 0.999 * math.pi / 2
        for _ in range(STEPS):
            missing = radius - angle * (1 + self._radial(angle))
            angle = (angle + missing / (1 + self._radial(angle, derivative=True))).clamp(-limit, limit)
        return angle


register(__name__)
__getattr__ = refuse_unknown(__name__)
