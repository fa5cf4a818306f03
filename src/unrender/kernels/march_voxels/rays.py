"""Rays in the units of a grid of voxels, and how to march along them."""

import dataclasses

from jaxtyping import Float
from torch import Tensor

from unrender._struct import TensorStruct


class GridRays(TensorStruct):
    """Points origin + t · direction, with t from `near` to `far`."""

    origins: Float[Tensor, "rays 3"]
    """In voxels: the grid begins at 0. Of contracted rays, see `Strides`."""
    directions: Float[Tensor, "rays 3"]
    """In voxels per unit of t, of any length."""
    near: Float[Tensor, " rays"]
    far: Float[Tensor, " rays"]
    jitter: Float[Tensor, " rays"]
    """Where in each step the sample lies, 0 to 1."""
    basis: Float[Tensor, "rays functions"]
    """Functions of the direction, which colors are sums of."""


@dataclasses.dataclass(frozen=True)
class Strides:
    """How to march."""

    step: float
    """Of t, from sample to sample."""
    skip: float = 0.0
    """A sample of a weight below this counts as nothing."""
    stop: float = 0.0
    """A ray ends where it lets through no more than this."""
    contracted: bool = False
    """Rays are in units in which the scene's inner cube is [−1, 1]³. The grid is a cube that holds all space, bent by
    the contraction of Mip-NeRF 360 (Barron et al. 2022, eq. 10, with the largest coordinate for the norm); the inner
    cube fills half of its side. Steps lengthen outside."""
