"""Stanford PLY."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.errors import InputError
from unrender.io.files import FilePath, atomic_write, read_bytes, reading
from unrender.io.geometry_data import GeometryData, check_finite
from unrender.io.ply import read_ply, write_ply


def load_ply(f: FilePath, *, path_manager: Any = None) -> tuple[Tensor, Tensor]:
    """Load vertices [V, 3] and faces [F, 3]; polygons are triangulated."""
    data = read_bytes(f)
    with reading(f):
        geometry = read_ply(data)
        check_finite(geometry.points, "vertex")
    faces = np.empty((0, 3), np.int64) if geometry.faces is None else geometry.faces.astype(np.int64)
    return torch.from_numpy(geometry.points.astype(np.float32)), torch.from_numpy(faces)


def save_ply(
    f: FilePath,
    verts: Tensor,
    faces: Tensor | None = None,
    verts_normals: Tensor | None = None,
    ascii: bool = False,
    decimal_places: int | None = None,
    path_manager: Any = None,
) -> None:
    """Save vertices, and faces and normals if given, atomically."""
    if verts.dim() != 2 or verts.shape[1] != 3:
        raise InputError(f"save_ply: `verts` should be [V, 3], got {list(verts.shape)}")
    arrays = [
        None if t is None or not t.numel() else t.detach().cpu().numpy() for t in (faces, verts_normals)
    ]
    points = verts.detach().cpu().numpy()
    with atomic_write(f) as file:
        if not ascii:
            write_ply(file, GeometryData(points, arrays[0], arrays[1]))
            return
        digits = "%.9g" if decimal_places is None else f"%.{decimal_places}f"
        names = ["x", "y", "z"] + (["nx", "ny", "nz"] if arrays[1] is not None else [])
        header = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
        header += [f"property float {name}" for name in names]
        if arrays[0] is not None:
            header += [f"element face {len(arrays[0])}", "property list uchar int vertex_indices"]
        file.write("\n".join([*header, "end_header", ""]).encode())
        np.savetxt(file, points if arrays[1] is None else np.hstack([points, arrays[1]]), digits)
        if arrays[0] is not None:
            np.savetxt(file, arrays[0], "3 %d %d %d")


__getattr__ = refuse_unknown(__name__)
