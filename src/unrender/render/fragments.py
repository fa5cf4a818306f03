"""What a camera sees of a mesh, and what lies there."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.kernels.rasterize import Fragments, rasterize_faces


def rasterize(
    mesh: Mesh,
    camera: Camera,
    *,
    layers: int = 1,
    blur: float = 0.0,
    cull: bool = False,
    near: float | None = None,
) -> Fragments:
    """Find, for each pixel, the `layers` nearest faces that cover it or pass within `blur` pixels of its centre.

    Faces are cut at depth `near`; by default that is a ten-thousandth of the farthest vertex's depth in perspective,
    and 0 in orthographic projection. `cull` leaves out faces that show their back. Batches of meshes and cameras
    broadcast.

    Differentiable in: vertices and camera, through barycentrics, depths and squared distances (not twice).
    """
    points = camera.project_homogeneous(mesh.vertices)
    near = near_plane(points, camera) if near is None else near
    size = {"height": camera.height, "width": camera.width}
    return rasterize_faces(points, mesh.faces, **size, near=near, layers=layers, blur=blur, cull=cull)


def near_plane(points: Tensor, camera: Camera) -> float:
    """Return the depth at which faces are cut unless a caller says otherwise."""
    if camera.projection == "orthographic" or points.numel() == 0:
        return 0.0
    return max(1e-4 * float(points.detach()[..., 3].max()), torch.finfo(points.dtype).tiny)


@checked
def interpolate(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], values: Float[Tensor, "*batch vertices channels"]
) -> Float[Tensor, "*batch height width layers channels"]:
    """Interpolate values given at the vertices: Σ b_i v_i at each fragment, zero in empty slots.

    Values without batch axes serve every image.
    Differentiable in: barycentrics, values.
    """
    filled = fragments.face_ids >= 0
    corner_ids = faces[fragments.face_ids[filled].long()]
    if values.dim() > 2:
        images = filled.flatten(0, -4).nonzero()[:, 0]
        corner_ids = corner_ids + images[:, None] * values.shape[-2]
        values = values.flatten(0, -2)
    corners = values.index_select(0, corner_ids.flatten()).view(*corner_ids.shape, -1)
    found = (fragments.barycentric[filled][..., None] * corners).sum(-2)
    image = found.new_zeros(*filled.shape, values.shape[-1])
    return image.masked_scatter(filled[..., None], found)
