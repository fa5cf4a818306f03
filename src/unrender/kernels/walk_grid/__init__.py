"""Walks through a grid that skip its empty voxels."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.walk_grid import reference


class Walk(NamedTuple):
    """Samples of all rays, one ray after another."""

    distances: Float[Tensor, " samples"]
    offsets: Int[Tensor, " bounds"]
    """Those of ray r are offsets[r] to offsets[r + 1]."""


@checked
def walk_grid(
    occupied: Bool[Tensor, "depth height width"],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near: Float[Tensor, " rays"],
    far: Float[Tensor, " rays"],
    counts: Int[Tensor, " rays"],
) -> Walk:
    """Put `counts` samples on each ray, evenly from near to far, and keep those in voxels that are not empty.

    Each sample is the middle of its part of the ray. Rays are in the frame of the grid, where voxel [k, j, i] reaches
    from (i, j, k) to (i, j, k) + 1; directions have any length, which is the unit of the distances. There is nothing
    outside of the grid.

    Differentiable in: nothing.
    """
    if not bool((near.isfinite() & far.isfinite()).all()):
        raise InputError("walk_grid: `near` and `far` should be finite; clip the rays to the grid")
    fast = implementation("walk_grid", occupied.device)
    arguments = [t.detach() for t in (occupied, origins, directions, near, far, counts)]
    return Walk(*(reference.forward(*arguments) if fast is None else fast.forward(*arguments)))
