"""OpenEXR: reads one channel of any file with the OpenEXR library, and writes one without it.

What is written are 32-bit floats in uncompressed scan lines, which any reader supports.
"""

import io
import struct
from typing import BinaryIO

import numpy as np

from unrender.errors import FileFormatError, InputError
from unrender.io.geometry_data import Floats

MAGIC, VERSION = 20000630, 2
FLOAT = 2
DEPTH_CHANNELS = ("z", "depth", "d", "y", "r", "v")
"""Names of the channel with depth, after the last dot, in the order in which they are looked for."""
MAX_PIXELS = 2**27
NOTHING = 65504.0
"""Largest half-precision number; Blender and others write this or more where nothing was hit."""


def read_exr(data: bytes) -> Floats:
    """Read the depth of an image as float32 [height, width]; 0 where nothing was hit."""
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(
            "EXR images need OpenEXR, which is not installed; run: pip install OpenEXR"
        ) from error

    file = OpenEXR.InputFile(io.BytesIO(data))
    header = file.header()
    window = header["dataWindow"]
    width, height = window.max.x - window.min.x + 1, window.max.y - window.min.y + 1
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise FileFormatError(f"an image of {width} × {height} pixels is too large")
    name = _depth_channel(list(header["channels"]))
    kind = header["channels"][name].type
    dtype = {0: np.uint32, 1: np.float16, 2: np.float32}[int(kind.v)]
    values: Floats = np.frombuffer(file.channel(name), dtype).reshape(height, width).astype(np.float32)
    return np.where(values < NOTHING, values, np.float32(0))


def _depth_channel(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    for suffix in DEPTH_CHANNELS:
        found = [name for name in names if name.rpartition(".")[2].lower() == suffix]
        if found:
            return found[0]
    raise FileFormatError(f"none of the channels {', '.join(names)[:80]} is depth; name it Z")


def write_exr(file: BinaryIO, values: Floats, channel: str = "Z") -> None:
    """Write an array [height, width] as float32.

    Source: OpenEXR file layout, openexr.com/en/latest/OpenEXRFileLayout.html.
    """
    height, width = values.shape
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    channels = channel.encode() + b"\0" + struct.pack("<iB3xii", FLOAT, 0, 1, 1) + b"\0"
    attributes = [
        ("channels", "chlist", channels),
        ("compression", "compression", b"\0"),
        ("dataWindow", "box2i", window),
        ("displayWindow", "box2i", window),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
    ]
    header = struct.pack("<2i", MAGIC, VERSION) + b"".join(
        f"{name}\0{kind}\0".encode() + struct.pack("<i", len(data)) + data for name, kind, data in attributes
    )
    header += b"\0"
    begin, line = len(header) + 8 * height, 8 + 4 * width
    file.write(header + np.arange(begin, begin + height * line, line, dtype="<u8").tobytes())
    lines = np.empty(height, np.dtype([("y", "<i4"), ("bytes", "<i4"), ("values", "<f4", (width,))]))
    lines["y"], lines["bytes"], lines["values"] = np.arange(height), 4 * width, values
    file.write(lines.tobytes())
