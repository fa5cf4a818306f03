"""Checks of a saved state: damaged files are refused before training continues with them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unrender.errors import FileFormatError

MAX_NUMBER = 1e30
"""Largest number; much larger ones are not finite in float32."""
MOMENTS = ("exp_avg", "exp_avg_sq")


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise FileFormatError unless tensors have the names, types and shapes of `expected`, and finite values."""
    if mismatched := sorted(tensors.keys() ^ expected.keys()):
        raise FileFormatError(f"it lacks or should not have {', '.join(mismatched)}")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, expected[name])


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise FileFormatError for values that are not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FileFormatError(f"{name} has values that are not finite")


def check_counts(numbers: Mapping[str, Any], expected: Mapping[str, int | float]) -> None:
    """Raise FileFormatError unless numbers have the names of `expected`, and are counts or finite, as those are."""
    if mismatched := sorted(numbers.keys() ^ expected.keys()):
        raise FileFormatError(f"it lacks or should not have {', '.join(mismatched)}")
    for name, value in numbers.items():
        read_count(name, value) if isinstance(expected[name], int) else read_number(name, value)


def check_moments(tensors: Mapping[str, Tensor], parameters: list[Tensor]) -> None:
    """Raise FileFormatError unless an optimizer's moments, named as `optimizer_tensors` does, fit its parameters."""
    expected: dict[str, Tensor] = {}
    for number, parameter in enumerate(parameters):
        if f"{number}/step" in tensors:  # the others had no gradient yet
            expected[f"{number}/step"] = torch.zeros(())
            expected |= {f"{number}/{name}": parameter.detach() for name in MOMENTS}
    check_tensors(tensors, expected)
    for name, tensor in tensors.items():
        if not name.endswith("/exp_avg") and bool((tensor < 0).any()):
            raise FileFormatError(f"adam/{name} has values below 0")


def read_number(name: str, value: object) -> float:
    """Return a finite number of at least 0; FileFormatError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_NUMBER:
        raise FileFormatError(f"`{name}` should be a finite number of at least 0, got {value!r}")
    return float(value)


def read_count(name: str, value: object) -> int:
    """Return a whole number from 0 to 2⁶² − 1; FileFormatError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        raise FileFormatError(f"`{name}` should be a whole number of at least 0, got {value!r}")
    return value


def _check_tensor(name: str, tensor: Tensor, expected: Tensor) -> None:
    if tensor.dtype != expected.dtype or tensor.shape != expected.shape:
        raise FileFormatError(
            f"{name} should be {expected.dtype} of shape {list(expected.shape)}, got {tensor.dtype} of "
            f"{list(tensor.shape)}"
        )
    check_finite({name: tensor})
