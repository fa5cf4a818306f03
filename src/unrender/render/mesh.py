"""Pictures of meshes, each a short composition of verbs."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh, join_meshes, vertex_normals
from unrender.kernels.silhouette import cover_pixels
from unrender.render.blend import WHITE, blend_hard, blend_softmax
from unrender.render.fragments import interpolate, near_plane, rasterize
from unrender.render.lights import Light, Material
from unrender.render.shade import GREY, MATTE, STUDIO, phong
from unrender.render.texture import Texture


def render_mesh(
    mesh: Mesh,
    camera: Camera,
    *,
    lights: Sequence[Light] = STUDIO,
    material: Material = MATTE,
    texture: Texture | None = None,
    color: tuple[float, float, float] = GREY,
    background: tuple[float, float, float] | None = WHITE,
    blur: float = 0.0,
    layers: int = 8,
    supersampling: int = 1,
) -> Float[Tensor, "*batch height width channels"]:
    """Show a mesh, by default matt and lit from the camera.

    It has the texture's colors, else those of its vertices, else `color`; faces look alike from both sides.
    Without background the image is RGBA, color multiplied by alpha. With `blur`, edges are that many pixels wide
    and `layers` faces deep, and the picture is smooth in the geometry; without, they are hard.
    `supersampling` averages that many pixels squared into one.
    Differentiable in: the mesh, camera, lights, material, texture; the outline only with `blur`.
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
    """Compute how far a mesh covers each pixel, in [0, 1], with soft edges `blur` pixels wide to either side.

    See `cover_pixels` for the formula.
    Differentiable in: vertices and camera (not twice).
    """
    points = camera.project_homogeneous(mesh.vertices)
    near = near_plane(points, camera) if near is None else near
    return cover_pixels(points, mesh.faces, height=camera.height, width=camera.width, near=near, blur=blur)


def render_depth(mesh: Mesh, camera: Camera) -> Float[Tensor, "*batch height width"]:
    """Compute the depth of the surface behind each pixel's centre, in world units; 0 where there is none.

    Differentiable in: vertices and camera (not twice).
    """
    return rasterize(mesh, camera).depth[..., 0]


def render_normals(mesh: Mesh, camera: Camera) -> Float[Tensor, "*batch height width 3"]:
    """Compute smooth unit normals of the surface behind each pixel's centre, in the world; 0 where there is none.

    Differentiable in: vertices and camera (not twice).
    """
    return normalize(
        interpolate(rasterize(mesh, camera), mesh.faces, vertex_normals(mesh))[..., 0, :], dim=-1
    )


def face_object_ids(meshes: Sequence[Mesh]) -> Int[Tensor, " faces"]:
    """Tell, for each face of `join_meshes(meshes)`, which mesh it came from."""
    counts = torch.tensor([len(mesh.faces) for mesh in meshes])
    return torch.arange(len(meshes)).repeat_interleave(counts)


def render_object_ids(meshes: Sequence[Mesh], camera: Camera) -> Int[Tensor, "*batch height width"]:
    """Tell, for each pixel, which of several meshes it shows; −1 where there is none."""
    fragments = rasterize(join_meshes([mesh.replace(vertex_colors=None) for mesh in meshes]), camera)
    face_ids = fragments.face_ids[..., 0].long()
    return torch.where(face_ids >= 0, face_object_ids(meshes)[face_ids], -1)


def downsample(image: Tensor, factor: int) -> Tensor:
    """Average squares of pixels."""
    if factor == 1:
        return image
    channels_first = image.reshape(-1, *image.shape[-3:]).movedim(-1, 1)
    smaller = avg_pool2d(channels_first, factor).movedim(1, -1)
    return smaller.reshape(*image.shape[:-3], *smaller.shape[-3:])
