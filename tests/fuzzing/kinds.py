"""What is damaged: a file of each kind, and how it is read."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fuzzing.layouts import Layout

Make = Callable[[Path], None]
Read = Callable[[Path], object]


class Kind(NamedTuple):
    """A kind of file: written into a folder, with what belongs to it, and read from there."""

    name: str
    file: str
    """Path of the file that is damaged, within the folder."""
    make: Make
    read: Read
    """Reads what is in the folder, and returns all that comes of it."""
    layout: Layout


@functools.cache
def all_kinds() -> dict[str, Kind]:
    """Return all kinds by name."""
    from fuzzing import field_kinds, geometry_kinds, image_kinds, scan_kinds, scene_kinds, splat_kinds

    modules = (geometry_kinds, image_kinds, field_kinds, scene_kinds, scan_kinds, splat_kinds)
    return {kind.name: kind for module in modules for kind in module.KINDS}
