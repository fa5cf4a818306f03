"""Surfaces of volumes, with the vertices and faces of PyTorch3D in the same order."""

import functools
import itertools

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.errors import InputError


def marching_cubes(
    vol_batch: Tensor, isolevel: float | None = None, return_local_coords: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    """Extract the surface of each volume [N, D, H, W], at a level, or halfway between its extremes.

    Vertices are x, y, z: from −1 to 1 along each axis, or in voxels. Volumes without surface give tensors [0].
    Source: Lorensen and Cline 1987.
    """
    if vol_batch.dim() != 4:
        raise InputError(f"marching_cubes: `vol_batch` should be [N, D, H, W], got {list(vol_batch.shape)}")
    if not bool(vol_batch.isfinite().all()):
        raise InputError("marching_cubes: `vol_batch` should be finite")
    verts, faces = [], []
    last = torch.tensor(vol_batch.shape[:0:-1], device=vol_batch.device) - 1
    for values in vol_batch.detach().float():
        level = float((values.max() + values.min()) / 2) if isolevel is None else isolevel
        found, triangles = _surface(values, level)
        verts.append(2 * found / last - 1 if return_local_coords and len(found) else found)
        faces.append(triangles)
    return verts, faces


def _surface(values: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Return vertices x, y, z in voxels, numbered as the faces use them, and faces, cell by cell."""
    triangles = _crossed_edges(values < level)
    low, high = triangles // 2, (triangles + 1) // 2
    at_low, at_high = (values[tuple(ends.unbind(-1))] for ends in (low, high))
    part = (level - at_low) / (at_high - at_low)
    corners = low + part[..., None] * (high - low)
    # where a value equals the level, faces can shrink to lines or points
    extended = (corners != corners.roll(1, 1)).any(-1).all(-1)
    triangles, corners = triangles[extended], corners[extended]
    if not len(triangles):
        return values.new_zeros(0), triangles.new_zeros(0)
    z, y, x = triangles.flatten(0, 1).unbind(1)
    edges, edge = torch.unique((z * 2 * values.shape[1] + y) * 2 * values.shape[2] + x, return_inverse=True)
    uses = torch.arange(len(edge), device=edge.device)
    first = torch.full_like(edges, len(edge)).scatter_reduce(0, edge, uses, "amin")
    order = first.argsort()
    return corners.flatten(0, 1)[first[order]].flip(-1), order.argsort()[edge].view(-1, 3)


def _crossed_edges(inside: Tensor) -> Tensor:
    """Return the midpoints z, y, x, in half voxels, of the edges [faces, 3, 3] that the corners of faces lie on."""
    codes = torch.zeros([side - 1 for side in inside.shape], dtype=torch.uint8, device=inside.device)
    for bit, (z, y, x) in enumerate(itertools.product(range(2), repeat=3)):
        depth, height, width = codes.shape
        codes += inside[z : z + depth, y : y + height, x : x + width].to(torch.uint8) << bit
    cells = ((codes > 0) & (codes < 255)).nonzero()
    table = _triangles_of_cells().to(inside.device)
    midpoints = table[codes[tuple(cells.unbind(1))].long()]
    cell, face = (midpoints[:, :, 0, 0] >= 0).nonzero(as_tuple=True)
    return midpoints[cell, face] + 2 * cells[cell, None]


@functools.cache
def _triangles_of_cells() -> Tensor:
    """Return the faces [256, 5, 3, 3] of a cell for each set of corners inside, as midpoints of edges, or −1."""
    from skimage.measure import marching_cubes as extract

    table = torch.full((256, 5, 3, 3), -1, dtype=torch.int8)
    for code in range(1, 255):
        cell = (code >> torch.arange(8)) % 2
        # the axes z and y of PyTorch3D's cells are exchanged in those of scikit-image
        values = cell.view(2, 2, 2).transpose(0, 1).float().numpy()
        vertices, faces, _, _ = extract(values, 0.5, method="lorensen", gradient_direction="ascent")
        midpoints = torch.from_numpy((2 * vertices[faces]).round())[..., [1, 0, 2]]
        table[code, : len(faces)] = midpoints
    return table


marching_cubes_naive = marching_cubes


__getattr__ = refuse_unknown(__name__)
