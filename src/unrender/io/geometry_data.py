"""`GeometryData`: the content of a geometry file before it becomes a mesh or a point cloud."""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrender._checked import describe_value
from unrender.errors import FileFormatError, InputError
from unrender.io.files import FilePath

Floats = NDArray[Any]
Indices = NDArray[Any]


FRACTION_LIMIT = 1.5
"""Floats up to this value are fractions, some of them slightly above 1; as values of 0 to 255 they would be black."""


DARK = 0.1
"""Fraction of a range below which the largest color is too small for it: an image of such colors looks black."""
NEGATIVE_LIMIT = 0.05
"""Fractions slightly below 0 are due to filters; those further below are not colors in [0, 1]."""


class GeometryData(NamedTuple):
    """Points with the attributes that a file has for them."""

    points: Floats
    """float32, or float64 if the file's numbers need it."""
    faces: Indices | None = None
    normals: Floats | None = None
    """As stored in the file, of any length."""
    colors: Floats | None = None
    """RGB in [0, 1]."""
    vertex_values: Mapping[str, Floats] = MappingProxyType({})
    """Further values of each point by name, which are written to PLY files."""
    columns: str = ""
    """For tables of more than three columns: which of them were used for what."""


def narrow_dtype(points: Floats) -> Floats:
    """Convert points to float32, unless rounding would move a point by 1e-6 of the extent of the cloud."""
    finite = points[np.isfinite(points).all(axis=1)]
    largest = float(np.abs(finite).max(initial=0.0))
    extent = float(np.linalg.norm(np.ptp(finite, axis=0))) if len(finite) > 1 else largest
    fits = not largest or (
        largest < np.finfo(np.float32).max and np.spacing(np.float32(largest)) <= 1e-6 * extent
    )
    return points.astype(np.float32) if fits else points


def normalize_colors(colors: Floats) -> Floats:
    """Normalize RGB values to [0, 1]: fractions, 0..255, or 0..65535 if any is above 255.

    Values that would be nearly black in the range they fit, such as 0..2.55 or those of 12 bits, are divided by the
    largest one; a warning says so. Raises FileFormatError for larger values.
    """
    largest = float(np.nan_to_num(colors, posinf=0.0, neginf=0.0).max(initial=0))
    if largest > np.iinfo(np.uint16).max:
        raise FileFormatError(f"colors should be at most 1, 255 or 65535, got {largest:g}")
    fractions = colors.dtype.kind == "f" and largest <= FRACTION_LIMIT
    highest = 1.0 if fractions else 255.0 if largest <= 255 else 65535.0
    is_unusual = highest == 65535 or (highest == 255 and colors.dtype.kind == "f" and not _are_whole(colors))
    log = logging.getLogger("unrender")
    if is_unusual and largest < DARK * highest:
        log.warning(
            "colors up to %g do not fit the usual ranges up to 1, 255 and 65535: divided by the largest",
            largest,
        )
        highest = largest
    rgb: Floats = colors.astype(np.float32) / np.float32(highest)
    if bool((rgb < -NEGATIVE_LIMIT).any()):
        log.warning(
            "colors below 0, down to %g, are read as black; fractions should be 0 to 1", np.nanmin(colors)
        )
    return rgb.clip(0.0, 1.0)


def _are_whole(values: Floats) -> bool:
    finite = values[np.isfinite(values)]
    return bool((finite == np.rint(finite)).all())


def check_finite(values: Floats, what: str) -> None:
    """Raise FileFormatError if a row is not finite in single precision."""
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(values.astype(np.float32)).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise FileFormatError(f"{what} {row + 1} is not finite in single precision: {values[row]}")


def check_colors(geometry: GeometryData, path: FilePath) -> None:
    """Raise FileFormatError if a color is not finite."""
    if geometry.colors is not None and not np.isfinite(geometry.colors).all():
        row = int((~np.isfinite(geometry.colors).all(axis=1)).argmax())
        raise FileFormatError(f"{path}: the color of point {row + 1} is not finite: {geometry.colors[row]}")


def floats_from_tensor(tensor: Tensor) -> Floats:
    """Convert a tensor to an array of float32 or float64."""
    wide = tensor.dtype == torch.float64
    return tensor.detach().to("cpu", torch.float64 if wide else torch.float32).numpy()


def rgb_from_tensor(colors: Tensor | None) -> Floats | None:
    """Convert gray, RGB or RGBA to RGB in [0, 1]; alpha is dropped."""
    if colors is None:
        return None
    if colors.shape[-1] not in (1, 3, 4):
        raise InputError(f"colors should have 1, 3 or 4 channels to be saved, got {describe_value(colors)}")
    values = floats_from_tensor(colors)[:, :3].astype(np.float32)
    return np.clip(np.nan_to_num(np.broadcast_to(values, (len(values), 3))), 0.0, 1.0)
