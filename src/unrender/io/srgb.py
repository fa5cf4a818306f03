"""The transfer function of sRGB: images and other mesh formats hold sRGB, vertex colors of glTF are linear."""

import numpy as np

from unrender.io.geometry_data import Floats


def linear_from_srgb(colors: Floats) -> Floats:
    """Convert sRGB to linear RGB, both in [0, 1]. Source: IEC 61966-2-1."""
    linear: Floats = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    return linear


def srgb_from_linear(colors: Floats) -> Floats:
    """Convert linear RGB to sRGB, both in [0, 1]; the inverse of `linear_from_srgb`."""
    srgb: Floats = np.where(colors <= 0.0031308, 12.92 * colors, 1.055 * colors ** (1 / 2.4) - 0.055)
    return srgb
