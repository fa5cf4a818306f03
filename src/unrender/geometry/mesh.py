"""Triangle meshes, with normals, areas and volume."""

from collections.abc import MutableMapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from unrender._checked import describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.columns import (
    as_columns,
    as_rows,
    cross,
    dot,
    gather_columns,
    norm,
    normalize,
    ordered_sum,
)
from unrender.kernels.face_vectors import face_vectors
from unrender.kernels.vertex_normals import normals_of_vertices


class Mesh(TensorStruct):
    """A triangle mesh: one topology, and one or a batch of vertex positions in world units.

    Faces are counter-clockwise seen from outside. Use a Python list for meshes of different topology.
    """

    vertices: Float[Tensor, "*batch vertices 3"]
    faces: Int[Tensor, "faces 3"]
    vertex_colors: Float[Tensor, "vertices channels"] | None = None
    """Linear RGB in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.faces):
            low, high = _index_range(self.faces)
            if low < 0 or high >= self.vertices.shape[-2]:
                raise InputError(
                    f"Mesh: `faces` should index vertices 0 to {self.vertices.shape[-2] - 1}, got indices {low} to "
                    f"{high} with vertices {describe_value(self.vertices)}"
                )


_ranges: MutableMapping[Tensor, tuple[int, int, int]] = WeakIdKeyDictionary()


def _index_range(faces: Tensor) -> tuple[int, int]:
    """Return the smallest and largest index; cached while the tensor lives unchanged: a GPU would be waited for."""
    if not faces.is_inference() and faces in _ranges and _ranges[faces][0] == faces._version:
        return _ranges[faces][1:]
    low, high = (int(x) for x in torch.aminmax(faces))
    if not faces.is_inference():
        _ranges[faces] = faces._version, low, high
    return low, high


def face_normals(mesh: Mesh) -> Float[Tensor, "*batch faces 3"]:
    """Compute the unit outward normal of every face; zero for degenerate faces.

    Differentiable in: the vertices (gradient zero at degenerate faces).
    """
    return as_rows(normalize(area_vectors(as_columns(mesh.vertices), mesh.faces)))


def face_areas(mesh: Mesh) -> Float[Tensor, "*batch faces"]:
    """Compute the area of every face, in squared world units.

    Differentiable in: the vertices (gradient zero at degenerate faces).
    """
    return norm(area_vectors(as_columns(mesh.vertices), mesh.faces)) / 2


def vertex_normals(mesh: Mesh) -> Float[Tensor, "*batch vertices 3"]:
    """Compute unit vertex normals: the mean of the adjacent face normals, weighted by area.

    Zero where that mean is zero, and for unreferenced vertices.
    Differentiable in: the vertices.
    """
    return normals_of_vertices(mesh.vertices, mesh.faces)


def surface_area(mesh: Mesh) -> Float[Tensor, "*batch"]:
    """Sum the areas of all faces, in squared world units.

    Differentiable in: the vertices.
    """
    return ordered_sum(face_areas(mesh))


def enclosed_volume(mesh: Mesh) -> Float[Tensor, "*batch"]:
    """Compute the volume inside a watertight mesh, in cubed world units; negative if its normals point inward.

    The sum over faces (a, b, c) of a · (b × c) / 6, with the first vertex as origin. The result is meaningless for a
    mesh that is not watertight: see `is_watertight`.
    Differentiable in: the vertices.
    """
    columns = as_columns(mesh.vertices)
    a, b, c = corners(columns - columns[..., :1].detach(), mesh.faces)
    return ordered_sum(dot(a, cross(b, c))) / 6


def join_meshes(meshes: Sequence[Mesh]) -> Mesh:
    """Concatenate meshes into one mesh; all should share batch axes, and either all have vertex colors or none.

    Differentiable in: vertices and colors.
    """
    if not meshes:
        raise InputError("join_meshes: `meshes` should hold at least one mesh, got none")
    colors = [mesh.vertex_colors for mesh in meshes if mesh.vertex_colors is not None]
    if colors and len(colors) < len(meshes):
        raise InputError(
            f"join_meshes: {len(colors)} of {len(meshes)} meshes have `vertex_colors`; "
            "set them on all meshes or on none"
        )
    starts = [0, *torch.tensor([mesh.vertices.shape[-2] for mesh in meshes]).cumsum(0).tolist()]
    return Mesh(
        torch.cat([mesh.vertices for mesh in meshes], -2),
        torch.cat([mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]),
        torch.cat(colors) if colors else None,
    )


def corners(columns: Tensor, faces: Tensor) -> list[Tensor]:
    """Gather the three corners of every face, in columns."""
    return [gather_columns(columns, faces[:, k]) for k in range(3)]


def area_vectors(columns: Tensor, faces: Tensor) -> Tensor:
    """Compute face normals of length twice the face area, in columns."""
    return face_vectors(columns, faces)
