"""Lights, materials and the Phong reflection model, evaluated for any number of surface points."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.geometry.columns import normalize_rows
from unrender.geometry.constants import constant
from unrender.kernels.reflect import reflect
from unrender.kernels.shade_layers.reference import AMBIENT, DIRECTIONAL, HEADLIGHT, POINT


class SurfacePoints(TensorStruct):
    """Surface points in world coordinates, with unit normals, unit directions to the camera, and colors."""

    positions: Float[Tensor, "points 3"]
    normals: Float[Tensor, "points 3"]
    view_directions: Float[Tensor, "points 3"]
    colors: Float[Tensor, "points channels"]


class AmbientLight(TensorStruct):
    """Light of equal strength from all directions."""

    color: Float[Tensor, "#channels"] | float = 1.0


class DirectionalLight(TensorStruct):
    """Light from a distant source such as the sun."""

    towards: Float[Tensor, "3"]
    """Direction from the scene to the light, of any length."""
    color: Float[Tensor, "#channels"] | float = 1.0

    def direction(self, points: SurfacePoints) -> Tensor:
        """Return the unit directions from the surface to the light."""
        return normalize_rows(self.towards).expand_as(points.positions)


class PointLight(TensorStruct):
    """Light from a point, without falloff with distance."""

    position: Float[Tensor, "3"]
    color: Float[Tensor, "#channels"] | float = 1.0

    def direction(self, points: SurfacePoints) -> Tensor:
        """Return the unit directions from the surface to the light."""
        return normalize_rows(self.position - points.positions)


class Headlight(TensorStruct):
    """Light from the position of the camera."""

    color: Float[Tensor, "#channels"] | float = 1.0

    def direction(self, points: SurfacePoints) -> Tensor:
        """Return the unit directions from the surface to the light."""
        return points.view_directions


Light = AmbientLight | DirectionalLight | PointLight | Headlight


class Material(TensorStruct):
    """Reflection coefficients of the Phong model; specular highlights have the color of the light."""

    ambient: Float[Tensor, "#channels"] | float = 1.0
    diffuse: Float[Tensor, "#channels"] | float = 1.0
    specular: Float[Tensor, "#channels"] | float = 0.0
    shininess: Float[Tensor, ""] | float = 64.0
    """Exponent of the specular highlight; higher values give smaller highlights."""


def light_table(
    lights: Sequence[Light], material: Material, like: Tensor, channels: int
) -> Float[Tensor, "lights numbers"]:
    """Return lights and the material as rows of numbers, as `shade_layers` takes them."""
    numbers: list[tuple[float, ...] | Tensor] = []
    for light in lights:
        kind, place = _kind_and_place(light)
        factor = material.ambient if isinstance(light, AmbientLight) else material.diffuse
        numbers += [
            (float(kind),),
            place,
            _repeat(material.shininess, 1),
            _repeat(_times(factor, light.color), channels),
            _repeat(_times(material.specular, light.color), channels),
        ]
    parts: list[Tensor] = []
    for are_tensors, group in itertools.groupby(numbers, lambda n: isinstance(n, Tensor)):
        if are_tensors:
            parts += [n.detach().to(like) for n in group if isinstance(n, Tensor)]
        else:
            parts.append(constant(tuple(x for n in group if not isinstance(n, Tensor) for x in n), like))
    table = parts[0] if len(parts) == 1 else torch.cat(parts) if parts else like.new_empty(0)
    return table.view(len(lights), 5 + 2 * channels)


def _kind_and_place(light: Light) -> tuple[int, tuple[float, ...] | Tensor]:
    if isinstance(light, PointLight):
        return POINT, light.position
    if isinstance(light, DirectionalLight):
        return DIRECTIONAL, light.towards
    return AMBIENT if isinstance(light, AmbientLight) else HEADLIGHT, (0.0, 0.0, 0.0)


def _repeat(value: Tensor | float, count: int) -> tuple[float, ...] | Tensor:
    return value.expand(count) if isinstance(value, Tensor) else (float(value),) * count


def illuminate(
    points: SurfacePoints, lights: Sequence[Light], material: Material
) -> Float[Tensor, "points channels"]:
    """Sum the reflection of all lights at surface points (Phong 1975).

    Ambient: k_a c L. Others: k_d c L max(n · l, 0) + k_s L max(r · v, 0)^shininess, with l towards the light, v
    towards the camera, r = 2 (n · l) n − l; there is no highlight where n · l ≤ 0.
    Differentiable in: all.
    """
    total = torch.zeros_like(points.colors)
    dull = not isinstance(material.specular, Tensor) and material.specular == 0
    for light in lights:
        if isinstance(light, AmbientLight):
            total = total + points.colors * _times(material.ambient, light.color)
            continue
        total = total + reflect(
            points.normals,
            light.direction(points),
            points.view_directions,
            points.colors,
            _times(material.diffuse, light.color),
            0.0 if dull else _times(material.specular, light.color),
            material.shininess,
        )
    return total


def _times(a: Tensor | float, b: Tensor | float) -> Tensor | float:
    return a * b
