"""Exponentials for compiled loops; branch-free in single precision, so that they vectorize."""

import math

import numpy as np
from numba.core import types
from numba.extending import overload

from unrender.kernels._llvm.bits import float_from_bits

SERIES = tuple(1 / k for k in range(15, 0, -2))


def exp(x):
    """Compute e^x; in single precision for |x| < 87."""
    raise NotImplementedError


def absorb(thickness):
    """Compute the alpha 1 − e^−x and the transmittance e^−x of an optical thickness x."""
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
        return float_from_bits((np.int32(n) + np.int32(127)) << np.int32(23)), p * r * r + r

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
        """Clamp the thickness at 87, where the transmittance vanishes; NaN is preserved."""
        opaque = thickness > np.float32(87)
        power, rest = _power_of_two(-(np.float32(87) if opaque else thickness))
        through = power * rest + power
        return np.float32(1) - power - power * rest, np.float32(0) if opaque else through

    return absorb32


def log1p(x):
    """Return ln(1 + x); in single precision for x from 0 to 1."""
    raise NotImplementedError


@overload(log1p, jit_options={"fastmath": {"contract"}})
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


def safe_exp(x):
    """Return e^x for any x."""
    raise NotImplementedError


@overload(safe_exp, jit_options={"fastmath": {"contract"}})
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
