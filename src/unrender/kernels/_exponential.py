"""Exponentials for compiled loops: in single precision without branches, so that they run on all lanes at once."""

import math

import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload


@intrinsic
def _float_from_bits(typing_context, bits):
    """Read 32 bits as a float."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


def exp(x):
    """Return e^x; in single precision |x| stays below 87."""
    raise NotImplementedError


def absorb(thickness):
    """Return what matter of an optical thickness takes away, 1 − e^−x, and what it lets through, e^−x."""
    raise NotImplementedError


def _power_of_two(x):
    raise NotImplementedError


@overload(_power_of_two, inline="always")
def _overload_power_of_two(x):
    def split32(x):
        """Cephes' expf: 2^n and q, where e^x = 2^n (1 + q)."""
        n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
        r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        return _float_from_bits((np.int32(n) + np.int32(127)) << np.int32(23)), p * r * r + r

    return split32


@overload(exp, inline="always")
def _overload_exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        power, rest = _power_of_two(x)
        return (rest + np.float32(1)) * power

    return exp32


@overload(absorb, inline="always")
def _overload_absorb(thickness):
    if thickness != types.float32:
        return lambda thickness: (-math.expm1(-thickness), math.exp(-thickness))

    def absorb32(thickness):
        """Thicker than 87 nothing is let through; the comparison leaves what is not a number alone."""
        opaque = thickness > np.float32(87)
        power, rest = _power_of_two(-(np.float32(87) if opaque else thickness))
        through = power * rest + power
        return np.float32(1) - power - power * rest, np.float32(0) if opaque else through

    return absorb32
