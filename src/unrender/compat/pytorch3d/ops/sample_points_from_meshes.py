"""Random points on surfaces."""

import itertools
from typing import Any

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer._fragments import Fragments
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.structures.utils import stack
from unrender.errors import InputError
from unrender.geometry.sample import sample_points_from_mesh
from unrender.kernels._dispatch import can_read


def sample_points_from_meshes(
    meshes: Meshes, num_samples: int = 10000, return_normals: bool = False, return_textures: bool = False
) -> Any:
    """Draw points [N, num_samples, 3] uniformly over each surface, and, if requested, their normals and colors.

    Meshes without faces give zeros. Sampling is stratified by area: each stratum has one point, which is more even than
    independent draws are.
    """
    if meshes.isempty():
        raise InputError("sample_points_from_meshes: Meshes are empty.")
    if return_textures and meshes.textures is None:
        raise InputError("sample_points_from_meshes: Meshes do not contain textures.")
    verts = meshes.verts_packed()
    if can_read(verts) and not bool(verts.isfinite().all()):
        raise InputError("sample_points_from_meshes: Meshes contain nan or inf.")
    columns: tuple[list[Tensor], ...] = ([], [], [], [])
    starts = itertools.accumulate((len(faces) for faces in meshes.faces_list()), initial=0)
    for mesh, start in zip(meshes.core(), starts, strict=False):
        if len(mesh.faces) == 0:
            empty = mesh.vertices.new_zeros(num_samples, 3)
            parts = (empty, empty, torch.full((num_samples,), -1, device=meshes.device), empty)
        else:
            found = sample_points_from_mesh(mesh, num_samples)
            face_ids = found.face_ids + start if start else found.face_ids
            parts = (found.points, found.normals, face_ids, found.barycentric)
        for column, part in zip(columns, parts, strict=True):
            column.append(part)
    points, normals, face_ids, weights = (stack(column) for column in columns)
    results = [points]
    if return_normals:
        results.append(normals)
    if return_textures:
        pixels = face_ids[:, :, None, None]
        fragments = Fragments(pixels, pixels.to(points), weights[:, :, None, None], None)
        results.append(meshes.sample_textures(fragments)[:, :, 0, 0])
    return results[0] if len(results) == 1 else tuple(results)


def _rand_barycentric_coords(
    size1: int, size2: int, dtype: torch.dtype, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw barycentric coordinates [size1, size2] uniformly over a triangle."""
    u, v = torch.rand(2, size1, size2, dtype=dtype, device=device)
    root = u.sqrt()
    return 1 - root, root * (1 - v), root * v


__getattr__ = refuse_unknown(__name__)
