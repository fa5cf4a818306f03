"""Checks what was read: all numbers are finite, and cameras and meshes are possible."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unrender import Camera, Mesh


class ImpossibleError(Exception):
    """A reader returned a value that cannot be used."""


def check(value: object, name: str = "value") -> None:
    """Raise ImpossibleError for a number that is not finite, wherever it is."""
    if isinstance(value, nn.Module):
        value = {**value.state_dict(), "extent": getattr(value, "scene_box", None)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fc":
        _require(bool(np.isfinite(value).all()), f"{name} is not finite")
    elif isinstance(value, Tensor) and value.is_floating_point():
        _require(bool(torch.isfinite(value).all()), f"{name} is not finite")
    elif isinstance(value, float):
        _require(math.isfinite(value), f"{name} is not finite: {value}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check(item, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for item in value:
            check(item, f"{name} of {type(value).__name__}" if not hasattr(value, "_fields") else name)
    elif dataclasses.is_dataclass(value) and not isinstance(value, Path):
        for field in dataclasses.fields(value):
            check(getattr(value, field.name), f"{name}.{field.name}")
    if isinstance(value, Camera):
        _require(
            bool((value.focal > 0).all()) and min(value.height, value.width) > 0, f"{name} has no extent"
        )
    if isinstance(value, Mesh) and value.faces.numel():
        low, high = value.faces.aminmax()
        _require(int(low) >= 0 and int(high) < value.vertices.shape[-2], f"{name} has faces without vertices")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ImpossibleError(message)
