"""Scene contraction inside Warp kernels: the twin of `contraction`, one point at a time."""

import functools
from types import SimpleNamespace
from typing import Any

import warp as wp


@functools.cache
def contraction_functions(scalar: Any) -> SimpleNamespace:
    """Make the functions of one precision."""
    vec3 = wp.types.vector(3, scalar)

    @wp.func
    def max_norm(p: vec3):
        return wp.max(wp.abs(p[0]), wp.max(wp.abs(p[1]), wp.abs(p[2])))

    @wp.func
    def contract(p: vec3):
        """Map a point into [−2, 2]³; see `contraction.contract`."""
        r, scale = max_norm(p), scalar(1.0)
        if r > scalar(1.0):
            scale = (scalar(2.0) - scalar(1.0) / r) / r
        return scale * p

    @wp.func
    def contracted_step(o: vec3, d: vec3, t: scalar, step: scalar):
        """Return how far to advance a ray from distance t; see `contraction.contracted_steps`."""
        p, one, two = o + t * d, scalar(1.0), scalar(2.0)
        r = max_norm(p)
        if r <= one:
            return step
        outward = d[2] * wp.sign(p[2])
        if r == wp.abs(p[0]):
            outward = d[0] * wp.sign(p[0])
        elif r == wp.abs(p[1]):
            outward = d[1] * wp.sign(p[1])
        velocity = d * ((two - one / r) / r) + p * (outward * (two / r - two) / (r * r))
        length = wp.length(d)
        return wp.min(step * length / wp.length(velocity), r / (scalar(4.0) * length))

    return SimpleNamespace(max_norm=max_norm, contract=contract, contracted_step=contracted_step)
