"""Linear shape models in npz files.

| array | shape | content |
|---|---|---|
| mean | [vertices, 3] | positions of the mean shape |
| faces | [faces, 3] | indices of vertices, from 0 |
| identity | [identities, vertices, 3] | offsets; optional |
| expression | [expressions, vertices, 3] | offsets; optional |
| identity_std | [identities] | standard deviations of the coefficients; optional, by default 1 |
| expression_std | [expressions] | the same; optional, without it the coefficients are in [0, 1] |
| expression_names | [expressions] | names; optional |
"""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unrender.errors import FileFormatError, UnrenderError
from unrender.geometry.linear_shape_model import LinearShapeModel
from unrender.io.arrays import array_from_npy, unpack
from unrender.io.files import FilePath, atomic_write, read_bytes, reading

_RANKS = {"mean": 2, "faces": 2, "identity": 3, "expression": 3, "identity_std": 1, "expression_std": 1}
_NAMES = "expression_names"


def load_linear_model(path: FilePath) -> LinearShapeModel:
    """Load a linear shape model from an npz file, in double precision.

    Raises `FileFormatError` for missing arrays, and for arrays that do not fit together.
    """
    data = read_bytes(path)
    with reading(path):
        arrays, names = _read(data)
        _check(arrays)
    count = {key: len(arrays[key]) for key in ("identity", "expression")}
    if names is not None and names.shape != (count["expression"],):
        raise FileFormatError(
            f"{path}: '{_NAMES}' should have {count['expression']} names, got shape {list(names.shape)}"
        )
    values = {key: torch.from_numpy(array.astype(np.float64)) for key, array in arrays.items()}
    try:
        return LinearShapeModel(
            values["mean"],
            torch.from_numpy(arrays["faces"].astype(np.int64)),
            values["identity"],
            values["expression"],
            values.get("identity_std", torch.ones(count["identity"], dtype=torch.float64)),
            values.get("expression_std"),
            () if names is None else tuple(str(name) for name in names),
        )
    except UnrenderError as error:
        raise FileFormatError(f"{path}: {error}") from error


def save_linear_model(model: LinearShapeModel, path: FilePath) -> None:
    """Save a linear shape model as an npz file."""
    arrays = {name: getattr(model, name) for name in _RANKS}
    found: dict[str, Any] = {key: t.detach().cpu().numpy() for key, t in arrays.items() if t is not None}
    if model.expression_names:
        found[_NAMES] = np.array(model.expression_names)
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **found)


def _read(data: bytes) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """Read the arrays that a linear model may have, and the names of expressions."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        listed = archive.namelist()
        missing = [name for name in ("mean", "faces") if f"{name}.npy" not in listed]
        if missing:
            raise FileFormatError(
                f"the archive has no array {missing[0]!r}, only {', '.join(sorted(listed)[:8])}; a linear model has "
                "mean, faces, identity and expression"
            )
        found = {name: _array(archive, name, len(data), "iuf") for name in _RANKS if f"{name}.npy" in listed}
        names = _array(archive, _NAMES, len(data), "U") if f"{_NAMES}.npy" in listed else None
    for name in ("identity", "expression"):
        found.setdefault(name, np.zeros((0, *found["mean"].shape)))
    return found, names


def _array(archive: zipfile.ZipFile, name: str, available: int, kinds: str) -> NDArray[Any]:
    data = unpack(archive, f"{name}.npy", available)
    try:
        return array_from_npy(data, kinds)
    except FileFormatError as error:
        raise FileFormatError(f"{name!r}: {error}") from error


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise FileFormatError unless the arrays fit together."""
    mean = arrays["mean"]
    shapes: dict[str, tuple[int | None, ...]] = {
        "mean": (len(mean) if mean.ndim else 0, 3),
        "faces": (None, 3),
    }
    for key in ("identity", "expression"):
        count = len(arrays[key]) if arrays[key].ndim else 0
        shapes[key], shapes[f"{key}_std"] = (count, *shapes["mean"]), (count,)
    for name, array in arrays.items():
        expected = shapes[name]
        wrong = array.ndim != len(expected) or any(
            n is not None and n != m for n, m in zip(expected, array.shape, strict=True)
        )
        if wrong or (name in ("mean", "faces") and not len(array)):
            sizes = ", ".join("faces" if n is None else str(n) for n in expected)
            raise FileFormatError(f"{name!r} should have the shape [{sizes}], got {list(array.shape)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FileFormatError(f"{name!r} has values that are NaN or infinite")
    if arrays["faces"].dtype.kind not in "iu":
        raise FileFormatError(f"'faces' should hold integers, got {arrays['faces'].dtype}")
    if not len(arrays["identity"]) + len(arrays["expression"]):
        raise FileFormatError("the model has neither 'identity' nor 'expression' components")
