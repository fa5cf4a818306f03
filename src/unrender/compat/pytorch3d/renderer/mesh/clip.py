"""Clipping of faces at a near plane, for rasterizers of your own: the kernels of unrender clip by themselves."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.utils import first_rows, member_of_rows


@dataclass
class ClipFrustum:
    """The visible box, without the sides that are None, and the depth of the near plane, `z_clip_value`.

    With `perspective_correct`, x and y have been divided by the depth.
    """

    left: float | None = None
    right: float | None = None
    top: float | None = None
    bottom: float | None = None
    znear: float | None = None
    zfar: float | None = None
    perspective_correct: bool = False
    cull: bool = True
    z_clip_value: float | None = None


@dataclass
class ClippedFaces:
    """The corners of visible faces [T, 3, 3], with the first face and the number of faces of each mesh."""

    face_verts: Tensor
    mesh_to_face_first_idx: Tensor
    num_faces_per_mesh: Tensor
    faces_clipped_to_unclipped_idx: Tensor | None = None
    """The face that each is a part of."""
    barycentric_conversion: Tensor | None = None
    """Columns with the barycentric coordinates of the corners of parts in their face [parts, 3, 3]."""
    faces_clipped_to_conversion_idx: Tensor | None = None
    """Row of each face in `barycentric_conversion`; −1 for whole faces."""
    clipped_faces_neighbor_idx: Tensor | None = None
    """The other part of a face that was clipped to a quadrilateral, else −1."""


def clip_faces(
    face_verts_unclipped: Tensor,
    mesh_to_face_first_idx: Tensor,
    num_faces_per_mesh: Tensor,
    frustum: ClipFrustum,
) -> ClippedFaces:
    """Drop faces [F, 3, 3] outside of the frustum, and clip those that cross the near plane to one or two faces."""
    corners = face_verts_unclipped
    behind = torch.zeros_like(corners[..., 2], dtype=torch.bool)
    if frustum.z_clip_value is not None:
        behind = corners[..., 2] < frustum.z_clip_value
    hidden = behind.sum(1)
    kept = ~_outside(corners, frustum) & (hidden < 3)
    if bool(kept.all()) and not bool(behind.any()):
        return ClippedFaces(corners, mesh_to_face_first_idx, num_faces_per_mesh)
    parts = kept * (1 + (hidden == 1).long())
    ids = torch.arange(len(corners), device=corners.device).repeat_interleave(parts)
    counts = torch.zeros_like(num_faces_per_mesh)
    counts = counts.index_add(0, member_of_rows(num_faces_per_mesh), parts.to(counts.dtype))
    first, cut = first_rows(counts), hidden[ids]
    if not bool((cut > 0).any()):
        return ClippedFaces(corners[ids], first, counts, ids)

    twins, number = cut == 1, torch.arange(len(ids), device=ids.device)
    second = twins & (number > first_rows(parts)[ids])
    neighbors = torch.where(twins, number + 1 - 2 * second.long(), -1)
    groups = (cut == 2, twins & ~second, second)  # in the order of the rows of the conversion
    rows = torch.full_like(ids, -1)
    rows[torch.cat([group.nonzero()[:, 0] for group in groups])] = torch.arange(
        int((cut > 0).sum()), device=ids.device
    )
    triangle, *quadrilateral = _parts(corners, behind, float(frustum.z_clip_value or 0.0))
    weights = [one[ids[group]] for one, group in zip((triangle, *quadrilateral), groups, strict=True)]
    conversion = torch.cat(weights)
    whole = torch.eye(3, dtype=conversion.dtype, device=conversion.device)
    each = torch.where((rows < 0)[:, None, None], whole, conversion[rows])
    clipped = _move(corners[ids], each, frustum.perspective_correct)
    return ClippedFaces(clipped, first, counts, ids, conversion, rows, neighbors)


def convert_clipped_rasterization_to_original_faces(
    pix_to_face_clipped: Tensor, bary_coords_clipped: Tensor, clipped_faces: ClippedFaces
) -> tuple[Tensor, Tensor]:
    """Return face indices and barycentric coordinates of fragments in the faces before they were clipped."""
    ids, rows = clipped_faces.faces_clipped_to_unclipped_idx, clipped_faces.faces_clipped_to_conversion_idx
    if ids is None:
        return pix_to_face_clipped, bary_coords_clipped
    filled, slots = pix_to_face_clipped >= 0, pix_to_face_clipped.clamp(min=0)
    faces = torch.where(filled, ids[slots], -1) if len(ids) else pix_to_face_clipped
    if rows is None or clipped_faces.barycentric_conversion is None:
        return faces, bary_coords_clipped
    converted = (clipped_faces.barycentric_conversion[rows[slots]] @ bary_coords_clipped[..., None])[..., 0]
    return faces, torch.where((filled & (rows[slots] >= 0))[..., None], converted, bary_coords_clipped)


def _outside(corners: Tensor, frustum: ClipFrustum) -> Tensor:
    """Return the faces of which all corners are beyond one side."""
    outside = torch.zeros(len(corners), dtype=torch.bool, device=corners.device)
    sides = (frustum.left, frustum.right), (frustum.top, frustum.bottom), (frustum.znear, frustum.zfar)
    for axis, (low, high) in enumerate(sides if frustum.cull else ()):
        if low is not None:
            outside |= (corners[..., axis] < low).all(1)
        if high is not None:
            outside |= (corners[..., axis] > high).all(1)
    return outside


def _parts(corners: Tensor, behind: Tensor, near: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights [F, 3, 3] of a face with one visible corner, and of the two with two visible corners."""
    units = torch.eye(3, dtype=corners.dtype, device=corners.device)
    each = torch.arange(len(corners), device=corners.device)
    alone = torch.where(behind.sum(1) == 1, behind.long().argmax(1), (~behind).long().argmax(1))
    following, last = (alone + 1) % 3, (alone + 2) % 3

    def crossing(other: Tensor) -> Tensor:
        """Return where the edge from the corner that is alone on its side meets the near plane."""
        start, end = corners[each, alone, 2], corners[each, other, 2]
        fraction = ((start - near) / torch.where(start == end, 1, start - end))[:, None]
        return (1 - fraction) * units[alone] + fraction * units[other]

    right, left = crossing(following), crossing(last)
    triangle = torch.stack([right, left, units[alone]], 2)
    one = torch.stack([right, units[following], left], 2)
    return triangle, one, torch.stack([left, units[following], units[last]], 2)


def _move(corners: Tensor, weights: Tensor, divided: bool) -> Tensor:
    """Return corners at barycentric coordinates, which are columns, of faces [T, 3, 3]."""
    if not divided:
        return weights.mT @ corners
    depth = corners[..., 2:]
    moved = weights.mT @ torch.cat([corners[..., :2] * depth, depth], 2)
    return torch.cat([moved[..., :2] / moved[..., 2:], moved[..., 2:]], 2)


__getattr__ = refuse_unknown(__name__)
