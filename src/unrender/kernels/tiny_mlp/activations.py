"""What follows a product in a perceptron: activations, in place, and their slopes by what came out of them."""

import math

import numba
import numpy as np

from unrender.kernels._llvm.exponential import absorb, log1p, safe_exp
from unrender.kernels.tiny_mlp.reference import STEEPEST

NONE, RELU, SOFTPLUS, EXP, SIGMOID = range(5)
CODES = {"none": NONE, "relu": RELU, "softplus": SOFTPLUS, "exp": EXP, "sigmoid": SIGMOID}
STEEPEST_SLOPE = math.exp(STEEPEST)


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def activate(code, values):
    """Replace values by what the activation makes of them; relu was done with the product."""
    zero, one = values.dtype.type(0), values.dtype.type(1)
    if code == SOFTPLUS:
        for k in range(np.uint64(len(values))):
            values[k] = (values[k] if values[k] > zero else zero) + log1p(safe_exp(-abs(values[k])))
    elif code == EXP:
        for k in range(np.uint64(len(values))):
            values[k] = safe_exp(values[k])
    elif code == SIGMOID:
        for k in range(np.uint64(len(values))):
            values[k] = one / (one + safe_exp(-values[k]))


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
