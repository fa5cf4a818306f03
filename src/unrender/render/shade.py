"""Shading of fragments: Phong, flat and Gouraud."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.columns import normalize_rows
from unrender.geometry.constants import constant
from unrender.geometry.mesh import Mesh, face_normals, vertex_normals
from unrender.kernels.rasterize import Fragments
from unrender.kernels.shade_layers import is_fused, shade_layers
from unrender.render.fragments import Hits, hits
from unrender.render.lights import (
    AmbientLight,
    Headlight,
    Light,
    Material,
    SurfacePoints,
    illuminate,
    light_table,
)
from unrender.render.texture import Texture

DEFAULT_COLOR = (0.72, 0.74, 0.78)
DEFAULT_LIGHTS: tuple[Light, ...] = (AmbientLight(0.25), Headlight(0.75))
DEFAULT_MATERIAL = Material()


def phong(
    mesh: Mesh,
    fragments: Fragments,
    camera: Camera,
    lights: Sequence[Light] = DEFAULT_LIGHTS,
    material: Material = DEFAULT_MATERIAL,
    *,
    texture: Texture | None = None,
    color: tuple[float, ...] = DEFAULT_COLOR,
    two_sided: bool = False,
) -> Float[Tensor, "*batch height width layers channels"]:
    """Shade every fragment with interpolated vertex normals (Phong 1975).

    Colors come from the texture, else from the vertices, else from `color`. With `two_sided`, normals are flipped
    towards the camera. A material without specular reflection is Lambertian.
    Differentiable in: the mesh, the camera through the fragments, lights, material, texture.
    """
    if texture is None and _is_fused(mesh, fragments, camera, lights, material):
        colors = (
            constant(color, mesh.vertices)[None]
            if mesh.vertex_colors is None
            else _vertex_colors(mesh, color)
        )
        return shade_layers(
            mesh.vertices,
            vertex_normals(mesh),
            colors,
            mesh.faces,
            fragments.face_ids,
            fragments.barycentric,
            camera.camera_from_world,
            light_table(lights, material, mesh.vertices, colors.shape[-1]),
            camera.projection == "perspective",
            two_sided,
        )
    rows = hits(fragments)
    points = _surface(mesh, rows, camera, texture, color, vertex_normals(mesh))
    return rows.scatter(illuminate(_facing(points) if two_sided else points, lights, material))


def flat(
    mesh: Mesh,
    fragments: Fragments,
    camera: Camera,
    lights: Sequence[Light] = DEFAULT_LIGHTS,
    material: Material = DEFAULT_MATERIAL,
    *,
    texture: Texture | None = None,
    color: tuple[float, ...] = DEFAULT_COLOR,
    two_sided: bool = False,
) -> Float[Tensor, "*batch height width layers channels"]:
    """Shade every fragment with its face normal; otherwise like `phong`."""
    rows = hits(fragments)
    normals = face_normals(mesh)
    image_ids = rows.image_ids if normals.dim() > 2 else torch.zeros_like(rows.image_ids)
    points = _surface(mesh, rows, camera, texture, color)
    points = points.replace(normals=normals.reshape(-1, len(mesh.faces), 3)[image_ids, rows.face_ids])
    return rows.scatter(illuminate(_facing(points) if two_sided else points, lights, material))


def gouraud(
    mesh: Mesh,
    fragments: Fragments,
    camera: Camera,
    lights: Sequence[Light] = DEFAULT_LIGHTS,
    material: Material = DEFAULT_MATERIAL,
    *,
    color: tuple[float, ...] = DEFAULT_COLOR,
    two_sided: bool = False,
) -> Float[Tensor, "*batch height width layers channels"]:
    """Shade the vertices and interpolate the colors (Gouraud 1971); otherwise like `phong`, without texture."""
    directions = normalize_rows(directions_to_camera(camera, mesh.vertices))
    vertices, normals = (t.expand_as(directions) for t in (mesh.vertices, vertex_normals(mesh)))
    colors = _vertex_colors(mesh, color)
    colors = colors.expand(*directions.shape[:-1], colors.shape[-1])
    points = SurfacePoints(*(t.reshape(-1, t.shape[-1]) for t in (vertices, normals, directions, colors)))
    lit = illuminate(_facing(points) if two_sided else points, lights, material)
    rows = hits(fragments)
    return rows.scatter(rows.interpolate(mesh.faces, lit.view(*directions.shape[:-1], lit.shape[-1])))


def directions_to_camera(camera: Camera, points: Tensor) -> Tensor:
    """Return the directions from points to the camera, not normalized."""
    if camera.projection == "perspective":
        return camera.position[..., None, :] - points
    backward = -camera.camera_from_world[..., None, 2, :3]
    return backward.expand(torch.broadcast_shapes(backward.shape, points.shape))


def _is_fused(
    mesh: Mesh, fragments: Fragments, camera: Camera, lights: Sequence[Light], material: Material
) -> bool:
    """Return whether one kernel shades: on a GPU, unless batches broadcast, or lights or the camera have gradients."""
    batch, shapes = fragments.face_ids.shape[:-3], (mesh.vertices.shape[:-2], camera.focal.shape[:-1])
    held = (camera.camera_from_world, *(v for value in (*lights, material) for v in vars(value).values()))
    has_gradient = any(isinstance(v, Tensor) and v.requires_grad for v in held)
    return is_fused(mesh.vertices) and not has_gradient and all(shape in ((), batch) for shape in shapes)


def _surface(
    mesh: Mesh,
    rows: Hits,
    camera: Camera,
    texture: Texture | None,
    color: tuple[float, ...],
    normals: Tensor | None = None,
) -> SurfacePoints:
    """Interpolate all attributes of the surface at once."""
    normals = torch.zeros_like(mesh.vertices) if normals is None else normals
    colors = _vertex_colors(mesh, color).expand(*mesh.vertices.shape[:-1], -1)
    at_vertices = [mesh.vertices, normals, *([colors] if texture is None else [])]
    interpolated = rows.interpolate(mesh.faces, torch.cat(at_vertices, -1))
    positions, normals, *vertex_colors = interpolated.split_with_sizes(
        [values.shape[-1] for values in at_vertices], -1
    )
    directions = directions_to_camera(rows.cameras(camera), positions[:, None])[:, 0]
    albedo = texture.sample_hits(rows) if texture is not None else vertex_colors[0]
    return SurfacePoints(positions, normalize_rows(normals), normalize_rows(directions), albedo)


def _facing(points: SurfacePoints) -> SurfacePoints:
    cosine = (points.normals * points.view_directions).sum(-1, keepdim=True)
    return points.replace(normals=torch.where(cosine < 0, -points.normals, points.normals))


def _vertex_colors(mesh: Mesh, color: tuple[float, ...]) -> Tensor:
    if mesh.vertex_colors is not None:
        return mesh.vertex_colors[:, :3]
    return constant(color, mesh.vertices).expand(mesh.vertices.shape[-2], len(color))
