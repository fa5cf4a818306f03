"""Layouts: how to take a file apart, so that damage reaches what a checksum or a length would hide."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Literal, NamedTuple


class Part(NamedTuple):
    """A part of a file that can be damaged on its own."""

    kind: Literal["binary", "text", "json"]
    data: bytes


class Layout(NamedTuple):
    """Takes a file apart, and puts it together with the right lengths and checksums."""

    open: Callable[[bytes], list[Part]]
    close: Callable[[list[bytes]], bytes]


def _whole(kind: Literal["binary", "text", "json"]) -> Layout:
    return Layout(lambda data: [Part(kind, data)], lambda parts: parts[0])


def _header(end: bytes) -> Layout:
    """Text up to and including a line, then bytes."""

    def open_file(data: bytes) -> list[Part]:
        head, mark, body = data.partition(end)
        return [Part("text", head + mark), Part("binary", body)]

    return Layout(open_file, b"".join)


def _open_glb(data: bytes) -> list[Part]:
    end = 20 + int.from_bytes(data[12:16], "little")
    return [Part("json", data[20:end]), Part("binary", data[end + 8 :])]


def _close_glb(parts: list[bytes]) -> bytes:
    text, body = (part + fill * (-len(part) % 4) for part, fill in zip(parts, (b" ", b"\0"), strict=True))
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def _open_safetensors(data: bytes) -> list[Part]:
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    description = header.pop("__metadata__")["unrender"]
    return [
        Part("json", json.dumps(header).encode()),
        Part("json", description.encode()),
        Part("binary", data[end:]),
    ]


def _close_safetensors(parts: list[bytes]) -> bytes:
    metadata = json.dumps({"unrender": parts[1].decode("latin-1")})
    header = parts[0].strip()
    if header.startswith(b"{") and len(header) > 2:
        header = b'{"__metadata__":' + metadata.encode() + b"," + header[1:]
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + parts[2]


def _open_npy(data: bytes) -> list[Part]:
    end = 10 + int.from_bytes(data[8:10], "little")
    return [Part("text", data[10:end]), Part("binary", data[end:])]


def _close_npy(parts: list[bytes]) -> bytes:
    header = parts[0].rstrip()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) % 65536) + header + parts[1]


def _open_zip(data: bytes) -> list[Part]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [Part("binary", name.encode() + b"\n" + archive.read(name)) for name in archive.namelist()]


def _close_zip(parts: list[bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in parts:
            name, _, data = part.partition(b"\n")
            archive.writestr(name.decode("latin-1").replace("\0", "") or "x", data)
    return file.getvalue()


def _open_png(data: bytes) -> list[Part]:
    parts, place = [], 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        parts.append(Part("binary", data[place + 4 : place + 8 + size]))
        place += 12 + size
    return parts


def _close_png(parts: list[bytes]) -> bytes:
    chunks = [
        struct.pack(">I", max(len(part) - 4, 0)) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


BINARY, TEXT, JSON = _whole("binary"), _whole("text"), _whole("json")
PLY, PCD, NRRD = _header(b"end_header\n"), _header(b"DATA binary\n"), _header(b"\n\n")
PCD_COMPRESSED = _header(b"DATA binary_compressed\n")
GLB, NPY, NPZ = Layout(_open_glb, _close_glb), Layout(_open_npy, _close_npy), Layout(_open_zip, _close_zip)
SAFETENSORS, PNG = Layout(_open_safetensors, _close_safetensors), Layout(_open_png, _close_png)
GZIP = Layout(lambda data: [Part("binary", gzip.decompress(data))], lambda parts: gzip.compress(parts[0], 1))
