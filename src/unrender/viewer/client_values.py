"""Values that a page sends, clamped: a page, or what poses as one, can send anything."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Choice = TypeVar("Choice", bound=str)
MAX_COORDINATE = 1e9
"""Largest coordinate of a position; beyond, the pixels of a view do not differ in single precision."""
MAX_PIXELS = 1 << 14
"""Longest side of a page."""
FOVS = (1e-3, math.pi - 1e-2)
"""Fields of view in radians."""


class ClientView(NamedTuple):
    """What a page shows: always possible, whatever was sent."""

    position: Tensor
    quaternion: Tensor
    """Of unit length, scalar first."""
    fov: float
    """Vertical, in radians."""
    height: int
    width: int


def client_view(camera: object) -> ClientView:
    """Return the view of a page's camera; what is not a number, or not possible, is replaced by a default."""
    quaternion = client_vector(getattr(camera, "wxyz", None), 4, 1e6)
    if not float(quaternion.norm()) > 1e-6:
        quaternion = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    height, width = (
        int(client_number(getattr(camera, f"image_{side}", None), 1, MAX_PIXELS, 1))
        for side in ("height", "width")
    )
    return ClientView(
        client_vector(getattr(camera, "position", None), 3, MAX_COORDINATE),
        quaternion / quaternion.norm(),
        client_number(getattr(camera, "fov", None), *FOVS, 1.0),
        height,
        width,
    )


def client_number(value: object, low: float, high: float, default: float) -> float:
    """Return a number clamped to a range; the default if it is no number."""
    if not isinstance(value, int | float) or math.isnan(value):
        return default
    return float(min(max(value, low), high))


def client_choice(value: object, choices: tuple[Choice, ...]) -> Choice:
    """Return the choice that was sent; the first one if it is none of them."""
    return next((choice for choice in choices if isinstance(value, str) and value == choice), choices[0])


def client_vector(values: object, length: int, bound: float) -> Tensor:
    """Return so many numbers, clamped to ± a bound, in double precision; zeros if they are something else."""
    items = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(items, Sequence) or len(items) != length:
        items = [0.0] * length
    return torch.tensor([client_number(item, -bound, bound, 0.0) for item in items], dtype=torch.float64)


def client_range(values: object, low: float, high: float) -> tuple[float, float]:
    """Return two ascending numbers in a range; the whole range if they are something else."""
    if not isinstance(values, Sequence) or len(values) != 2:
        return low, high
    first, last = client_number(values[0], low, high, low), client_number(values[1], low, high, high)
    return min(first, last), max(first, last)
