"""Registry of field types, by which `--model`, files, viewer, depth, export and reports find them.

A new field is one file with a subclass of `TrainableField`, and one line here.
"""

from unrender.errors import InputError
from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.nerf import NeRF, TutorialNeRF
from unrender.fields.trainable import TrainableField
from unrender.fields.voxels import SparseVoxels

FIELDS: dict[str, type[TrainableField]] = {
    "hash": HashNeRF,
    "paper": NeRF,
    "tutorial": TutorialNeRF,
    "voxels": SparseVoxels,
}


def register_field(name: str, kind: type[TrainableField]) -> None:
    """Register a field class under a name, so that `fit_nerf`, files and the viewer accept your own fields."""
    if FIELDS.setdefault(name, kind) is not kind:
        raise InputError(f"register_field: {name!r} is already {FIELDS[name].__name__}")


def field_type(name: str) -> type[TrainableField]:
    """Return the field class that is registered under a name."""
    if name not in FIELDS:
        raise InputError(f"there is no field {name!r}; known are {', '.join(FIELDS)}")
    return FIELDS[name]


def field_name(field: object) -> str:
    """Return the name under which the class of a field is registered."""
    for name, kind in FIELDS.items():
        if type(field) is kind:
            return name
    raise InputError(f"{type(field).__name__} is not a registered field; see unrender.fields.registry")
