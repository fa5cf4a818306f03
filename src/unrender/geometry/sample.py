"""Random points on surfaces."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.columns import as_columns, as_rows, cross, norm, take, unit
from unrender.geometry.mesh import Mesh, area_vectors


class SurfaceSamples(TensorStruct):
    """Points on a mesh, and where on it they lie."""

    points: Float[Tensor, "*batch samples 3"]
    normals: Float[Tensor, "*batch samples 3"]
    """Of the face, outward, unit length."""
    face_ids: Int[Tensor, "*batch samples"]
    barycentric: Float[Tensor, "*batch samples 3"]


def sample_points_from_mesh(
    mesh: Mesh, count: int, *, generator: torch.Generator | None = None
) -> SurfaceSamples:
    """Draw points uniformly over the surface, in the order of its faces.

    One comes from each of `count` equal shares of the area: every face gets its part to within two points.
    In a face (a, b, c) it is (1 − √u) a + √u (1 − v) b + √u v c for uniform u, v (Osada et al. 2002, eq. 1).
    Differentiable in: the vertices, with faces and barycentric coordinates held fixed.
    """
    columns = as_columns(mesh.vertices)
    face_ids = _draw_faces(norm(area_vectors(columns.detach(), mesh.faces)) / 2, count, generator)
    u, v = torch.rand(
        2, *face_ids.shape, generator=generator, dtype=mesh.vertices.dtype, device=mesh.vertices.device
    )
    side = u * u.clamp(min=torch.finfo(u.dtype).tiny).rsqrt()  # √u; torch's own wakes all threads
    weights = torch.stack([1 - side, side * (1 - v), side * v], -2)
    drawn = mesh.faces.index_select(0, face_ids.flatten()).view(*face_ids.shape, 3)
    a, b, c = (take(columns, corner) for corner in drawn.unbind(-1))
    points = weights[..., 0:1, :] * a + weights[..., 1:2, :] * b + weights[..., 2:3, :] * c
    normals = unit(cross(b - a, c - a))
    return SurfaceSamples(as_rows(points), as_rows(normals), face_ids, as_rows(weights))


def _draw_faces(areas: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw face numbers in proportion to area, stratified, through the inverse cumulative distribution."""
    cumulative = areas.double().cumsum(-1)
    total = cumulative[..., -1:] if areas.shape[-1] else areas.new_zeros(*areas.shape[:-1], 1)
    if not bool(((total > 0) & total.isfinite()).all()):
        raise InputError(
            "sample_points_from_mesh: `mesh` should have a positive, finite surface area, "
            f"got {areas.shape[-1]} faces with a total area of {total.min().item():g}"
        )
    jitter = torch.rand(
        *areas.shape[:-1], count, generator=generator, dtype=torch.float64, device=areas.device
    )
    place = (torch.arange(count, device=areas.device) + jitter) * (total / count)
    drawn = torch.searchsorted(cumulative, place, right=True)
    return drawn.clamp(max=areas.shape[-1] - 1)
