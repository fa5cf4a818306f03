"""NumPy files: one table (npy), or arrays named points, normals, colors (npz). Pickled objects are never loaded."""

import io
import math
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, normalize_colors
from unrender.io.xyz import split_columns

_MAX_COLUMNS = 12
"""Wider arrays are probably transposed, and rejected."""

_ALWAYS_UNPACKED, _MAX_RATIO = 1 << 26, 64
"""Size in bytes up to which any entry of an archive is unpacked; beyond, the maximum ratio to the size of the file."""


def read_npy(data: bytes) -> GeometryData:
    """Read an array whose rows are x y z, then normals or colors."""
    table = _floats(array_from_npy(data))
    if table.ndim != 2 or table.shape[1] > _MAX_COLUMNS:
        raise FileFormatError(
            f"expected an array of shape [points, 3 to {_MAX_COLUMNS}], got {list(table.shape)}"
        )
    return split_columns(table)


def read_npz(data: bytes) -> GeometryData:
    """Read the array points, and normals and colors if present."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        arrays = {
            key: _floats(array_from_npy(unpack(archive, f"{key}.npy", len(data))))
            for key in ("points", "normals", "colors")
            if f"{key}.npy" in names
        }
    if "points" not in arrays:
        raise FileFormatError(f"the archive has no array 'points', only {', '.join(sorted(names)[:8])}")
    for key, array in arrays.items():
        if array.shape != (len(arrays["points"]), 3):
            raise FileFormatError(
                f"{key!r} should have 3 columns and as many rows as 'points', got shape {list(array.shape)}"
            )
    colors = arrays.get("colors")
    return GeometryData(
        arrays["points"], None, arrays.get("normals"), None if colors is None else normalize_colors(colors)
    )


def unpack(archive: zipfile.ZipFile, name: str, available: int) -> bytes:
    """Decompress an entry, unless it is much larger than the file: a few kB can hold gigabytes of zeros."""
    size = archive.getinfo(name).file_size
    if size > max(_ALWAYS_UNPACKED, _MAX_RATIO * available):
        raise FileFormatError(
            f"{name!r} would unpack from {available} bytes to {size}; save it with `np.savez`, uncompressed"
        )
    return archive.read(name)


def array_from_npy(data: bytes, kinds: str = "iuf") -> NDArray[Any]:
    """Read the numbers of a .npy file, after checking its header against the size of the data.

    kinds: NumPy's letters of the dtypes that are accepted; U for text.
    """
    stream = io.BytesIO(data)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, by_columns, dtype = headers[np.lib.format.read_magic(stream)](stream)
    if dtype.kind not in kinds:
        expected = "text" if kinds == "U" else "real numbers"
        raise FileFormatError(f"expected {expected}, got an array of dtype {dtype}")
    size = math.prod(shape)
    if min(shape, default=0) < 0 or size * dtype.itemsize > len(data) - stream.tell():
        raise FileFormatError(
            f"truncated: the header declares shape {shape}, but only {len(data) - stream.tell()} bytes follow"
        )
    flat = np.frombuffer(data, np.uint8 if dtype.kind == "b" else dtype, size, stream.tell())
    return flat.reshape(shape, order="F" if by_columns else "C")


def _floats(array: NDArray[Any]) -> Floats:
    """Convert to float32 if it holds all values of the dtype exactly, else to float64."""
    wide = array.dtype.itemsize > 4 or (array.dtype.kind in "iu" and array.dtype.itemsize > 2)
    return array.astype(np.float64 if wide else np.float32)


def write_npz(file: BinaryIO, geometry: GeometryData) -> None:
    """Write the arrays points, normals, colors."""
    arrays = {"points": geometry.points, "normals": geometry.normals, "colors": geometry.colors}
    np.savez(file, allow_pickle=False, **{k: v for k, v in arrays.items() if v is not None})
