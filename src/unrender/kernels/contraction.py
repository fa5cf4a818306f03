"""Scene contraction of Mip-NeRF 360 with the maximum norm: all space in a cube, in plain torch.

Twins of these functions for kernels: `_contraction_cpu` (numba) and `_contraction_warp`.
Source: Barron et al. 2022, eq. 10.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def contract(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Map space into [−2, 2]³: x where r = max |x| ≤ 1, else (2 − 1 / r) x / r.

    Differentiable in: points.
    """
    r = points.abs().amax(-1, keepdim=True).clamp(min=1)
    return points * (2 - 1 / r) / r


def uncontract(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Return the inverse of `contract`; the faces of the cube lie infinitely far away.

    Differentiable in: points.
    """
    r = points.abs().amax(-1, keepdim=True).clamp(min=1)
    return points / (r * (2 - r))


def contracted_steps(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    t: Float[Tensor, " rays"],
    step: Float[Tensor, " rays"] | float,
) -> Float[Tensor, " rays"]:
    """Return how far to advance from `t`, so that all steps have the same length in contracted space.

    That length is `step` · |direction|: within the inner cube, steps are `step` long. Far out, a step is limited to a
    quarter of the distance to the center, since along it the contraction changes.
    """
    points = origins + t[:, None] * directions
    r, axis = points.abs().max(-1, keepdim=True)
    outward = directions.gather(-1, axis) * points.gather(-1, axis).sign()
    velocity = directions * (2 - 1 / r) / r + points * outward * (2 / r - 2) / r**2
    length = directions.norm(dim=-1)
    outside = torch.minimum(step * length / velocity.norm(dim=-1), r[:, 0] / (4 * length))
    return torch.where(r[:, 0] > 1, outside, step)
