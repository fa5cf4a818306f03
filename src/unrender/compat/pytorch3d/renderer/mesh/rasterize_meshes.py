"""Rasterization with lengths in NDC and NDC²; kernels of unrender use pixels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_at_use, refuse_unknown
from unrender.compat.pytorch3d.renderer._fragments import Fragments
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.structures.utils import stack
from unrender.errors import InputError
from unrender.kernels._dispatch import can_read
from unrender.kernels.project_points import near_plane
from unrender.kernels.rasterize import Fragments as CoreFragments
from unrender.kernels.rasterize import rasterize_faces

ImageSize = int | Sequence[int]


def rasterize_meshes(
    meshes: Meshes,
    image_size: ImageSize = 256,
    blur_radius: float = 0.0,
    faces_per_pixel: int = 8,
    bin_size: int | None = None,
    max_faces_per_bin: int | None = None,
    perspective_correct: bool = False,
    clip_barycentric_coords: bool = False,
    cull_backfaces: bool = False,
    z_clip_value: float | None = None,
    cull_to_frustum: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rasterize meshes whose vertices are x and y in NDC, and depth; return the fields of `Fragments`.

    Bins grow as needed, so no face is dropped; `bin_size`, `max_faces_per_bin` and `cull_to_frustum`
    have no effect.
    """
    size = height_width(image_size)
    points = []
    for verts in meshes.verts_list():
        depth = verts[:, 2:]
        w = depth if perspective_correct else torch.ones_like(depth)
        points.append(torch.cat([verts[:, :2] * w, w, depth], 1))
    found = rasterize_projected(
        [pixels(p, size) for p in points],
        [mesh.faces for mesh in meshes.core()],
        size,
        blur_radius,
        faces_per_pixel,
        near=near_depth(points, z_clip_value, perspective_correct),
        cull=cull_backfaces,
        clip=clip_barycentric_coords,
    )
    assert found.dists is not None
    return found.pix_to_face, found.zbuf, found.bary_coords, found.dists


def height_width(image_size: ImageSize) -> tuple[int, int]:
    """Return height and width; one number stands for both."""
    sides = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or any(side < 1 or side != int(side) for side in sides):
        raise InputError(
            f"`image_size` should be a positive number of pixels, or (height, width), got {image_size}"
        )
    return int(sides[0]), int(sides[1])


def pixels(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Convert (x·w, y·w, w, depth) with x and y in NDC, +1 at the top left, to the same in pixels."""
    x, y, w, depth = points.unbind(-1)
    (height, width), scale = size, min(size) / 2
    return torch.stack([width / 2 * w - scale * x, height / 2 * w - scale * y, w, depth], -1)


def near_depth(points: Sequence[Tensor], z_clip_value: float | None, divides: bool) -> float | Tensor:
    """Return the depth at which faces are clipped: as given, else just in front of the camera."""
    if z_clip_value is not None:
        return z_clip_value
    depths = [near_plane(p) for p in points if p.numel()] if divides else []
    if not depths:
        return 0.0
    near = depths[0] if len(depths) == 1 else torch.stack(depths).amax()
    return float(near) if can_read(near) else near


def rasterize_projected(
    points: Sequence[Tensor],
    faces: Sequence[Tensor],
    size: tuple[int, int],
    blur_radius: float,
    layers: int,
    *,
    near: float | Tensor,
    cull: bool,
    clip: bool,
) -> Fragments:
    """Rasterize one image per mesh, with face indices, lengths and empty slots as in PyTorch3D."""
    if blur_radius < 0:
        raise InputError(f"`blur_radius` should be NDC² ≥ 0, got {blur_radius}")
    scale = min(size) / 2
    height, width = size
    blur = scale * math.sqrt(blur_radius)
    parts, start = [], 0
    for one, topology in zip(points, faces, strict=True):
        found = rasterize_faces(
            one, topology, height=height, width=width, near=near, layers=layers, blur=blur, cull=cull
        )
        if not blur:
            found = _without_edges(found)
        filled = found.face_ids >= 0
        barycentric, depth = found.barycentric, found.depth
        if blur and not clip:
            barycentric, depth = _unclipped(one, topology, found.face_ids, filled)
        ids = torch.where(filled, found.face_ids.long() + start, -1)
        rest = [
            depth.masked_fill(~filled, -1),
            barycentric.masked_fill(~filled[..., None], -1),
            (found.squared_distance / scale**2).masked_fill(~filled, -1),
        ]
        parts.append([ids, *rest])
        start += len(topology)
    return Fragments(*(stack(field) for field in zip(*parts, strict=True)))


def _without_edges(found: CoreFragments) -> CoreFragments:
    """Drop faces whose edges go exactly through the pixel centers: in PyTorch3D, only their inside covers pixels."""
    on_edge = (found.barycentric.detach() == 0).any(-1) & (found.face_ids >= 0)
    if can_read(on_edge) and not bool(on_edge.any()):
        return found
    if on_edge.shape[-1] == 1:
        return found.replace(face_ids=torch.where(on_edge, -1, found.face_ids))
    order = on_edge.to(torch.int8).sort(dim=-1, stable=True).indices  # the other layers move forward
    ids, dropped = found.face_ids.gather(-1, order), on_edge.gather(-1, order)
    return found.replace(
        face_ids=torch.where(dropped, -1, ids),
        barycentric=found.barycentric.gather(-2, order[..., None].expand(*order.shape, 3)),
        depth=found.depth.gather(-1, order),
        squared_distance=found.squared_distance.gather(-1, order),
    )


def _unclipped(points: Tensor, faces: Tensor, face_ids: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
    """Return barycentrics that may be negative where a pixel is outside of the face, and their depths."""
    rows, columns, layers = filled.nonzero(as_tuple=True)
    corners = points[faces[face_ids[filled].long()]]
    centers = torch.stack([columns, rows], -1).to(points) + 0.5
    away = corners[..., :2] - centers[:, None] * corners[..., 2:3]
    x, y = away.unbind(-1)
    sides = x.roll(-1, 1) * y.roll(-2, 1) - y.roll(-1, 1) * x.roll(-2, 1)
    weights = sides / sides.sum(1, keepdim=True)
    slots = (rows, columns, layers)
    barycentric = points.new_zeros(*face_ids.shape, 3).index_put(slots, weights)
    depth = points.new_zeros(face_ids.shape).index_put(slots, (weights * corners[..., 3]).sum(1))
    return barycentric, depth


def edge_function(p: Tensor, v0: Tensor, v1: Tensor) -> Tensor:
    """Return twice the signed area of the triangles of points and edges [..., 2]."""
    away, along = p - v0, v1 - v0
    return away[..., 0] * along[..., 1] - away[..., 1] * along[..., 0]


def barycentric_coordinates(p: Tensor, v0: Tensor, v1: Tensor, v2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the barycentric coordinates of points [..., 2] in triangles with corners [..., 2]."""
    sides = edge_function(p, v1, v2), edge_function(p, v2, v0), edge_function(p, v0, v1)
    area = edge_function(v2, v0, v1) + 1e-8
    return sides[0] / area, sides[1] / area, sides[2] / area


rasterize_meshes_python = rasterize_meshes
_RasterizeFaceVerts = refuse_at_use(__name__, "_RasterizeFaceVerts")

__getattr__ = refuse_unknown(__name__)
