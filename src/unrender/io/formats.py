"""Readers and writers of geometry files by suffix."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

from unrender.errors import InputError
from unrender.io.arrays import read_npy, read_npz, write_npz
from unrender.io.files import FilePath, atomic_write, read_bytes, reading
from unrender.io.geometry_data import GeometryData
from unrender.io.glb import read_glb
from unrender.io.glb_writer import write_glb
from unrender.io.gltf_files import glb_bytes
from unrender.io.lidar import read_bin, read_e57, read_las
from unrender.io.obj import read_obj, write_obj
from unrender.io.off import read_off
from unrender.io.pcd import read_pcd, write_pcd
from unrender.io.ply import read_ply, write_ply
from unrender.io.scanner_text import read_asc, read_pts, read_ptx
from unrender.io.stl import read_stl, write_stl
from unrender.io.xyz import read_xyz, write_xyz

Reader = Callable[[bytes], GeometryData]
Writer = Callable[[BinaryIO, GeometryData], None]

MESH_READERS: dict[str, Reader] = {
    ".ply": read_ply,
    ".obj": read_obj,
    ".stl": read_stl,
    ".off": read_off,
    ".glb": read_glb,
    ".gltf": read_glb,
}
CLOUD_READERS: dict[str, Reader] = {
    ".xyz": read_xyz,
    ".txt": read_xyz,
    ".csv": read_xyz,
    ".tsv": read_xyz,
    ".pts": read_pts,
    ".ptx": read_ptx,
    ".asc": read_asc,
    ".pcd": read_pcd,
    ".las": read_las,
    ".laz": read_las,
    ".e57": read_e57,
    ".bin": read_bin,
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


def read_geometry_data(path: FilePath, readers: dict[str, Reader]) -> GeometryData:
    """Read a geometry file with the reader for its suffix."""
    reader = readers[known_suffix(path, readers)]
    data = glb_bytes(Path(path)) if reader is read_glb else read_bytes(path)
    with reading(path):
        geometry = reader(data)
    floats = np.result_type(geometry.points, np.float32)  # some files store integers
    return geometry._replace(points=geometry.points.astype(floats, copy=False))


def write_geometry_data(path: FilePath, writers: dict[str, Writer], geometry: GeometryData) -> None:
    """Write a geometry file with the writer for its suffix, atomically."""
    writer = writers[known_suffix(path, writers)]
    with atomic_write(path) as file:
        writer(file, geometry)


def known_suffix(path: FilePath, known: Collection[str]) -> str:
    """Return the suffix of a path in lower case; raise `InputError` if it is not supported."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise InputError(f"{path}: unsupported suffix {suffix!r}; use one of {', '.join(sorted(known))}")
    return suffix
