"""Random sampling of points on mesh surfaces."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.columns import as_columns, as_rows, cross, gather_columns, norm, normalize
from unrender.geometry.mesh import Mesh, area_vectors
from unrender.kernels._dispatch import can_ask


class SurfaceSamples(TensorStruct):
    """Points sampled on a mesh, with their normals, faces and barycentric coordinates."""

    points: Float[Tensor, "*batch samples 3"]
    normals: Float[Tensor, "*batch samples 3"]
    """Unit outward normals of the faces."""
    face_ids: Int[Tensor, "*batch samples"]
    barycentric: Float[Tensor, "*batch samples 3"]


def sample_points_from_mesh(
    mesh: Mesh, count: int, *, generator: torch.Generator | None = None
) -> SurfaceSamples:
    """Sample `count` points uniformly over the surface, ordered by face.

    Sampling is stratified: one point is drawn from each of `count` strata of equal area, so that the number of points
    on a face is proportional to its area to within two. In a face (a, b, c), the point is
    (1 − √u) a + √u (1 − v) b + √u v c for uniform u, v (Osada et al. 2002, eq. 1).
    Raises InputError for a mesh without surface area.
    Differentiable in: the vertices, with faces and barycentric coordinates held fixed.
    """
    columns = as_columns(mesh.vertices)
    face_ids = _draw_faces(norm(area_vectors(columns.detach(), mesh.faces)) / 2, count, generator)
    drawn_on = mesh.vertices.device if generator is None else generator.device
    u, v = torch.rand(2, *face_ids.shape, generator=generator, dtype=mesh.vertices.dtype, device=drawn_on).to(
        mesh.vertices.device
    )
    root = u * u.clamp(min=torch.finfo(u.dtype).tiny).rsqrt()  # √u; `torch.sqrt` starts all threads
    weights = torch.stack([1 - root, root * (1 - v), root * v], -2)
    drawn = mesh.faces.index_select(0, face_ids.flatten()).view(*face_ids.shape, 3)
    a, b, c = (gather_columns(columns, corner) for corner in drawn.unbind(-1))
    points = weights[..., 0:1, :] * a + weights[..., 1:2, :] * b + weights[..., 2:3, :] * c
    normals = normalize(cross(b - a, c - a))
    return SurfaceSamples(as_rows(points), as_rows(normals), face_ids, as_rows(weights))


def _draw_faces(areas: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw face indices in proportion to area, by stratified inverse transform sampling."""
    cumulative = _cumulative(areas)
    total = cumulative[..., -1:] if areas.shape[-1] else areas.new_zeros(*areas.shape[:-1], 1)
    if can_ask(areas) and not bool(((total > 0) & total.isfinite()).all()):
        raise InputError(
            "sample_points_from_mesh: `mesh` should have a positive, finite surface area, "
            f"got {areas.shape[-1]} faces with a total area of {total.min().item():g}"
        )
    jitter = torch.rand(
        *areas.shape[:-1],
        count,
        generator=generator,
        dtype=torch.float64,
        device=areas.device if generator is None else generator.device,
    ).to(areas.device)
    quantile = (torch.arange(count, device=areas.device) + jitter) * (total / count)
    drawn = torch.searchsorted(cumulative, quantile, right=True)
    return drawn.clamp(max=areas.shape[-1] - 1)


def _cumulative(areas: Tensor) -> Tensor:
    """Add up areas from the first on; on a GPU as integers, since the order of its sums is by chance."""
    exact = areas.double()
    if can_ask(areas):
        return exact.cumsum(-1)
    unit = exact.amax(-1, keepdim=True) * 2.0**-40 if areas.shape[-1] else 1.0
    return (exact / unit).round().long().cumsum(-1) * unit
