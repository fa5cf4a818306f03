"""Surfaces of volumes."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.geometry.marching_cubes import marching_cubes as extract


def marching_cubes(
    vol_batch: Tensor, isolevel: float | None = None, return_local_coords: bool = True
) -> tuple[list[Tensor], list[Tensor]]:
    """Extract the surface of each volume [N, D, H, W], at a level, or halfway between its extremes.

    Vertices are x, y, z: from −1 to 1 along each axis, or in voxels. Volumes without surface give empty tensors.
    Vertices and faces are those of PyTorch3D in another order: compare surfaces by distances or areas, not by indices.
    """
    if vol_batch.dim() != 4:
        raise ValueError(f"marching_cubes: `vol_batch` should be [N, D, H, W], got {list(vol_batch.shape)}")
    verts, faces = [], []
    last = torch.tensor(vol_batch.shape[:0:-1], device=vol_batch.device) - 1
    for values in vol_batch.detach():
        level = float((values.max() + values.min()) / 2) if isolevel is None else isolevel
        mesh = extract(values.float(), level)
        found = mesh.vertices
        verts.append(2 * found / last - 1 if return_local_coords else found)
        faces.append(mesh.faces)
    return verts, faces


marching_cubes_naive = marching_cubes


__getattr__ = refuse_unknown(__name__)
