"""Primitive shapes: closed meshes centered at the origin."""

import math

import torch

from unrender.errors import InputError
from unrender.geometry.columns import as_columns, as_rows, normalize
from unrender.geometry.mesh import Mesh
from unrender.geometry.subdivide import subdivide


def ico_sphere(level: int = 0) -> Mesh:
    """Create a unit sphere by subdividing an icosahedron `level` times; it has 10 · 4^level + 2 vertices."""
    if level < 0:
        raise InputError(f"ico_sphere: `level` should be at least 0, got {level}")
    t = (1 + math.sqrt(5)) / 2
    points = [(-1, t, 0), (1, t, 0), (-1, -t, 0), (1, -t, 0)]
    corners = [(x, y, z)[-turn:] + (x, y, z)[:-turn] for turn in (3, 1, 2) for x, y, z in points]
    faces = [
        *[(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4)],
        *[(11, 10, 2), (10, 7, 6), (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8)],
        *[(3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1)],
    ]
    mesh = _onto_unit_sphere(Mesh(torch.tensor(corners), torch.tensor(faces)))
    for _ in range(level):
        mesh = _onto_unit_sphere(subdivide(mesh))
    return mesh


def cube() -> Mesh:
    """Create an axis-aligned cube of side 1 with twelve faces."""
    corners = [(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
    squares = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in squares for face in ((a, b, c), (a, c, d))]
    return Mesh(torch.tensor(corners), torch.tensor(faces))


def torus(radius: float = 1.0, tube_radius: float = 0.4, segments: int = 48, tube_segments: int = 24) -> Mesh:
    """Create a torus around the z axis: a tube of `tube_radius` around a circle of `radius`."""
    if not 0 < tube_radius < radius:
        raise InputError(f"torus: `tube_radius` should be between 0 and {radius}, got {tube_radius}")
    if min(segments, tube_segments) < 3:
        raise InputError(
            f"torus: `segments` and `tube_segments` should be at least 3, got {segments} and {tube_segments}"
        )
    around = torch.arange(segments)[:, None] * (2 * math.pi / segments)
    along = torch.arange(tube_segments) * (2 * math.pi / tube_segments)
    distance = radius + tube_radius * along.cos()
    height = (tube_radius * along.sin()).expand(segments, -1)
    vertices = torch.stack([distance * around.cos(), distance * around.sin(), height], -1).view(-1, 3)
    a = torch.arange(segments * tube_segments).view(segments, tube_segments)
    b, d = a.roll(-1, 0), a.roll(-1, 1)
    c = b.roll(-1, 1)
    return Mesh(vertices, torch.stack([a, b, c, a, c, d], -1).view(-1, 3))


def _onto_unit_sphere(mesh: Mesh) -> Mesh:
    return mesh.replace(vertices=as_rows(normalize(as_columns(mesh.vertices))))
