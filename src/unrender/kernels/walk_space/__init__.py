"""Walks through bounded or contracted space that skip what is empty."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.walk_space import reference
from unrender.kernels.walk_space.blocks import BLOCK
from unrender.kernels.walk_space.blocks import blocks_of as blocks_of


class SpaceWalk(NamedTuple):
    """Samples of all rays, one ray after another."""

    distances: Float[Tensor, " samples"]
    lengths: Float[Tensor, " samples"]
    """Of the steps in which they lie."""
    offsets: Int[Tensor, " bounds"]
    """Those of ray r are offsets[r] to offsets[r + 1]."""


@checked
def walk_space(
    occupied: Bool[Tensor, "side side side"],
    blocks: Bool[Tensor, "blocks blocks blocks"],
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    near: Float[Tensor, " rays"],
    far: Float[Tensor, " rays"],
    jitter: Float[Tensor, " rays"],
    *,
    step: float,
    contracted: bool = False,
) -> SpaceWalk:
    """Go along rays step by step from near to far, look once in each step, and keep what is in occupied cells.

    Rays are in the frame in which the cube [−1, 1]³ is what the cells fill, `occupied` by x, y, z; `blocks` are
    `blocks_of(occupied)`. Directions have any length, which is the unit of distances and of `step`. Each sample lies at
    the share `jitter` of its step. Where space is contracted, the cells fill all of it: the cube is the inner half, and
    steps outside grow so that they are as long in contracted space as inside. Nothing is sampled along rays of nan.

    Differentiable in: nothing.
    """
    if not step > 0:
        raise InputError(f"walk_space: `step` should be a length > 0, got {step}")
    if bool((near.isinf() | far.isinf()).any()):
        raise InputError(
            "walk_space: `near` and `far` should be finite; clip the rays to what is of interest"
        )
    if len(blocks) != -(-len(occupied) // BLOCK):
        raise InputError(f"walk_space: `blocks` should be blocks_of(occupied), got {list(blocks.shape)}")
    fast = implementation("walk_space", occupied.device)
    origins, directions, near, far, jitter = (t.detach() for t in (origins, directions, near, far, jitter))
    given = (origins, directions, near, far, jitter, step, contracted)
    found = reference.forward(occupied, *given) if fast is None else fast.forward(occupied, blocks, *given)
    return SpaceWalk(*found)
