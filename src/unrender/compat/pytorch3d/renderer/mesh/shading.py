"""Shading of fragments."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer._fragments import Fragments
from unrender.compat.pytorch3d.renderer.blending import core_fragments
from unrender.compat.pytorch3d.renderer.lighting import light_rows, like_points
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesVertex
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.errors import InputError
from unrender.render.fragments import hits
from unrender.render.lights import SurfacePoints


def phong_shading(
    meshes: Meshes, fragments: Fragments, lights: Any, cameras: Any, materials: Any, texels: Tensor
) -> Tensor:
    """Shade every fragment, with normals interpolated between the vertices: [N, H, W, K, 3]."""
    rows = hits(core_fragments(fragments))
    values = torch.cat([meshes.verts_packed(), meshes.verts_normals_packed()], -1)
    positions, normals = rows.interpolate(meshes.faces_packed(), values).split(3, -1)
    colors = texels.reshape(-1, texels.shape[-1])[rows.slot_ids]
    return rows.scatter(_light(positions, normals, colors, rows.image_ids, lights, cameras, materials))


def flat_shading(
    meshes: Meshes, fragments: Fragments, lights: Any, cameras: Any, materials: Any, texels: Tensor
) -> Tensor:
    """Shade every fragment as the center of its face: [N, H, W, K, 3]."""
    rows = hits(core_fragments(fragments))
    centroids = meshes.verts_packed()[meshes.faces_packed()].mean(1)
    colors = texels.reshape(-1, texels.shape[-1])[rows.slot_ids]
    positions, normals = centroids[rows.face_ids], meshes.faces_normals_packed()[rows.face_ids]
    return rows.scatter(_light(positions, normals, colors, rows.image_ids, lights, cameras, materials))


def gouraud_shading(
    meshes: Meshes, fragments: Fragments, lights: Any, cameras: Any, materials: Any
) -> Tensor:
    """Shade the vertices, which need colors, and interpolate: [N, H, W, K, 3]."""
    if not isinstance(meshes.textures, TexturesVertex):
        raise InputError(
            "gouraud_shading: meshes should have TexturesVertex: colors to light at the vertices"
        )
    lit = _light(
        meshes.verts_packed(),
        meshes.verts_normals_packed(),
        meshes.textures.verts_features_packed(),
        meshes.verts_packed_to_mesh_idx(),
        lights,
        cameras,
        materials,
    )
    rows = hits(core_fragments(fragments))
    return rows.scatter(rows.interpolate(meshes.faces_packed(), lit))


def _apply_lighting(
    points: Tensor, normals: Tensor, lights: Any, cameras: Any, materials: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ambient [N, ..., 3], diffuse and specular light on points [N, ..., 3]: custom shaders call this."""
    ambient, diffuse, specular = (
        like_points(color, points)
        for color in (
            materials.ambient_color * lights.ambient_color,
            materials.diffuse_color,
            materials.specular_color,
        )
    )
    eyes, shininess = cameras.get_camera_center(), materials.shininess
    mirrored = lights.specular(normals=normals, points=points, camera_position=eyes, shininess=shininess)
    return ambient, diffuse * lights.diffuse(normals=normals, points=points), specular * mirrored


def _light(
    positions: Tensor,
    normals: Tensor,
    colors: Tensor,
    images: Tensor,
    lights: Any,
    cameras: Any,
    materials: Any,
) -> Tensor:
    """Shade points that are concatenated image by image."""
    centers = cameras.get_camera_center()
    normals = normalize(normals, dim=-1, eps=1e-6)
    sizes = [len(centers), len(lights.ambient_color), len(materials.shininess)]
    number = 1 if max(sizes) == 1 else int(images.max()) + 1 if len(images) else 1
    counts = [len(images)] if number == 1 else torch.bincount(images, minlength=number).tolist()
    lit = []
    parts = zip(*(t.split(counts) for t in (positions, normals, colors)), strict=True)
    for member, (position, normal, color) in enumerate(parts):
        views = normalize(centers[member % len(centers)] - position, dim=-1, eps=1e-6)
        points = SurfacePoints(position, normal, views, color)
        if hasattr(lights, "core"):
            lit.append(light_rows(points, lights, materials, member))
        else:
            lit.append(_light_by_foreign(points, lights, materials, centers, member))
    return torch.cat(lit)


def _light_by_foreign(
    points: SurfacePoints, lights: Any, materials: Any, centers: Tensor, member: int
) -> Tensor:
    """Evaluate custom lights, of which one may be shared by all images."""
    ambient, diffuse, specular, shininess = (
        t[member % len(t)]
        for t in (
            materials.ambient_color * lights.ambient_color,
            materials.diffuse_color,
            materials.specular_color,
            materials.shininess,
        )
    )
    eye = centers[member % len(centers)]
    falls = lights.diffuse(normals=points.normals, points=points.positions)
    mirrored = lights.specular(
        normals=points.normals, points=points.positions, camera_position=eye, shininess=shininess
    )
    lit: Tensor = (ambient + diffuse * falls) * points.colors + specular * mirrored
    return lit


__getattr__ = refuse_unknown(__name__)
