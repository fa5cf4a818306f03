"""What follows a product in a perceptron: activations, in place, and their slopes by what came out of them."""

import math

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

from unrender.kernels._exponential import absorb, exp
from unrender.kernels.tiny_mlp.reference import STEEPEST

NONE, RELU, SOFTPLUS, EXP, SIGMOID = range(5)
CODES = {"none": NONE, "relu": RELU, "softplus": SOFTPLUS, "exp": EXP, "sigmoid": SIGMOID}
STEEPEST_SLOPE = math.exp(STEEPEST)
SERIES = tuple(1 / k for k in range(15, 0, -2))


def _log1p(x):
    raise NotImplementedError


@overload(_log1p, jit_options={"fastmath": {"contract"}})
def _overload_log1p(x):
    if x != types.float32:
        return lambda x: math.log1p(x)

    def log32(x):
        """2 artanh(x / (2 + x)) by its series, for x from 0 to 1."""
        s = x / (np.float32(2) + x)
        square, total = s * s, np.float32(0)
        for factor in SERIES:
            total = total * square + np.float32(factor)
        return np.float32(2) * s * total

    return log32


def _safe_exp(x):
    raise NotImplementedError


@overload(_safe_exp, jit_options={"fastmath": {"contract"}})
def _overload_safe_exp(x):
    if x != types.float32:
        return lambda x: np.exp(x)

    def exp32(x):
        """Square e^(x/2), which can be computed wherever the square is neither 0 nor infinite."""
        half = x * np.float32(0.5)
        half = np.float32(80) if half > np.float32(80) else half
        root = exp(np.float32(-80) if half < np.float32(-80) else half)
        return root * root

    return exp32


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def activate(code, values):
    """Replace values by what the activation makes of them; relu was done with the product."""
    zero, one = values.dtype.type(0), values.dtype.type(1)
    if code == SOFTPLUS:
        for k in range(np.uint64(len(values))):
            values[k] = (values[k] if values[k] > zero else zero) + _log1p(_safe_exp(-abs(values[k])))
    elif code == EXP:
        for k in range(np.uint64(len(values))):
            values[k] = _safe_exp(values[k])
    elif code == SIGMOID:
        for k in range(np.uint64(len(values))):
            values[k] = one / (one + _safe_exp(-values[k]))


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def multiply_by_slope(code, found, slopes):
    """Multiply slopes by those of the activation, which are known from its results."""
    zero, one, most = slopes.dtype.type(0), slopes.dtype.type(1), slopes.dtype.type(STEEPEST_SLOPE)
    if code == RELU:
        for k in range(np.uint64(len(slopes))):
            slopes[k] = slopes[k] if found[k] > zero else zero
    elif code == SOFTPLUS:
        for k in range(np.uint64(len(slopes))):
            slopes[k] *= absorb(found[k])[0]
    elif code == EXP:
        for k in range(np.uint64(len(slopes))):
            slopes[k] *= most if found[k] > most else found[k]
    elif code == SIGMOID:
        for k in range(np.uint64(len(slopes))):
            slopes[k] *= found[k] * (one - found[k])
