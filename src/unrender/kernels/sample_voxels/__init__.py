"""Trilinear interpolation in a sparse voxel grid."""

from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.kernels._dispatch import implementation
from unrender.kernels.march_voxels.table import VoxelTable
from unrender.kernels.sample_voxels import reference


@checked
def sample_voxels(
    values: Float[Tensor, " corners"],
    points: Float[Tensor, "points 3"],
    table: VoxelTable,
    *,
    outside: float,
) -> Float[Tensor, " points"]:
    """Interpolate values between the corners of the voxel at each point; where there is no voxel, return `outside`.

    Points are in voxels, from the lowest corner of the grid.
    Differentiable in: nothing.
    """
    fast = implementation("sample_voxels", values.device)
    arguments = (values.detach(), points.detach(), table, outside)
    return reference.forward(*arguments) if fast is None else fast.forward(*arguments)
