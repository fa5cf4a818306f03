"""Arc cosine with a finite gradient."""

import math

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown

DEFAULT_ACOS_BOUND = 1.0 - 1e-4


def acos_linear_extrapolation(
    x: Tensor, bounds: tuple[float, float] = (-DEFAULT_ACOS_BOUND, DEFAULT_ACOS_BOUND)
) -> Tensor:
    """Return arccos(x) between the bounds, continued linearly, with its slope there, beyond them."""
    low, high = bounds
    if low > high:
        raise ValueError("lower bound has to be smaller or equal to upper bound.")
    if low <= -1 or high >= 1:
        raise ValueError("Both lower bound and upper bound have to be within (-1, 1).")
    inner = torch.acos(x.clamp(low, high))
    beyond = torch.zeros_like(x)
    for bound, outside in ((low, x < low), (high, x > high)):
        slope = -1 / math.sqrt(1 - bound**2)
        beyond = beyond + torch.where(outside, (x - bound) * slope, 0)
    return inner + beyond


__getattr__ = refuse_unknown(__name__)
