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
    points = _surface(mesh, rows, camera, texture, color, vertex_normals(mesh))
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
    normals = face_normals(mesh)
    images = rows.images if normals.dim() > 2 else torch.zeros_like(rows.images)
    points = _surface(mesh, rows, camera, texture, color)
    points = points.replace(normals=normals.reshape(-1, len(mesh.faces), 3)[images, rows.face_ids])
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


def _surface(
    mesh: Mesh,
    rows: Hits,
    camera: Camera,
    texture: Texture | None,
    color: tuple[float, ...],
    normals: Tensor | None = None,
) -> SurfacePoints:
    """Interpolate all there is to know about the surface, at once."""
    normals = torch.zeros_like(mesh.vertices) if normals is None else normals
    colors = _vertex_colors(mesh, color).expand(*mesh.vertices.shape[:-1], -1)
    at_vertices = [mesh.vertices, normals, *([colors] if texture is None else [])]
    positions, normals, *mixed = rows.mix(mesh.faces, torch.cat(at_vertices, -1)).split_with_sizes(
        [values.shape[-1] for values in at_vertices], -1
    )
    views = directions_to(rows.of_each_image(camera), positions[:, None])[:, 0]
    found = texture.on(rows) if texture is not None else mixed[0]
    return SurfacePoints(positions, normalize(normals, dim=-1), normalize(views, dim=-1), found)


def _facing(points: SurfacePoints) -> SurfacePoints:
    towards = (points.normals * points.views).sum(-1, keepdim=True)
    return points.replace(normals=torch.where(towards < 0, -points.normals, points.normals))


def _vertex_colors(mesh: Mesh, color: tuple[float, ...]) -> Tensor:
    if mesh.vertex_colors is not None:
        return mesh.vertex_colors[:, :3]
    return mesh.vertices.new_tensor(color).expand(mesh.vertices.shape[-2], len(color))
