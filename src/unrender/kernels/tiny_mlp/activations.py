"""Activation functions in place, and their derivatives as functions of their results."""

import math

import numba
import numpy as np

from unrender.kernels._llvm.exponential import absorb, log1p, safe_exp
from unrender.kernels.tiny_mlp.reference import MAX_EXPONENT

NONE, RELU, SOFTPLUS, EXP, SIGMOID = range(5)
CODES = {"none": NONE, "relu": RELU, "softplus": SOFTPLUS, "exp": EXP, "sigmoid": SIGMOID}
MAX_DERIVATIVE = math.exp(MAX_EXPONENT)


@numba.njit(cache=True, error_model="numpy", fastmath={"contract"})
def activate(code, values):
    """Apply an activation in place; relu is fused with the matrix product."""
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
def activate_backward(code, results, gradients):
    """Multiply gradients by the derivative of the activation, computed from its results `results`."""
    zero, one, maximum = (
        gradients.dtype.type(0),
        gradients.dtype.type(1),
        gradients.dtype.type(MAX_DERIVATIVE),
    )
    if code == RELU:
        for k in range(np.uint64(len(gradients))):
            gradients[k] = gradients[k] if results[k] > zero else zero
    elif code == SOFTPLUS:
        for k in range(np.uint64(len(gradients))):
            gradients[k] *= absorb(results[k])[0]
    elif code == EXP:
        for k in range(np.uint64(len(gradients))):
            gradients[k] *= maximum if results[k] > maximum else results[k]
    elif code == SIGMOID:
        for k in range(np.uint64(len(gradients))):
            gradients[k] *= results[k] * (one - results[k])
