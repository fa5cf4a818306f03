"""Pictures of meshes, each a short composition of verbs."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.render.fragments import interpolate, rasterize


def render_mesh(
    mesh: Mesh,
    camera: Camera,
    *,
    color: tuple[float, float, float] = (0.72, 0.74, 0.78),
    background: tuple[float, float, float] | None = (1.0, 1.0, 1.0),
    ambient: float = 0.25,
    supersampling: int = 1,
) -> Float[Tensor, "*batch height width channels"]:
    """Show a mesh, lit from the camera, with its vertex colors or in one color; both sides of faces are lit alike.

    Lambert's law: color · (ambient + (1 − ambient) · |n · v|). Without background the image is RGBA, color
    premultiplied by alpha. `supersampling` averages that many pixels squared into one.
    """
    fine = camera.resize(camera.height * supersampling, camera.width * supersampling)
    fragments = rasterize(mesh, fine)
    covered = (fragments.face_ids[..., 0, None] >= 0).to(mesh.vertices.dtype)
    colors = mesh.vertices.new_tensor(color).expand(mesh.vertices.shape[-2], 3)
    colors = colors if mesh.vertex_colors is None else mesh.vertex_colors[:, :3]
    normals = normalize(interpolate(fragments, mesh.faces, vertex_normals(mesh))[..., 0, :], dim=-1)
    views = normalize(
        interpolate(fragments, mesh.faces, directions_to(fine, mesh.vertices))[..., 0, :], dim=-1
    )
    facing = (normals * views).sum(-1, keepdim=True).abs()
    lit = interpolate(fragments, mesh.faces, colors)[..., 0, :] * (ambient + (1 - ambient) * facing)
    image = downsample(torch.cat([lit, covered], -1), supersampling)
    if background is None:
        return image
    return image[..., :3] + (1 - image[..., 3:]) * image.new_tensor(background)


def directions_to(camera: Camera, points: Tensor) -> Tensor:
    """Point from each point to the camera; not of unit length."""
    if camera.projection == "perspective":
        return camera.position[..., None, :] - points
    return -camera.camera_from_world[..., None, 2, :3].expand(*camera.focal.shape[:-1], points.shape[-2], 3)


def downsample(image: Tensor, factor: int) -> Tensor:
    """Average squares of pixels."""
    channels_first = image.reshape(-1, *image.shape[-3:]).movedim(-1, 1)
    smaller = avg_pool2d(channels_first, factor) if factor > 1 else channels_first
    return smaller.movedim(1, -1).reshape(*image.shape[:-3], *smaller.shape[-2:], image.shape[-1])
