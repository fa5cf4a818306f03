"""Where rays through a sparse grid of voxels meet something."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.kernels._dispatch import implementation
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.table import VoxelTable
from unrender.kernels.walk_voxels import reference


class VoxelWalk(NamedTuple):
    """Samples of all rays, one ray after another."""

    distances: Float[Tensor, " samples"]
    lengths: Float[Tensor, " samples"]
    """How long the step is in which the sample lies."""
    offsets: Int[Tensor, " bounds"]
    """Those of ray r are offsets[r] to offsets[r + 1]."""


@checked
def walk_voxels(
    rays: GridRays, log_density: Float[Tensor, " corners"], table: VoxelTable, strides: Strides
) -> VoxelWalk:
    """List the samples that `march_voxels` would add up, in its steps: those in voxels, of a weight that counts.

    Differentiable in: nothing.
    """
    fast = implementation("walk_voxels", log_density.device)
    arguments = (rays.detach(), log_density.detach(), table, strides)
    return VoxelWalk(*(reference.forward(*arguments) if fast is None else fast.forward(*arguments)))
