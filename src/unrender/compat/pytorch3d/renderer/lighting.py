"""Batched lights; each light of a batch is a light of unrender, for one image."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.renderer.utils import Setting, TensorProperties, as_batch
from unrender.errors import InputError
from unrender.render.lights import (
    AmbientLight,
    DirectionalLight,
    Light,
    Material,
    PointLight,
    SurfacePoints,
    illuminate,
)

Device = torch.device | str
AMBIENT, DIFFUSE, SPECULAR = ((0.5, 0.5, 0.5),), ((0.3, 0.3, 0.3),), ((0.2, 0.2, 0.2),)


class _Lights(TensorProperties):
    """Base class of lights, with ambient, diffuse and specular colors [N, 3]."""

    ambient_color: Tensor
    diffuse_color: Tensor
    specular_color: Tensor

    def __init__(self, device: Device, **settings: Setting) -> None:
        super().__init__(device=device, **settings)
        for name, value in settings.items():
            if value is None:
                continue
            given = getattr(self, name)
            if given.shape == (3,):  # PyTorch3D reads it as a batch of 3
                setattr(self, name, given.expand(3, 3))
                continue
            vector = name in ("location", "direction") or not isinstance(self, AmbientLights)
            if given.dim() != 2 or (vector and given.shape[-1] != 3):
                raise InputError(f"{type(self).__name__}: `{name}` should be [N, 3], got {list(given.shape)}")

    def core(self, member: int) -> Light:
        """Return the light of unrender for one image, in white."""
        raise NotImplementedError

    def diffuse(self, normals: Tensor, points: Tensor | None = None) -> Tensor:
        """Compute diffuse light on surfaces [N, ..., 3] with the given normals."""
        if points is None:
            points = torch.zeros_like(normals)
        return self._shine(normals, points, normals, lambda i: Material(diffuse=self._of(i, "diffuse_color")))

    def specular(self, normals: Tensor, points: Tensor, camera_position: Tensor, shininess: Tensor) -> Tensor:
        """Compute specular light that surfaces [N, ..., 3] with the given normals reflect to the cameras."""
        eye = camera_position.view(-1, *[1] * (points.dim() - 2), 3) if points.dim() > 2 else camera_position
        exponents = torch.as_tensor(shininess, dtype=points.dtype).reshape(-1)
        return self._shine(
            normals,
            points,
            normalize(eye - points, dim=-1),
            lambda i: Material(
                diffuse=0.0, specular=self._of(i, "specular_color"), shininess=exponents[i % len(exponents)]
            ),
        )

    def _of(self, member: int, name: str) -> Tensor:
        values: Tensor = getattr(self, name)
        return values if values.dim() == 1 else values[member % len(values)]

    def _shine(
        self, normals: Tensor, points: Tensor, views: Tensor, material: Callable[[int], Material]
    ) -> Tensor:
        """Shade each member of the batch with its own light."""
        normals, points, views = torch.broadcast_tensors(normalize(normals, dim=-1), points, views)
        if len(points) == 1 and points.dim() > 2:
            normals, points, views = (t.expand(len(self), *t.shape[1:]) for t in (normals, points, views))
        if points.dim() == 2 and len(self) in (1, len(points)):
            normals, points, views = (
                t[None] if len(self) == 1 else t[:, None] for t in (normals, points, views)
            )
            shape = torch.Size([points.shape[0] * points.shape[1], 3])
        else:
            shape = points.shape
        lit = []
        for i, (n, p, v) in enumerate(zip(normals, points, views, strict=True)):
            rows = SurfacePoints(
                p.reshape(-1, 3), n.reshape(-1, 3), v.reshape(-1, 3), torch.ones_like(p).view(-1, 3)
            )
            lit.append(illuminate(rows, [self.core(i)], material(i)))
        return torch.stack(lit).view(shape)


def diffuse(normals: Tensor, color: Tensor, direction: Tensor) -> Tensor:
    """Return color · max(normal · direction, 0) [N, ..., 3], with both normalized."""
    color, direction = (like_points(t, normals) for t in (color, direction))
    cosine = (normalize(normals, dim=-1, eps=1e-6) * normalize(direction, dim=-1, eps=1e-6)).sum(-1)
    return color * cosine.clamp(min=0)[..., None]


def specular(
    points: Tensor,
    normals: Tensor,
    direction: Tensor,
    color: Tensor,
    camera_position: Tensor,
    shininess: Tensor,
) -> Tensor:
    """Return color · max(view · reflected, 0) ^ shininess [N, ..., 3]; 0 on sides that point away from the light."""
    if points.shape != normals.shape:
        raise InputError(f"specular: {list(points.shape)} points, but {list(normals.shape)} normals")
    direction, color, eye = (like_points(t, points) for t in (direction, color, camera_position))
    exponent = torch.as_tensor(shininess).to(points)
    exponent = exponent.view(-1, *[1] * (points.dim() - 2)) if exponent.dim() < points.dim() - 1 else exponent
    normals, direction = normalize(normals, dim=-1, eps=1e-6), normalize(direction, dim=-1, eps=1e-6)
    cosine = (normals * direction).sum(-1)
    views = normalize(eye - points, dim=-1, eps=1e-6)
    mirrored = 2 * cosine[..., None] * normals - direction
    alpha = (views * mirrored).sum(-1).clamp(min=0) * (cosine > 0)
    return color * alpha.pow(exponent)[..., None]


def like_points(value: Tensor, points: Tensor) -> Tensor:
    """Add axes to rows [N, 3], so that they apply to all points [N, ..., 3] of a member."""
    value = value.to(points)
    return value.view(-1, *[1] * (points.dim() - value.dim()), 3) if 1 < value.dim() < points.dim() else value


class DirectionalLights(_Lights):
    """Directional light; `direction` [N, 3] points toward the light."""

    direction: Tensor

    def __init__(
        self,
        ambient_color: Setting = AMBIENT,
        diffuse_color: Setting = DIFFUSE,
        specular_color: Setting = SPECULAR,
        direction: Setting = ((0, 1, 0),),
        device: Device = "cpu",
    ) -> None:
        colors = {
            "ambient_color": ambient_color,
            "diffuse_color": diffuse_color,
            "specular_color": specular_color,
        }
        super().__init__(device, **colors, direction=direction)

    def core(self, member: int) -> Light:
        """Return the light of unrender for one image, in white."""
        return DirectionalLight(self._of(member, "direction"))


class PointLights(_Lights):
    """Point light at `location` [N, 3]."""

    location: Tensor

    def __init__(
        self,
        ambient_color: Setting = AMBIENT,
        diffuse_color: Setting = DIFFUSE,
        specular_color: Setting = SPECULAR,
        location: Setting = ((0, 1, 0),),
        device: Device = "cpu",
    ) -> None:
        colors = {
            "ambient_color": ambient_color,
            "diffuse_color": diffuse_color,
            "specular_color": specular_color,
        }
        super().__init__(device, **colors, location=location)

    def core(self, member: int) -> Light:
        """Return the light of unrender for one image, in white."""
        return PointLight(self._of(member, "location"))

    def reshape_location(self, points: Tensor) -> Tensor:
        """Add axes to the locations, so that they apply to points [N, ..., 3]."""
        return like_points(self.location, points)


class AmbientLights(_Lights):
    """Ambient light only."""

    def __init__(self, *, ambient_color: Setting = None, device: Device = "cpu") -> None:
        ambient_color = ((1.0, 1.0, 1.0),) if ambient_color is None else ambient_color
        color = as_batch(ambient_color, torch.float32, torch.device(device))
        black = torch.zeros_like(color.detach())
        super().__init__(device, ambient_color=color, diffuse_color=black, specular_color=black)

    def core(self, member: int) -> Light:
        """Return the light of unrender for one image, in black: ambient light is added for all kinds."""
        return AmbientLight(0.0)

    def diffuse(self, normals: Tensor, points: Tensor | None = None) -> Tensor:
        """Return zeros, of as many channels as the ambient color has."""
        return normals.new_zeros(*normals.shape[:-1], self.ambient_color.shape[-1])

    def specular(self, normals: Tensor, points: Tensor, camera_position: Tensor, shininess: Tensor) -> Tensor:
        """Return zeros, of as many channels as the ambient color has."""
        return self.diffuse(points)


def light_rows(rows: SurfacePoints, lights: Any, materials: Any, member: int) -> Tensor:
    """Shade the points of one image."""
    ambient = AmbientLight(_choose(lights.ambient_color, member))
    material = Material(
        ambient=_choose(materials.ambient_color, member),
        diffuse=_choose(materials.diffuse_color, member) * _choose(lights.diffuse_color, member),
        specular=_choose(materials.specular_color, member) * _choose(lights.specular_color, member),
        shininess=_choose(materials.shininess, member),
    )
    return illuminate(rows, [ambient, lights.core(member)], material)


def _choose(values: Tensor, member: int) -> Tensor:
    return values[member % len(values)]


register(__name__)
__getattr__ = refuse_unknown(__name__)
