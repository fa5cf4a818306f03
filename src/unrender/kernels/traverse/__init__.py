"""Ray traversal of an occupancy grid, in bounded or contracted space: samples in occupied cells."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.traverse import reference
from unrender.kernels.traverse.cells import BLOCK as BLOCK
from unrender.kernels.traverse.cells import CellGrid as CellGrid
from unrender.kernels.traverse.cells import blocks_of as blocks_of


class Traversal(NamedTuple):
    """Samples of all rays, one ray after another."""

    distances: Float[Tensor, " samples"]
    lengths: Float[Tensor, " samples"]
    """Lengths of the steps that contain the samples."""
    offsets: Int[Tensor, " bounds"]
    """The samples of ray r are offsets[r] to offsets[r + 1]."""


@checked
def traverse(
    grid: CellGrid,
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    t_near: Float[Tensor, " rays"],
    t_far: Float[Tensor, " rays"],
    steps: Float[Tensor, " rays"],
    jitter: Float[Tensor, " rays"],
    *,
    capacity: int | None = None,
) -> Traversal:
    """Sample rays in regular steps from t_near to t_far, and keep the samples that lie in occupied cells.

    The unit of distances and steps is the length of a ray's direction. Each sample lies at the fraction `jitter`, from
    0 to less than 1, of its step. In contracted space, steps outside the box grow so that all have the same length in
    contracted coordinates. Rays with NaN have no samples.

    capacity: length of the returned rows, which then needs no synchronization with a GPU. Only the first offsets[-1]
    entries are valid; samples beyond the capacity are dropped: check that offsets[-1] ≤ capacity. Inputs are
    not checked; rays of infinite intervals, or of steps ≤ 0, have no samples.
    Differentiable in: nothing.
    """
    if capacity is None:
        if not bool((steps > 0).all()):
            raise InputError("traverse: `steps` should be lengths > 0")
        if bool((t_near.isinf() | t_far.isinf()).any()):
            raise InputError("traverse: `t_near` and `t_far` should be finite; clip the rays to the box")
    fast = implementation("traverse", origins.device)
    forward = reference.forward if fast is None else fast.forward
    origins, directions, t_near, t_far = (t.detach() for t in (origins, directions, t_near, t_far))
    grid, steps, jitter = grid.detach(), steps.detach(), jitter.detach()
    return Traversal(*forward(grid, origins, directions, t_near, t_far, steps, jitter, capacity))
