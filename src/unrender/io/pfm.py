"""Portable float maps (PFM) with one channel, as stereo and multi-view programs write depth and disparity."""

import re

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats

_HEADER = re.compile(rb"Pf\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,30})\s")


def read_pfm(data: bytes) -> Floats:
    """Return the values [height, width], the top row first; the file begins with the bottom row."""
    if data.startswith(b"PF"):
        raise FileFormatError("the PFM file has three channels; a depth image should have one")
    header = _HEADER.match(data)
    if header is None:
        raise FileFormatError("not a PFM file: it should begin with Pf, width, height and a scale")
    width, height = int(header[1]), int(header[2])
    if len(data) - header.end() != 4 * width * height or not width * height:
        raise FileFormatError(
            f"truncated or damaged: the header declares {width} × {height} values, {4 * width * height} bytes, but "
            f"{len(data) - header.end()} follow"
        )
    order = "<" if header[3].startswith(b"-") else ">"
    rows: Floats = np.frombuffer(data, f"{order}f4", offset=header.end()).reshape(height, width)[::-1]
    return rows.astype(np.float32)
