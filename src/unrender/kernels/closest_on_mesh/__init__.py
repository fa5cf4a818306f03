"""Closest points on a triangle mesh."""

from types import ModuleType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import can_read, implementation
from unrender.kernels.closest_on_mesh import reference
from unrender.kernels.nearest import PointIndex, check_agreement, check_finite, given_order


class ClosestOnMesh(NamedTuple):
    """The closest point of each query: squared distance, face, and barycentric coordinates on the face."""

    squared_distances: Float[Tensor, "*batch queries"]
    face_ids: Int[Tensor, "*batch queries"]
    barycentrics: Float[Tensor, "*batch queries 3"]


@checked
def index_faces(
    vertices: Float[Tensor, "*batch vertices 3"], faces: Int[Tensor, "faces 3"]
) -> Int[Tensor, "*batch faces"] | None:
    """Sort faces into a search tree, to be passed to `closest_on_mesh` as `face_order`.

    The tree remains valid while the vertices move; searches get slower as faces drift apart.
    """
    _check_faces("index_faces", faces, vertices)
    fast = implementation("closest_on_mesh", vertices.device)
    if fast is None:
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
    """Find the closest point on a triangle mesh for each query.

    The search is exact, including for degenerate triangles. Pass `face_order` (`index_faces`) to reuse a search tree
    over several calls; indexed queries (`index_points`) are processed in a cache-friendly order.

    Differentiable in: queries, vertices, through the squared distances (not twice).
    """
    points, query_order = (
        (queries.points, queries.order) if isinstance(queries, PointIndex) else (queries, None)
    )
    check_agreement("closest_on_mesh", queries=points, vertices=vertices)
    check_finite("closest_on_mesh", queries=points, vertices=vertices)
    _check_faces("closest_on_mesh", faces, vertices)
    fast = implementation("closest_on_mesh", vertices.device)
    if fast is None:
        return ClosestOnMesh(*reference.forward(points, vertices, faces))
    if face_order is None:
        face_order = fast.build(vertices, faces)
    if query_order is None:
        query_order = given_order(points)
    return ClosestOnMesh(*_ClosestOnMesh.apply(fast, points, vertices, faces, query_order, face_order))


def _check_faces(where: str, faces: Tensor, vertices: Tensor) -> None:
    if len(faces) == 0:
        raise InputError(f"{where}: `faces` should have at least one face, got none")
    if faces.device != vertices.device:
        raise InputError(
            f"{where}: `faces` should be on the device of the vertices, {vertices.device}, got {faces.device}"
        )
    if not can_read(faces):
        return
    low, high = (int(x) for x in torch.aminmax(faces))
    if low < 0 or high >= vertices.shape[-2]:
        raise InputError(
            f"{where}: `faces` should index vertices 0 to {vertices.shape[-2] - 1}, got indices {low} to {high}"
        )


class _ClosestOnMesh(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        fast: ModuleType,
        queries: Tensor,
        vertices: Tensor,
        faces: Tensor,
        query_order: Tensor,
        face_order: Tensor,
    ) -> tuple[Tensor, ...]:
        distances, ids, barycentrics = fast.forward(queries, query_order, vertices, faces, face_order)
        ctx.save_for_backward(queries, vertices, faces, ids, barycentrics)
        ctx.fast = fast
        ctx.mark_non_differentiable(ids, barycentrics)
        return distances, ids, barycentrics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.fast.backward(*ctx.saved_tensors, grad_output), None, None, None)
