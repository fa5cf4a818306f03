"""Colors of fragments: what is known about the surface there, in some light."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh, face_normals, vertex_normals
from unrender.kernels.rasterize import Fragments
from unrender.render.fragments import Hits, hits
from unrender.render.lights import AmbientLight, Headlight, Light, Material, SurfacePoints, illuminate
from unrender.render.texture import Texture

GREY = (0.72, 0.74, 0.78)
STUDIO: tuple[Light, ...] = (AmbientLight(0.25), Headlight(0.75))
MATTE = Material()


def phong(
    mesh: Mesh,
    fragments: Fragments,
    camera: Camera,
    lights: Sequence[Light] = STUDIO,
    material: Material = MATTE,
    *,
    texture: Texture | None = None,
    color: tuple[float, ...] = GREY,
    two_sided: bool = False,
) -> Float[Tensor, "*batch height width layers channels"]:
    """Light every fragment, with normals interpolated between the vertices (Phong 1975).

    The surface has the texture's colors, else those of the vertices, else `color`. A two-sided surface looks from
    behind as from the front. Without highlights in the material this is Lambert's law.
    Differentiable in: the mesh, the camera through the fragments, lights, material, texture.
    """
    rows = hits(fragments)
    normals = normalize(rows.mix(mesh.faces, vertex_normals(mesh)), dim=-1)
    points = _surface(mesh, rows, camera, normals, _colors(mesh, rows, texture, color))
    return rows.spread(illuminate(_facing(points) if two_sided else points, lights, material))


def flat(
    mesh: Mesh,
    fragments: Fragments,
    camera: Camera,
    lights: Sequence[Light] = STUDIO,
    material: Material = MATTE,
    *,
    texture: Texture | None = None,
    color: tuple[float, ...] = GREY,
    two_sided: bool = False,
) -> Float[Tensor, "*batch height width layers channels"]:
    """Light every fragment with the normal of its face; otherwise as `phong`."""
    rows = hits(fragments)
    per_face = face_normals(mesh)
    images = rows.images if per_face.dim() > 2 else torch.zeros_like(rows.images)
    normals = per_face.reshape(-1, len(mesh.faces), 3)[images, rows.face_ids]
    points = _surface(mesh, rows, camera, normals, _colors(mesh, rows, texture, color))
    return rows.spread(illuminate(_facing(points) if two_sided else points, lights, material))


def gouraud(
    mesh: Mesh,
    fragments: Fragments,
    camera: Camera,
    lights: Sequence[Light] = STUDIO,
    material: Material = MATTE,
    *,
    color: tuple[float, ...] = GREY,
    two_sided: bool = False,
) -> Float[Tensor, "*batch height width layers channels"]:
    """Light the vertices and interpolate the colors (Gouraud 1971); otherwise as `phong`, without texture."""
    views = normalize(directions_to(camera, mesh.vertices), dim=-1)
    vertices, normals = (t.expand_as(views) for t in (mesh.vertices, vertex_normals(mesh)))
    colors = _vertex_colors(mesh, color)
    colors = colors.expand(*views.shape[:-1], colors.shape[-1])
    points = SurfacePoints(*(t.reshape(-1, t.shape[-1]) for t in (vertices, normals, views, colors)))
    lit = illuminate(_facing(points) if two_sided else points, lights, material)
    rows = hits(fragments)
    return rows.spread(rows.mix(mesh.faces, lit.view(*views.shape[:-1], lit.shape[-1])))


def directions_to(camera: Camera, points: Tensor) -> Tensor:
    """Point from each point to the camera; not of unit length."""
    if camera.projection == "perspective":
        return camera.position[..., None, :] - points
    backward = -camera.camera_from_world[..., None, 2, :3]
    return backward.expand(torch.broadcast_shapes(backward.shape, points.shape))


def _surface(mesh: Mesh, rows: Hits, camera: Camera, normals: Tensor, colors: Tensor) -> SurfacePoints:
    views = normalize(rows.mix(mesh.faces, directions_to(camera, mesh.vertices)), dim=-1)
    return SurfacePoints(rows.mix(mesh.faces, mesh.vertices), normals, views, colors)


def _facing(points: SurfacePoints) -> SurfacePoints:
    towards = (points.normals * points.views).sum(-1, keepdim=True)
    return points.replace(normals=torch.where(towards < 0, -points.normals, points.normals))


def _colors(mesh: Mesh, rows: Hits, texture: Texture | None, color: tuple[float, ...]) -> Tensor:
    if texture is not None:
        return texture.on(rows)
    if mesh.vertex_colors is not None:
        return rows.mix(mesh.faces, mesh.vertex_colors[:, :3])
    return mesh.vertices.new_tensor(color).expand(len(rows.places), len(color))


def _vertex_colors(mesh: Mesh, color: tuple[float, ...]) -> Tensor:
    if mesh.vertex_colors is not None:
        return mesh.vertex_colors[:, :3]
    return mesh.vertices.new_tensor(color).expand(mesh.vertices.shape[-2], len(color))
