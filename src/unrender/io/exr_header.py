"""Headers of OpenEXR images of one part."""

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unrender.errors import FileFormatError

MAGIC, VERSION = 20000630, 2
TILED, LONG_NAMES, DEEP, MULTI_PART = 0x200, 0x400, 0x800, 0x1000
"""Flags of the version."""
DTYPES = {0: "<u4", 1: "<f2", 2: "<f4"}
FLOAT = 2
RUN_LENGTHS = 1
LINES_PER_CHUNK = {0: 1, RUN_LENGTHS: 1, 2: 1, 3: 16}
"""For each compression that is decoded without the library: none, run lengths, zlib for a line, zlib for 16 lines."""
LIBRARY_LINES_PER_CHUNK = {4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}
"""PIZ, PXR24, B44, B44A, DWAA, DWAB."""
MAX_PIXELS = 2**27
MAX_RATIO = 4096
"""Largest number of pixels per byte of a file; an image of one value is packed to a byte per 1,000 pixels."""
MAX_CHANNELS = 1024
MAX_COORDINATE = 2**30


class Channel(NamedTuple):
    """A channel, with one value for each pixel."""

    name: str
    kind: int
    """Index in `DTYPES`."""


class Header(NamedTuple):
    """What is needed of a header."""

    channels: list[Channel]
    compression: int
    window: tuple[int, int, int, int]
    """x and y of the first and of the last pixel."""
    tiles: tuple[int, int] | None
    """Width and height of the tiles; None for scan lines."""
    end: int
    """Byte behind the header."""

    @property
    def top(self) -> int:
        """First row."""
        return self.window[1]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.window[2] - self.window[0] + 1

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.window[3] - self.window[1] + 1

    @property
    def num_chunks(self) -> int:
        """Number of chunks of lines, or of tiles."""
        if self.tiles is not None:
            return math.ceil(self.width / self.tiles[0]) * math.ceil(self.height / self.tiles[1])
        lines = (LINES_PER_CHUNK | LIBRARY_LINES_PER_CHUNK)[self.compression]
        return math.ceil(self.height / lines)


def read_header(data: bytes) -> Header:
    """Read a header; FileFormatError if it is damaged, or of a kind of image that is not read."""
    if len(data) < 8 or struct.unpack_from("<i", data)[0] != MAGIC:
        raise FileFormatError("not an EXR image, or truncated")
    (version,) = struct.unpack_from("<i", data, 4)
    if version & (DEEP | MULTI_PART):
        raise FileFormatError(
            "deep images and images of several parts are not read; save depth as one plain part"
        )
    attributes, end = _attributes(data)
    try:
        compression = attributes["compression"][0]
        window = struct.unpack("<4i", attributes["dataWindow"])
        channels = _channels(attributes["channels"])
        tiles = None
        if version & TILED:
            *size, mode = struct.unpack("<IIB", attributes["tiles"])
            if mode & 0xF or not all(0 < side < MAX_COORDINATE for side in size):
                raise FileFormatError("images in tiles of several resolutions are not read; save scan lines")
            tiles = size[0], size[1]
    except (KeyError, IndexError) as error:
        raise FileFormatError(f"damaged: the header lacks {error}") from error
    header = Header(channels, compression, window, tiles, end)
    if compression not in LINES_PER_CHUNK | LIBRARY_LINES_PER_CHUNK:
        raise FileFormatError(f"the compression {compression} is not known; save it with ZIP compression")
    if not (
        max(map(abs, window)) < MAX_COORDINATE
        and header.width > 0
        and header.height > 0
        and header.width * header.height <= min(MAX_PIXELS, MAX_RATIO * len(data))
    ):
        raise FileFormatError(
            f"{header.width} × {header.height} pixels are too many for a file of {len(data):,} bytes"
        )
    return header


def _attributes(data: bytes) -> tuple[dict[str, bytes], int]:
    """Return the attributes by name, and the byte behind them."""
    found, place = {}, 8
    while place < len(data) and data[place]:
        name, place = _text(data, place)
        _, place = _text(data, place)  # its type
        (size,) = struct.unpack_from("<i", data, place)
        place += 4
        if not 0 <= size <= len(data) - place:
            raise FileFormatError(f"truncated or damaged: the attribute {name[:40]!r} has {size} bytes")
        found[name] = data[place : place + size]
        place += size
    return found, place + 1


def _text(data: bytes, place: int) -> tuple[str, int]:
    end = data.find(b"\0", place, place + 256)
    if end < 0:
        raise FileFormatError(f"truncated or damaged at byte {place}")
    return data[place:end].decode("latin-1"), end + 1


def _channels(data: bytes) -> list[Channel]:
    found, place = [], 0
    while place < len(data) and data[place]:
        name, place = _text(data, place)
        kind, _, x, y = struct.unpack_from("<iIii", data, place)
        place += 16
        if kind not in DTYPES:
            raise FileFormatError(f"damaged: the channel {name[:40]!r} has values of the unknown type {kind}")
        if (x, y) != (1, 1):
            raise FileFormatError(f"the channel {name[:40]!r} has fewer values than the image has pixels")
        found.append(Channel(name, kind))
    if not 0 < len(found) <= MAX_CHANNELS or len({channel.name for channel in found}) < len(found):
        raise FileFormatError(f"expected 1 to {MAX_CHANNELS} channels of different names, found {len(found)}")
    return found


def chunk_offsets(data: bytes, header: Header) -> list[int]:
    """Return the bytes at which the chunks begin."""
    if header.end + 8 * header.num_chunks > len(data):
        raise FileFormatError(f"truncated: the file ends before its {header.num_chunks:,} chunks")
    offsets: list[int] = np.frombuffer(data, "<u8", header.num_chunks, header.end).tolist()
    return offsets


def write_header(
    channels: Sequence[Channel],
    compression: int,
    window: tuple[int, int, int, int],
    tiles: tuple[int, int] | None = None,
) -> bytes:
    """Return a header with the attributes that every image has to have."""
    table = b"".join(
        channel.name.encode("latin-1") + b"\0" + struct.pack("<iB3xii", channel.kind, 0, 1, 1)
        for channel in channels
    )
    box = struct.pack("<4i", *window)
    attributes = [
        ("channels", "chlist", table + b"\0"),
        ("compression", "compression", bytes([compression])),
        ("dataWindow", "box2i", box),
        ("displayWindow", "box2i", box),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
    ]
    if tiles is not None:
        attributes.append(("tiles", "tiledesc", struct.pack("<IIB", *tiles, 0)))
    long_names = LONG_NAMES if any(len(channel.name) > 31 for channel in channels) else 0
    version = VERSION | long_names | (0 if tiles is None else TILED)
    return (
        struct.pack("<2i", MAGIC, version)
        + b"".join(
            f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value
            for name, kind, value in attributes
        )
        + b"\0"
    )


def rewritten(data: bytes, header: Header) -> bytes:
    """Return an image with another header: only what `Header` holds."""
    offsets = np.array(chunk_offsets(data, header), np.uint64)
    if not bool(((offsets >= header.end) & (offsets <= len(data) - 8)).all()):
        raise FileFormatError("truncated or damaged: a chunk begins behind the end of the file")
    new = write_header(header.channels, header.compression, header.window, header.tiles)
    moved = offsets.astype(np.int64) + len(new) - header.end
    return new + moved.astype("<u8").tobytes() + data[header.end + 8 * header.num_chunks :]
