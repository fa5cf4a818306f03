"""Rays in the coordinates of a voxel grid, and the parameters of ray marching."""

import dataclasses

from jaxtyping import Float
from torch import Tensor

from unrender._struct import TensorStruct


class GridRays(TensorStruct):
    """Rays origin + t · direction, with t from `t_near` to `t_far`."""

    origins: Float[Tensor, "rays 3"]
    """In voxels, from the lowest corner of the grid; of contracted rays, see `Strides`."""
    directions: Float[Tensor, "rays 3"]
    """In voxels per unit of t, of any length."""
    t_near: Float[Tensor, " rays"]
    t_far: Float[Tensor, " rays"]
    jitter: Float[Tensor, " rays"]
    """Position of the sample within each step, 0 to 1."""
    basis: Float[Tensor, "rays functions"]
    """Basis functions of the direction, such as spherical harmonics, of which colors are linear combinations."""


@dataclasses.dataclass(frozen=True)
class Strides:
    """Parameters of ray marching."""

    step: float
    """Distance between samples, in units of t."""
    skip: float = 0.0
    """Weight below which a sample is skipped."""
    stop: float = 0.0
    """Transmittance at which a ray terminates."""
    contracted: bool = False
    """If so, rays are in coordinates in which the inner cube of the scene is [−1, 1]³, and the grid fills the cube
    [−2, 2]³ of coordinates contracted as in Mip-NeRF 360 (Barron et al. 2022, eq. 10, with the maximum norm). Steps
    grow outside the inner cube."""
