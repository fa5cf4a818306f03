"""`Contents`: what a file of geometry holds, before it is a mesh or a cloud."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrender._checked import describe_value
from unrender.errors import InputError

Floats = NDArray[Any]
Indices = NDArray[Any]


class Contents(NamedTuple):
    """Points, and what the file says about them."""

    points: Floats
    """float32, or float64 where the file's numbers need it."""
    faces: Indices | None = None
    normals: Floats | None = None
    """As they stand in the file, of any length."""
    colors: Floats | None = None
    """RGB in [0, 1]."""


def narrowest(points: Floats) -> Floats:
    """Return text's numbers as float32, unless rounding would move a point by 1e-6 of the cloud's extent."""
    finite = points[np.isfinite(points).all(axis=1)]
    largest = float(np.abs(finite).max(initial=0.0))
    extent = float(np.linalg.norm(np.ptp(finite, axis=0))) if len(finite) > 1 else largest
    fits = not largest or (
        largest < np.finfo(np.float32).max and np.spacing(np.float32(largest)) <= 1e-6 * extent
    )
    return points.astype(np.float32) if fits else points


def unit_colors(colors: Floats) -> Floats:
    """Return RGB in [0, 1] from values in [0, 1] or 0..255."""
    fractions = colors.dtype.kind == "f" and bool((np.nan_to_num(colors) <= 1.0).all())
    rgb: Floats = colors.astype(np.float32) / np.float32(1.0 if fractions else 255.0)
    return rgb.clip(0.0, 1.0)


def floats_from_tensor(tensor: Tensor) -> Floats:
    """Return a tensor's values as float32 or float64, on the CPU."""
    wide = tensor.dtype == torch.float64
    return tensor.detach().to("cpu", torch.float64 if wide else torch.float32).numpy()


def rgb_from_tensor(colors: Tensor | None) -> Floats | None:
    """Return gray, RGB or RGBA as RGB in [0, 1]; opacity is dropped."""
    if colors is None:
        return None
    if colors.shape[-1] not in (1, 3, 4):
        raise InputError(f"colors have 1, 3 or 4 channels in a file, got {describe_value(colors)}")
    values = floats_from_tensor(colors)[:, :3].astype(np.float32)
    return np.clip(np.nan_to_num(np.broadcast_to(values, (len(values), 3))), 0.0, 1.0)
