"""Holes of a mesh: their outlines, and faces that close them."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import topology

Ints = NDArray[np.int64]


class FilledMesh(NamedTuple):
    """A mesh with some of its holes closed."""

    mesh: Mesh
    num_filled: int
    open_lengths: list[float]
    """Lengths of the outlines of the holes that are left, in world units, longest first."""


def boundary_loops(mesh: Mesh) -> list[Ints]:
    """Return the closed outlines of the boundary as vertex indices, in the direction of the adjacent faces' edges.

    Outlines that touch at a vertex are separate.
    """
    edges = topology(mesh.faces)
    is_open = (edges.edge_faces == 1)[edges.face_edges]
    start = mesh.faces.long()[is_open].cpu().numpy()
    end = mesh.faces.long().roll(-1, 1)[is_open].cpu().numpy()
    following: dict[int, list[int]] = {}
    for one, two in zip(start.tolist(), end.tolist(), strict=True):
        following.setdefault(one, []).append(two)
    loops = []
    for first in start.tolist():
        path, position = [first], {first: 0}
        while following.get(path[-1]):
            at = following[path[-1]].pop()
            if at in position:  # a closed outline, perhaps within a longer one that touches itself here
                begin = position[at]
                if len(path) - begin >= 3:
                    loops.append(np.array(path[begin:]))
                for other in path[begin + 1 :]:
                    del position[other]
                del path[begin + 1 :]
            else:
                position[at] = len(path)
                path.append(at)
    return loops


def fill_holes(mesh: Mesh, max_length: float) -> FilledMesh:
    """Close the holes whose outlines are at most `max_length` long, in world units, by fans around their centers.

    Use it before `remesh_isotropic`, which turns the fans into even triangles.
    Differentiable in: nothing.
    """
    points = mesh.vertices.detach().double().cpu().numpy()
    filled, remaining = [], []
    for loop in boundary_loops(mesh):
        length = float(np.linalg.norm(points[np.roll(loop, -1)] - points[loop], axis=1).sum())
        if length <= max_length:
            filled.append(loop)
        else:
            remaining.append(length)
    return FilledMesh(_with_fans(mesh, filled), len(filled), sorted(remaining, reverse=True))


def _with_fans(mesh: Mesh, loops: list[Ints]) -> Mesh:
    if not loops:
        return mesh
    device, size = mesh.vertices.device, mesh.vertices.shape[-2]
    rows = [torch.from_numpy(loop).to(device) for loop in loops]
    centers = torch.stack([mesh.vertices[row].mean(0) for row in rows])
    fans = [
        torch.stack([row.roll(-1), row, torch.full_like(row, size + index)], 1)
        for index, row in enumerate(rows)
    ]
    colors = mesh.vertex_colors
    if colors is not None:
        colors = torch.cat([colors, torch.stack([colors[row].mean(0) for row in rows])])
    faces = torch.cat([mesh.faces, torch.cat(fans).to(mesh.faces.dtype)])
    return Mesh(torch.cat([mesh.vertices, centers]), faces, colors)
