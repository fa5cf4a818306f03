"""Scene contraction inside numba kernels: the twin of `contraction`, one point at a time."""

import numba
import numpy as np


@numba.njit(inline="always", error_model="numpy")
def contract(x, y, z):
    """Map a point into [−2, 2]³; see `contraction.contract`."""
    r = max(abs(x), abs(y), abs(z))
    scale = x * 0 + 1
    if r > scale:
        scale = (2 - 1 / r) / r
    return x * scale, y * scale, z * scale


@numba.njit(inline="always", error_model="numpy")
def contracted_step(ox, oy, oz, dx, dy, dz, t, step):
    """Return how far to advance a ray from distance t; see `contraction.contracted_steps`."""
    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    r = max(abs(x), abs(y), abs(z))
    if r <= 1:
        return step
    if r == abs(x):
        outward = dx if x > 0 else -dx
    elif r == abs(y):
        outward = dy if y > 0 else -dy
    else:
        outward = dz if z > 0 else -dz
    scale, turn = (2 - 1 / r) / r, outward * (2 / r - 2) / (r * r)
    vx, vy, vz = dx * scale + x * turn, dy * scale + y * turn, dz * scale + z * turn
    length = np.sqrt(dx * dx + dy * dy + dz * dz)
    speed = np.sqrt(vx * vx + vy * vy + vz * vz)
    return min(step * length / speed, r / (4 * length))
