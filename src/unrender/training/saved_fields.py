"""Fields on disk: description, parameters and structure in one file."""

from pathlib import Path

import torch

from unrender.devices import resolve_device
from unrender.errors import FileFormatError, InputError
from unrender.fields.gaussians import GaussianField
from unrender.fields.registry import field_name, field_type
from unrender.fields.trainable import TrainableField
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.files import FilePath, reading
from unrender.io.splats import SPLAT_READERS, load_gaussians

SavedField = TrainableField | GaussianField
"""A field that a file can hold."""
NUM_CHECKED = 66
"""Points at which the values of a field are checked."""
MAX_NEAR = 1e15
"""Largest distance of a near plane."""
FORMAT = 2
"""Raised when files of before cannot be read any more."""


def save_field(field: TrainableField, path: FilePath) -> None:
    """Save a field as safetensors, whole or not at all."""
    tensors, description = field.contents()
    save_tensors(tensors, {"kind": field_name(field), "format": FORMAT} | description, path)


def load_field(path: FilePath, *, device: str | torch.device = "cpu") -> SavedField:
    """Load a field that `save_field` wrote, on whatever device, or a Gaussian splat file (ply, splat, spz).

    device: where the field computes; see `resolve_device` for names.
    """
    target = resolve_device(device)
    if Path(path).suffix.lower() in SPLAT_READERS:
        return GaussianField(load_gaussians(path)).to(target)
    tensors, description = load_tensors(path)
    with reading(path):
        kind = str(description.get("kind"))
        try:
            field = field_type(kind)
        except InputError as error:
            raise FileFormatError(f"it holds no field: {error}") from error
        if description.get("format") != FORMAT:
            raise FileFormatError(
                f"it was written by an older version (format {description.get('format', 1)}, not {FORMAT}): train the "
                "field again"
            )
        loaded = field.from_contents(tensors, description)
    loaded = loaded.to(target)
    if not (0 <= loaded.near < MAX_NEAR and _has_finite_values(loaded)):
        raise FileFormatError(f"{path}: damaged: its densities, its colors or its near plane are not finite")
    return loaded


@torch.no_grad()
def _has_finite_values(field: TrainableField) -> bool:
    """Return whether a field has finite values at some points of its box: large parameters can overflow."""
    fractions = torch.rand(NUM_CHECKED, 3, generator=torch.Generator().manual_seed(0))
    directions = torch.eye(3).repeat(NUM_CHECKED // 3, 1)
    low, high = field.bounds()
    points = low + fractions.to(low) * (high - low)
    return all(bool(value.isfinite().all()) for value in field(points, directions.to(low)))
