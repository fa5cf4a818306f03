"""Rendering of meshes: shaded images, silhouettes, depth, normals and object ids."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh, join_meshes, vertex_normals
from unrender.kernels.silhouette import soft_silhouette
from unrender.render.blend import WHITE, blend_hard, blend_softmax
from unrender.render.fragments import default_near, interpolate, rasterize
from unrender.render.lights import Light, Material
from unrender.render.shade import DEFAULT_COLOR, DEFAULT_LIGHTS, DEFAULT_MATERIAL, phong
from unrender.render.texture import Texture


def render_mesh(
    mesh: Mesh,
    camera: Camera,
    *,
    lights: Sequence[Light] = DEFAULT_LIGHTS,
    material: Material = DEFAULT_MATERIAL,
    texture: Texture | None = None,
    color: tuple[float, float, float] = DEFAULT_COLOR,
    background: tuple[float, float, float] | None = WHITE,
    blur: float = 0.0,
    layers: int = 8,
    supersampling: int = 1,
) -> Float[Tensor, "*batch height width channels"]:
    """Render a mesh with Phong shading; by default diffuse, lit from the camera, on white.

    Colors come from the texture, else from the vertices, else from `color`; shading is two-sided. With
    `background=None` the image is RGBA with premultiplied alpha. With `blur`, edges are that many pixels wide and blend
    `layers` faces, so that the image is differentiable in the geometry; without, edges are hard. `supersampling`
    renders that many times the resolution and averages.

    Example: `render_mesh(ico_sphere(3), Camera.look_at((0, 0, 3), height=256, width=256))`.

    Differentiable in: the mesh, camera, lights, material, texture; at silhouettes only with `blur`.
    """
    fine = camera.resize(camera.height * supersampling, camera.width * supersampling)
    fragments = rasterize(mesh, fine, layers=layers if blur else 1, blur=blur * supersampling)
    colors = phong(mesh, fragments, fine, lights, material, texture=texture, color=color, two_sided=True)
    behind = background or (0.0,) * colors.shape[-1]
    if blur:
        image = blend_softmax(colors, fragments, blur=blur * supersampling, background=behind)
    else:
        image = blend_hard(colors, fragments, behind)
    return downsample(image if background is None else image[..., :-1], supersampling)


def render_silhouette(
    mesh: Mesh, camera: Camera, *, blur: float = 2.0, near: float | None = None
) -> Float[Tensor, "*batch height width"]:
    """Render a soft silhouette in [0, 1], with edges that fade out over `blur` pixels to either side.

    See `soft_silhouette` for the formula.
    Differentiable in: vertices and camera (not twice).
    """
    points = camera.project_homogeneous(mesh.vertices)
    depth = default_near(points, camera) if near is None else near
    return soft_silhouette(
        points, mesh.faces, height=camera.height, width=camera.width, near=depth, blur=blur
    )


def render_depth(mesh: Mesh, camera: Camera) -> Float[Tensor, "*batch height width"]:
    """Render the depth (z) of the nearest surface at each pixel center, in world units; 0 for background.

    Differentiable in: vertices and camera (not twice).
    """
    return rasterize(mesh, camera).depth[..., 0]


def render_normals(mesh: Mesh, camera: Camera) -> Float[Tensor, "*batch height width 3"]:
    """Render interpolated unit vertex normals at each pixel center, in world coordinates; 0 for background.

    Differentiable in: vertices and camera (not twice).
    """
    return normalize(
        interpolate(rasterize(mesh, camera), mesh.faces, vertex_normals(mesh))[..., 0, :], dim=-1
    )


def face_object_ids(meshes: Sequence[Mesh]) -> Int[Tensor, " faces"]:
    """Return the index of the source mesh of each face of `join_meshes(meshes)`."""
    device = meshes[0].faces.device
    ids = [
        torch.full((len(mesh.faces),), i, dtype=torch.int64, device=device) for i, mesh in enumerate(meshes)
    ]
    return torch.cat(ids)


def render_object_ids(meshes: Sequence[Mesh], camera: Camera) -> Int[Tensor, "*batch height width"]:
    """Render the index of the mesh visible at each pixel; −1 for background."""
    fragments = rasterize(join_meshes([mesh.replace(vertex_colors=None) for mesh in meshes]), camera)
    face_ids = fragments.face_ids[..., 0].long()
    return torch.where(face_ids >= 0, face_object_ids(meshes)[face_ids], -1)


def downsample(image: Tensor, factor: int) -> Tensor:
    """Downsample an image by averaging blocks of `factor` × `factor` pixels."""
    if factor == 1:
        return image
    channels_first = image.reshape(-1, *image.shape[-3:]).movedim(-1, 1)
    smaller = avg_pool2d(channels_first, factor).movedim(1, -1)
    return smaller.reshape(*image.shape[:-3], *smaller.shape[-3:])
