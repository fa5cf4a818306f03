"""Reference implementation of sampling on surfaces."""

import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.kernels._columns import as_columns, as_rows
from unrender.kernels._dispatch import can_read
from unrender.kernels.face_vectors import face_vectors
from unrender.kernels.normalize import norm, normalize
from unrender.kernels.scatter_sum import gather_columns


def forward(
    vertices: Tensor, faces: Tensor, jitter: Tensor, uv: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return points, unit normals, faces and barycentric coordinates of samples, ordered by face.

    Of the total area, cut into as many strata as there are samples, sample n is at the fraction `jitter` of the n-th:
    it lies on the face there. In the face (a, b, c) it is (1 − √u) a + √u (1 − v) b + √u v c.
    """
    columns = as_columns(vertices)
    face_ids = draw_faces(norm(face_vectors(columns.detach(), faces)) / 2, jitter)
    u, v = uv
    root = u * u.clamp(min=torch.finfo(u.dtype).tiny).rsqrt()  # √u; `torch.sqrt` starts all threads
    weights = torch.stack([1 - root, root * (1 - v), root * v], -2)
    drawn = faces.index_select(0, face_ids.flatten()).view(*face_ids.shape, 3)
    a, b, c = (gather_columns(columns, corner) for corner in drawn.unbind(-1))
    points = weights[..., 0:1, :] * a + weights[..., 1:2, :] * b + weights[..., 2:3, :] * c
    (ux, uy, uz), (vx, vy, vz) = (b - a).unbind(-2), (c - a).unbind(-2)
    across = torch.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], -2)
    return as_rows(points), as_rows(normalize(across)), face_ids, as_rows(weights)


def draw_faces(areas: Tensor, jitter: Tensor) -> Tensor:
    """Draw face indices in proportion to area, by stratified inverse transform sampling."""
    cumulative, count = _cumulative(areas), jitter.shape[-1]
    total = cumulative[..., -1:] if areas.shape[-1] else areas.new_zeros(*areas.shape[:-1], 1)
    if can_read(areas) and not bool(((total > 0) & total.isfinite()).all()):
        raise InputError(
            "sample_points_from_mesh: `mesh` should have a positive, finite surface area, "
            f"got {areas.shape[-1]} faces with a total area of {total.min().item():g}"
        )
    quantile = (torch.arange(count, device=areas.device) + jitter) * (total / count)
    drawn = torch.searchsorted(cumulative, quantile, right=True)
    return drawn.clamp(max=areas.shape[-1] - 1)


def _cumulative(areas: Tensor) -> Tensor:
    """Add up areas from the first on; on a GPU as integers, since the order of its sums is by chance."""
    exact = areas.double()
    if can_read(areas):
        return exact.cumsum(-1)
    unit = exact.amax(-1, keepdim=True) * 2.0**-40 if areas.shape[-1] else 1.0
    return (exact / unit).round().long().cumsum(-1) * unit
