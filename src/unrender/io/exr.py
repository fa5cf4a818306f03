"""OpenEXR: reads one channel, most of them without the OpenEXR library, and writes one.

What is written are 32-bit floats in uncompressed scan lines, which any reader supports.
Source: OpenEXR file layout, openexr.com/en/latest/OpenEXRFileLayout.html.
"""

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np

from unrender.errors import FileFormatError, InputError
from unrender.io.exr_header import (
    DTYPES,
    FLOAT,
    LINES_PER_CHUNK,
    RUN_LENGTHS,
    Channel,
    Header,
    chunk_offsets,
    read_header,
    rewritten,
    write_header,
)
from unrender.io.geometry_data import Floats

DEPTH_CHANNELS = ("z", "depth", "d", "y", "r", "v")
"""Names of the channel with depth, after the last dot, in the order in which they are looked for."""
NOTHING = 65504.0
"""Largest half-precision number; Blender and others write this or more where nothing was hit."""


def read_exr(data: bytes) -> Floats:
    """Read the depth of an image as float32 [height, width]; 0 where nothing was hit.

    Images that are not packed, or packed by run lengths or zlib, are decoded here; others by OpenEXR, which is given a
    header without anything that it does not need, as it crashes on damaged ones.
    """
    header = read_header(data)
    index = _depth_channel([channel.name for channel in header.channels])
    if header.compression in LINES_PER_CHUNK and header.tiles is None:
        values = _decode(data, header, index)
    else:
        values = _decode_with_library(rewritten(data, header), header.channels[index].name, header)
    return np.where(values < NOTHING, values, np.float32(0)).astype(np.float32)


def _depth_channel(names: list[str]) -> int:
    if len(names) == 1:
        return 0
    for suffix in DEPTH_CHANNELS:
        found = [i for i, name in enumerate(names) if name.rpartition(".")[2].lower() == suffix]
        if found:
            return found[0]
    raise FileFormatError(f"none of the channels {', '.join(names)[:80]} is depth; name it Z")


def _decode(data: bytes, header: Header, index: int) -> Floats:
    """Return one channel of an image in scan lines: chunks of lines, in each of which channel follows channel."""
    sizes = [header.width * np.dtype(DTYPES[channel.kind]).itemsize for channel in header.channels]
    start, dtype = sum(sizes[:index]), DTYPES[header.channels[index].kind]
    values = np.empty((header.height, header.width), np.float32)
    lines = LINES_PER_CHUNK[header.compression]
    for first, offset in zip(range(0, header.height, lines), chunk_offsets(data, header), strict=True):
        if not header.end <= offset <= len(data) - 8:
            raise FileFormatError(f"truncated or damaged: line {first} should be at byte {offset}")
        line, size = struct.unpack_from("<ii", data, offset)
        count, packed = min(lines, header.height - first), data[offset + 8 : offset + 8 + max(size, 0)]
        if line - header.top != first or len(packed) != size:
            raise FileFormatError(f"truncated or damaged at byte {offset}")
        rows = _unpack(packed, header.compression, count * sum(sizes))
        chunk = np.frombuffer(rows, np.uint8).reshape(count, sum(sizes))[:, start : start + sizes[index]]
        values[first : first + count] = np.ascontiguousarray(chunk).view(dtype)
    return values


def _unpack(packed: bytes, compression: int, size: int) -> bytes:
    """Return the bytes of a chunk; those that packing would not shorten are stored as they are."""
    if len(packed) == size or compression == 0:
        found = packed
    elif compression == RUN_LENGTHS:
        found = _undo_predictor(_expand_runs(packed, size))
    else:
        found = _undo_predictor(zlib.decompressobj().decompress(packed, size))
    if len(found) != size:
        raise FileFormatError(f"truncated or damaged: a chunk has {len(found)} bytes instead of {size}")
    return found


def _expand_runs(packed: bytes, size: int) -> bytes:
    """Expand n ≥ 0, x to n + 1 times x, and −n to the n bytes that follow."""
    found, place = bytearray(), 0
    while place < len(packed) and len(found) < size:
        count = packed[place] - 256 * (packed[place] > 127)
        if count < 0:
            found += packed[place + 1 : place + 1 - count]
            place += 1 - count
        else:
            found += packed[place + 1 : place + 2] * (count + 1)
            place += 2
    return bytes(found)


def _undo_predictor(data: bytes) -> bytes:
    """Sum up differences, less 128, and put the two halves of the bytes in turn."""
    if not data:
        return data
    differences = np.frombuffer(data, np.uint8).astype(np.int64)
    differences[1:] -= 128
    values, found = (differences.cumsum() & 255).astype(np.uint8), np.empty(len(data), np.uint8)
    half = (len(data) + 1) // 2
    found[0::2], found[1::2] = values[:half], values[half:]
    return found.tobytes()


def _decode_with_library(data: bytes, name: str, header: Header) -> Floats:
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(
            "EXR images packed like this need OpenEXR, which is not installed; run: pip install OpenEXR, or save them "
            "with ZIP compression"
        ) from error

    file = OpenEXR.InputFile(io.BytesIO(data))
    kind = next(channel.kind for channel in header.channels if channel.name == name)
    values: Floats = np.frombuffer(file.channel(name), DTYPES[kind])
    return values.reshape(header.height, header.width).astype(np.float32)


def write_exr(file: BinaryIO, values: Floats, channel: str = "Z") -> None:
    """Write an array [height, width] as float32."""
    height, width = values.shape
    header = write_header([Channel(channel, FLOAT)], 0, (0, 0, width - 1, height - 1))
    begin, line = len(header) + 8 * height, 8 + 4 * width
    file.write(header + np.arange(begin, begin + height * line, line, dtype="<u8").tobytes())
    lines = np.empty(height, np.dtype([("y", "<i4"), ("bytes", "<i4"), ("values", "<f4", (width,))]))
    lines["y"], lines["bytes"], lines["values"] = np.arange(height), 4 * width, values
    file.write(lines.tobytes())
