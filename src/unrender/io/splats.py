"""Gaussian splat files: ply of 3D Gaussian splatting, splat of antimatter15, and spz of Niantic.

No maintained package reads them as wheels of every platform; each is a table of numbers. Every count is checked against
the size of the file before memory is allocated.
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unrender.errors import FileFormatError
from unrender.geometry.gaussians import Gaussians
from unrender.io.files import FilePath, is_file, open_file, read_bytes, reading
from unrender.io.formats import known_suffix
from unrender.io.ply import Table, read_tables

Floats = NDArray[np.floating[Any]]

HARMONIC_0 = 0.28209479177387814
"""The spherical harmonic of degree 0, which is constant."""
HEADER_BYTES = 65_536
"""Bytes in which the header of a ply file is looked for."""
SPLAT = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("quaternion", "u1", 4)])
SPZ_HEADER, SPZ_MAGIC, GZIP_MAGIC = struct.Struct("<IIIBBBB"), 0x5053474E, b"\x1f\x8b"
SPZ_VERSIONS, MAX_DEGREE, MAX_SPZ = (1, 2, 3), 3, 10_000_000
"""Versions that are one gzip stream, highest degree, and number of Gaussians that readers of spz accept."""
SPZ_ANTIALIASED, MAX_EXTENSIONS = 1, 1 << 20
"""A flag, and bytes after the last array, for extensions, in which the end of the stream is looked for."""
HALF_TURN = np.array([1, -1, -1], np.float32)
"""From the axes of spz files (y up, z backward) to those of ply files (y down, z forward)."""
HALF_TURN_HARMONICS = np.array([1, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1], np.float32)
"""Signs of the spherical harmonics under the same half turn about x."""


def load_gaussians(path: FilePath) -> Gaussians:
    """Load a Gaussian splat file, in the format of its suffix: ply, splat or spz (versions 1 to 3).

    Coordinates are those of the file; spz files are turned to the axes of the ply files they are made from. Use
    `load_field` for a field that can be rendered. Raises FileFormatError for damaged files, and for values that are not
    finite.
    """
    reader = SPLAT_READERS[known_suffix(path, SPLAT_READERS)]
    data = read_bytes(path)
    with reading(path):
        return reader(data)


def is_splat_file(path: FilePath) -> bool:
    """Return whether a path is a file that `load_gaussians` reads; a ply file is one if it has `f_dc_0`."""
    suffix = Path(path).suffix.lower()
    if suffix not in SPLAT_READERS or not is_file(path):
        return False
    if suffix != ".ply":
        return True
    with open_file(path) as file:
        header = file.read(HEADER_BYTES).split(b"end_header")[0]
    return b" f_dc_0" in header or b" packed_position" in header


def read_splat_ply(data: bytes) -> Gaussians:
    """Read a ply file of 3D Gaussian splatting: logarithms of scales, logits of opacities, channels of harmonics."""
    if b" packed_position" in data[:HEADER_BYTES]:
        raise FileFormatError(
            "compressed ply files are not supported: convert it to an uncompressed ply, or spz"
        )
    tables, points = read_tables(data)
    table = tables["vertex"]
    rest = sum(name.startswith("f_rest_") for name in table)
    degree = {0: 0, 9: 1, 24: 2, 45: 3}.get(rest)
    if degree is None:
        raise FileFormatError(f"expected 0, 9, 24 or 45 properties f_rest_0, f_rest_1, …, got {rest}")
    base = _columns(table, [f"f_dc_{i}" for i in range(3)])
    others = _columns(table, [f"f_rest_{i}" for i in range(rest)]).reshape(len(points), 3, -1)
    harmonics = np.concatenate([base[:, None], others.transpose(0, 2, 1)], 1)
    with np.errstate(over="ignore"):  # to an opacity of 0, and to a scale that is refused
        opacities = 1 / (1 + np.exp(-_columns(table, ["opacity"])[:, 0]))
        scales = np.exp(_columns(table, [f"scale_{i}" for i in range(3)]))
    quaternions = _columns(table, [f"rot_{i}" for i in range(4)])
    return _gaussians(points.astype(np.float32), scales, quaternions, opacities, harmonics)


def read_splat(data: bytes) -> Gaussians:
    """Read a splat file: 32 bytes a Gaussian, without a header and without view-dependent color."""
    if len(data) % SPLAT.itemsize:
        raise FileFormatError(
            f"truncated or damaged: {len(data):,} bytes are not a multiple of {SPLAT.itemsize}, the size of a Gaussian"
        )
    rows = np.frombuffer(data, SPLAT)
    color = rows["color"].astype(np.float32) / 255
    harmonics = ((color[:, :3] - 0.5) / HARMONIC_0)[:, None]
    quaternions = (rows["quaternion"].astype(np.float32) - 128) / 128
    return _gaussians(rows["mean"], rows["scale"], quaternions, color[:, 3], harmonics)


def read_spz(data: bytes) -> Gaussians:
    """Read an spz file: a gzip stream of a header and of one array for each property."""
    if data[:4] == SPZ_MAGIC.to_bytes(4, "little"):
        raise FileFormatError(
            "spz files of version 4 and later are not supported: convert it to version 3, or ply"
        )
    if data[:2] != GZIP_MAGIC:
        raise FileFormatError("not an spz file: it should begin with a gzip stream")
    stream = zlib.decompressobj(wbits=31)
    header = stream.decompress(data, SPZ_HEADER.size)
    if len(header) < SPZ_HEADER.size:
        raise FileFormatError(f"truncated: expected a header of {SPZ_HEADER.size} bytes, got {len(header)}")
    magic, version, count, degree, fraction_bits, flags, _ = SPZ_HEADER.unpack(header)
    if magic != SPZ_MAGIC or version not in SPZ_VERSIONS or degree > MAX_DEGREE or fraction_bits > 23:
        raise FileFormatError(
            f"expected an spz file of version 1 to 3 and harmonics of degree 0 to 3, got magic {magic:#x}, version "
            f"{version}, degree {degree} and {fraction_bits} fractional bits"
        )
    if not 0 < count <= MAX_SPZ:
        raise FileFormatError(f"expected 1 to {MAX_SPZ:,} Gaussians, but the header declares {count:,}")
    rest = 3 * ((degree + 1) ** 2 - 1)
    sizes = [6 if version == 1 else 9, 1, 3, 3, 3 if version < 3 else 4, rest]
    content = stream.decompress(stream.unconsumed_tail, count * sum(sizes))
    if len(content) < count * sum(sizes):
        raise FileFormatError(
            f"truncated or damaged: {count:,} Gaussians need {count * sum(sizes):,} bytes, but the file has "
            f"{len(content):,}"
        )
    if len(stream.decompress(stream.unconsumed_tail, MAX_EXTENSIONS)) < MAX_EXTENSIONS and not stream.eof:
        raise FileFormatError("truncated: the gzip stream does not end")
    ends = np.cumsum([0, *sizes]) * count
    flat = np.frombuffer(content, np.uint8)
    positions, alpha, color, scale, rotation, harmonics = (
        flat[begin:end].reshape(count, size)
        for begin, end, size in zip(ends[:-1], ends[1:], sizes, strict=True)
    )
    return _gaussians(
        _spz_positions(positions, fraction_bits) * HALF_TURN,
        np.exp(scale / np.float32(16) - 10),
        (_first_three(rotation) if version < 3 else _smallest_three(rotation)) * [1, 1, -1, -1],
        alpha[:, 0] / np.float32(255),
        _spz_harmonics(color, harmonics),
        bool(flags & SPZ_ANTIALIASED),
    )


SPLAT_READERS: dict[str, Callable[[bytes], Gaussians]] = {
    ".ply": read_splat_ply,
    ".splat": read_splat,
    ".spz": read_spz,
}


def _spz_positions(positions: NDArray[np.uint8], fraction_bits: int) -> Floats:
    """Convert half floats, or integers of 24 bits with a binary point."""
    if positions.shape[1] == 6:
        return positions.copy().view("<f2").astype(np.float32)
    padded = np.zeros((len(positions), 3, 4), np.uint8)
    padded[..., 1:] = positions.reshape(-1, 3, 3)
    fixed = padded.view("<i4")[..., 0] >> 8  # with the sign of the highest byte
    return fixed.astype(np.float32) / np.float32(2**fraction_bits)


def _first_three(rotation: NDArray[np.uint8]) -> Floats:
    """Return quaternions (w, x, y, z) from x, y and z as bytes, and w ≥ 0."""
    xyz = rotation / np.float32(127.5) - 1
    w = np.sqrt(np.maximum(0, 1 - np.square(xyz).sum(1, keepdims=True)))
    return np.concatenate([w, xyz], 1)


def _smallest_three(rotation: NDArray[np.uint8]) -> Floats:
    """Return quaternions (w, x, y, z) from the index of the largest entry of (x, y, z, w), and the others.

    The index has two bits. The others follow in order, each as a sign and 9 bits of its magnitude in units of √½ / 511.
    """
    packed = rotation.copy().view("<u4")[:, 0]
    largest = (packed >> 30).astype(np.int64)
    rank = np.arange(3)
    shifts = (20 - 10 * rank).astype(np.uint32)
    fields = packed[:, None] >> shifts
    values = (fields & 511) * np.float32(0.5**0.5 / 511) * np.where(fields >> 9 & 1, -1, 1).astype(np.float32)
    xyzw = np.empty((len(packed), 4), np.float32)
    rows = np.arange(len(packed))[:, None]
    xyzw[rows, rank + (rank >= largest[:, None])] = values
    xyzw[rows[:, 0], largest] = np.sqrt(np.maximum(0, 1 - np.square(values).sum(1)))
    return xyzw[:, [3, 0, 1, 2]]


def _spz_harmonics(color: NDArray[np.uint8], rest: NDArray[np.uint8]) -> Floats:
    base = (color / np.float32(255) - np.float32(0.5)) / np.float32(0.15)
    others = ((rest.astype(np.float32) - 128) / 128).reshape(len(rest), -1, 3)
    harmonics = np.concatenate([base[:, None], others], 1)
    turned: Floats = harmonics * HALF_TURN_HARMONICS[: harmonics.shape[1], None]
    return turned


def _columns(table: Table, names: list[str]) -> Floats:
    """Stack properties; raise FileFormatError for missing ones and for values that are not finite."""
    if missing := [name for name in names if name not in table]:
        raise FileFormatError(
            f"not a Gaussian splat file: no property {', '.join(missing[:4])}; the properties are "
            f"{', '.join(list(table)[:12])}"
        )
    if not names:
        return np.zeros((len(next(iter(table.values())).values), 0), np.float32)
    return np.stack([table[name].values for name in names], 1).astype(np.float32)


def _gaussians(
    means: Floats,
    scales: Floats,
    quaternions: Floats,
    opacities: Floats,
    harmonics: Floats,
    is_antialiased: bool = False,
) -> Gaussians:
    """Make Gaussians of arrays; raise FileFormatError for values out of range."""
    named = {
        "position": means,
        "scale": scales,
        "rotation": quaternions,
        "opacity": opacities,
        "color": harmonics,
    }
    for name, values in named.items():
        valid = np.isfinite(values)
        if name == "scale":
            valid &= values >= 0
        if not valid.all():
            wrong = np.flatnonzero(~valid.reshape(len(means), -1).all(1))
            raise FileFormatError(
                f"Gaussian {wrong[0] + 1:,} of {len(means):,} has the {name} "
                f"{values[wrong[0]].reshape(-1)[:4].tolist()}; {len(wrong):,} have values that are not finite"
                f"{' or negative' * (name == 'scale')}"
            )
    tensors = [torch.from_numpy(np.array(values, np.float32)) for values in named.values()]
    position, scale, rotation, opacity, color = tensors
    return Gaussians(position, scale, rotation, opacity, color, is_antialiased)
