"""OpenEXR: writes one channel of 32-bit floats in uncompressed scan lines, which any reader supports."""

import struct
from typing import BinaryIO

import numpy as np

from unrender.io.geometry_data import Floats

MAGIC, VERSION = 20000630, 2
FLOAT = 2


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
