"""Several meshes in one OBJ file, such as the parts of a collision mesh."""

from collections.abc import Sequence

import numpy as np

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.io.files import FilePath, atomic_write
from unrender.io.formats import known_suffix
from unrender.io.geometry_data import floats_from_tensor


def save_mesh_parts(meshes: Sequence[Mesh], path: FilePath) -> None:
    """Save meshes to an obj file, atomically, as objects named part_0, part_1, ….

    Physics engines such as Bullet and MuJoCo read each object as a convex shape.
    """
    known_suffix(path, (".obj",))
    if not meshes or any(mesh.vertices.ndim != 2 or len(mesh.faces) == 0 for mesh in meshes):
        raise InputError(f"save_mesh_parts: cannot save to {path}: expected meshes with faces")
    first = 1
    with atomic_write(path) as file:
        for i, mesh in enumerate(meshes):
            points = floats_from_tensor(mesh.vertices)
            digits = "%.17g" if points.dtype == np.float64 else "%.9g"
            file.write(f"o part_{i}\n".encode())
            np.savetxt(file, points, f"v {digits} {digits} {digits}")
            np.savetxt(file, mesh.faces.cpu().numpy() + first, "f %d %d %d")
            first += len(points)
