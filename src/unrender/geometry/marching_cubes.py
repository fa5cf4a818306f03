"""Surfaces of constant value in a grid."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh


@checked
def marching_cubes(values: Float[Tensor, "depth height width"], level: float) -> Mesh:
    """Extract the surface where a grid of values crosses `level`, with normals towards lower values.

    Vertices are (x, y, z) = (column, row, slice) of the grid, 0 at the center of the first voxel: multiply by the voxel
    size, and add the origin, for world units. A grid that does not cross the level gives an empty mesh.

    Example: `marching_cubes(1 - points.norm(dim=-1), 0.0)` is a sphere.
    Differentiable in: nothing. Source: Lorensen and Cline 1987; Lewiner et al. 2003.
    """
    if min(values.shape) < 2 or not bool(torch.isfinite(values).all()):
        raise InputError(
            f"marching_cubes: `values` should be finite, at least 2 along each axis, got {list(values.shape)}"
        )
    device = values.device
    low, high = (float(x) for x in values.aminmax())
    if not low < level < high:
        return Mesh(torch.zeros(0, 3, device=device), torch.zeros(0, 3, dtype=torch.int64, device=device))
    from skimage.measure import marching_cubes as extract

    found, faces, _, _ = extract(values.detach().cpu().float().numpy(), level, gradient_direction="descent")
    vertices = torch.from_numpy(found[:, ::-1].copy()).float()
    return Mesh(vertices.to(device), torch.from_numpy(faces.astype("int64")).to(device))
