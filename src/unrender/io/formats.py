"""Which suffix is read and written by whom."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

from unrender.errors import InputError
from unrender.io.arrays import read_npy, read_npz, write_npz
from unrender.io.contents import Contents
from unrender.io.files import FilePath, read_bytes, reading, write_whole
from unrender.io.glb import read_glb, write_glb
from unrender.io.obj import read_obj, write_obj
from unrender.io.off import read_off
from unrender.io.pcd import read_pcd, write_pcd
from unrender.io.ply import read_ply, write_ply
from unrender.io.stl import read_stl, write_stl
from unrender.io.xyz import read_xyz, write_xyz

Reader = Callable[[bytes], Contents]
Writer = Callable[[BinaryIO, Contents], None]

MESH_READERS: dict[str, Reader] = {
    ".ply": read_ply,
    ".obj": read_obj,
    ".stl": read_stl,
    ".off": read_off,
    ".glb": read_glb,
}
CLOUD_READERS: dict[str, Reader] = {
    ".xyz": read_xyz,
    ".txt": read_xyz,
    ".csv": read_xyz,
    ".pts": read_xyz,
    ".asc": read_xyz,
    ".pcd": read_pcd,
    ".npy": read_npy,
    ".npz": read_npz,
}
MESH_WRITERS: dict[str, Writer] = {".ply": write_ply, ".obj": write_obj, ".stl": write_stl, ".glb": write_glb}
CLOUD_WRITERS: dict[str, Writer] = {
    ".ply": write_ply,
    ".xyz": write_xyz,
    ".npz": write_npz,
    ".pcd": write_pcd,
}


def read_contents(path: FilePath, readers: dict[str, Reader]) -> Contents:
    """Read a file by its suffix."""
    reader = readers[known_suffix(path, readers)]
    data = read_bytes(path)
    with reading(path):
        contents = reader(data)
    floats = np.result_type(contents.points, np.float32)  # some files hold whole numbers
    return contents._replace(points=contents.points.astype(floats, copy=False))


def write_contents(path: FilePath, writers: dict[str, Writer], contents: Contents) -> None:
    """Write a file by its suffix, whole or not at all."""
    writer = writers[known_suffix(path, writers)]
    with write_whole(path) as file:
        writer(file, contents)


def known_suffix(path: FilePath, known: Collection[str]) -> str:
    """Return a path's suffix in small letters; refuse one that is not known."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise InputError(f"{path}: the suffix {suffix!r} is not one of {', '.join(sorted(known))}")
    return suffix
