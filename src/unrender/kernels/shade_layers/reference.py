"""Reference implementation of Phong shading."""

import torch
from torch import Tensor

from unrender.kernels.normalize import normalize
from unrender.kernels.reflect import reference

AMBIENT, DIRECTIONAL, POINT, HEADLIGHT = range(4)


def forward(
    vertices: Tensor,
    normals: Tensor,
    colors: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    camera_from_world: Tensor,
    lights: Tensor,
    perspective: bool,
    two_sided: bool,
) -> Tensor:
    """Interpolate positions, normals and colors, and sum up the reflection of all lights (Phong 1975).

    `vertices` and `normals` [*batch, vertices, 3] and cameras [*batch, 4, 4] have the batch of the fragments [*batch,
    height, width, layers] or none; `colors` are [vertices or 1, channels]. A row of `lights` is (kind, x, y, z,
    shininess, ambient or diffuse coefficients [channels], specular coefficients [channels]): (x, y, z) is the direction
    to a directional light, or the position of a point light. Empty fragments, of face −1, get zeros. With `two_sided`,
    normals are flipped towards the camera.
    """
    batch, channels = face_ids.shape[:-3], colors.shape[-1]
    corners = faces.long()[face_ids.clamp(min=0).long()]  # [*batch, height, width, layers, 3]

    def mix(values: Tensor) -> Tensor:
        one = values.expand(*batch, *values.shape[-2:]).reshape(-1, *values.shape[-2:]).contiguous()
        image = torch.arange(len(one), device=one.device).view(*batch, 1, 1, 1, 1)
        return (barycentric.contiguous()[..., None] * one[image, corners]).sum(-2)

    position, normal = mix(vertices), _unit(mix(normals))
    albedo = mix(colors.expand(vertices.shape[-2], channels))
    rotation, translation = camera_from_world[..., :3, :3], camera_from_world[..., :3, 3:]
    eye = -(rotation * translation).sum(-2) if perspective else -rotation[..., 2, :]
    eye = eye.view(*eye.shape[:-1], 1, 1, 1, 3)
    view = _unit(eye - position if perspective else eye.expand_as(position))
    if two_sided:
        normal = torch.where((normal * view).sum(-1, keepdim=True) < 0, -normal, normal)
    total = torch.zeros_like(albedo)
    for light in lights:
        kind, place = int(light[0]), light[1:4]
        diffuse, specular = light[5 : 5 + channels], light[5 + channels :]
        if kind == AMBIENT:
            total = total + albedo * diffuse
            continue
        towards = {DIRECTIONAL: place.expand_as(position), POINT: place - position, HEADLIGHT: view}[kind]
        direction = view if kind == HEADLIGHT else _unit(towards)
        total = total + reference.forward(normal, direction, view, albedo, diffuse, specular, light[4])
    return torch.where(face_ids[..., None] >= 0, total, 0)


def _unit(rows: Tensor) -> Tensor:
    return normalize(rows.unsqueeze(-1)).squeeze(-1)
