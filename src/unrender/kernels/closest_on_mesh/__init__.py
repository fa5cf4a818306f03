"""Nearest points on a triangle surface."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked, describe_value
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.closest_on_mesh import reference
from unrender.kernels.nearest import PointIndex


class ClosestOnMesh(NamedTuple):
    """What `closest_on_mesh` found for each query: squared distance, face, and where on the face."""

    squared_distances: Float[Tensor, "*batch queries"]
    face_ids: Int[Tensor, "*batch queries"]
    barycentrics: Float[Tensor, "*batch queries 3"]


@checked
def index_faces(
    vertices: Float[Tensor, "*batch vertices 3"], faces: Int[Tensor, "faces 3"]
) -> Int[Tensor, "*batch faces"] | None:
    """Sort faces into a search tree; it stays valid, if less tight, while the vertices move."""
    fast = implementation("closest_on_mesh", vertices.device)
    if fast is None or len(faces) == 0:
        return None
    order: Tensor = fast.build(vertices, faces)
    return order


@checked
def closest_on_mesh(
    queries: Float[Tensor, "*batch queries 3"] | PointIndex,
    vertices: Float[Tensor, "*batch vertices 3"],
    faces: Int[Tensor, "faces 3"],
    *,
    face_order: Int[Tensor, "*batch faces"] | None = None,
) -> ClosestOnMesh:
    """Find the point of a triangle surface nearest to each query.

    Exact for degenerate triangles too. `face_order` (`index_faces`) saves sorting the faces; indexed queries
    (`index_points`) are searched faster, in an order in which neighbours follow one another.

    Differentiable in: queries, vertices, through the squared distances (not twice).
    """
    points = queries.points if isinstance(queries, PointIndex) else torch.as_tensor(queries)
    if points.shape[:-2] != vertices.shape[:-2] or points.shape[-1] != 3:
        raise InputError(
            f"closest_on_mesh: batches should agree, got queries {describe_value(points)} "
            f"and vertices {describe_value(vertices)}"
        )
    if len(faces) == 0:
        raise InputError("closest_on_mesh: `faces` is empty: a mesh without faces has no surface")
    for name, tensor in (("queries", points), ("vertices", vertices)):
        if not bool(torch.isfinite(tensor.detach()).all()):
            raise InputError(f"closest_on_mesh: `{name}` holds NaN or infinite coordinates")
    if implementation("closest_on_mesh", vertices.device) is None:
        return ClosestOnMesh(*reference.forward(points, vertices, faces))
    if face_order is None:
        face_order = index_faces(vertices, faces)
    if isinstance(queries, PointIndex) and queries.order is not None:
        query_order = queries.order
    else:
        query_order = torch.arange(points.shape[-2]).expand(points.shape[:-1])
    return ClosestOnMesh(*_ClosestOnMesh.apply(points, vertices, faces, query_order, face_order))


class _ClosestOnMesh(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, vertices: Tensor, faces: Tensor, query_order: Tensor, face_order: Tensor
    ) -> tuple[Tensor, ...]:
        fast = implementation("closest_on_mesh", vertices.device)
        assert fast is not None
        distances, ids, barycentrics = fast.forward(queries, query_order, vertices, faces, face_order)
        ctx.save_for_backward(queries, vertices, faces, ids, barycentrics)
        ctx.mark_non_differentiable(ids, barycentrics)
        return distances, ids, barycentrics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        fast = implementation("closest_on_mesh", cotangent.device)
        assert fast is not None
        return (*fast.backward(*ctx.saved_tensors, cotangent), None, None, None)
