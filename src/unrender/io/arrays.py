"""NumPy files: one table (npy), or arrays called points, normals, colors (npz).

Pickled objects are never loaded.
"""

import io
import math
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError
from unrender.io.contents import Contents, Floats, unit_colors
from unrender.io.xyz import split_columns

_MAX_COLUMNS = 12
"""More are taken for a table that lies on its side."""


def read_npy(data: bytes) -> Contents:
    """Read an array whose rows are x y z, then normals or colors."""
    table = _floats(array_from_npy(data))
    if table.ndim != 2 or table.shape[1] > _MAX_COLUMNS:
        raise FileFormatError(
            f"expected an array of N rows of 3 to {_MAX_COLUMNS} columns, got {list(table.shape)}"
        )
    return split_columns(table)._replace(points=table[:, :3])


def read_npz(data: bytes) -> Contents:
    """Read the arrays points, and normals, colors where they are there."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        arrays = {
            key: _floats(array_from_npy(archive.read(f"{key}.npy")))
            for key in ("points", "normals", "colors")
            if f"{key}.npy" in names
        }
    if "points" not in arrays:
        raise FileFormatError(f"no array 'points' among {', '.join(sorted(names)[:8])}")
    for key, array in arrays.items():
        if array.shape != (len(arrays["points"]), 3):
            raise FileFormatError(
                f"{key!r} should have 3 columns and as many rows as 'points', got {array.shape}"
            )
    colors = arrays.get("colors")
    return Contents(
        arrays["points"], None, arrays.get("normals"), None if colors is None else unit_colors(colors)
    )


def array_from_npy(data: bytes) -> NDArray[Any]:
    """Return the real numbers of a .npy file, unpacked without believing its header."""
    stream = io.BytesIO(data)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, by_columns, dtype = headers[np.lib.format.read_magic(stream)](stream)
    if dtype.kind not in "iuf":
        raise FileFormatError(f"its values are {dtype}; numbers are expected")
    size = math.prod(shape)
    if min(shape, default=0) < 0 or size * dtype.itemsize > len(data) - stream.tell():
        raise FileFormatError(
            f"the header promises {shape} values, and {len(data) - stream.tell()} bytes are left"
        )
    flat = np.frombuffer(data, dtype, size, stream.tell())
    return flat.reshape(shape, order="F" if by_columns else "C")


def _floats(array: NDArray[Any]) -> Floats:
    """Return float32 where it holds all values, else float64."""
    wide = array.dtype.itemsize > 4 or (array.dtype.kind in "iu" and array.dtype.itemsize > 2)
    return array.astype(np.float64 if wide else np.float32)


def write_npz(file: BinaryIO, contents: Contents) -> None:
    """Write the arrays points, normals, colors."""
    arrays = {"points": contents.points, "normals": contents.normals, "colors": contents.colors}
    np.savez(file, allow_pickle=False, **{k: v for k, v in arrays.items() if v is not None})
