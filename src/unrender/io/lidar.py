"""Point clouds of lidars: LAS and LAZ with laspy, E57 with pye57, and the .bin files of KITTI and nuScenes."""

import importlib
import io
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from unrender.errors import FileFormatError
from unrender.io.geometry_data import Floats, GeometryData, narrow_dtype

MAX_POINTS = 2**28
"""268 million: headers of a few hundred bytes can declare any number."""
VLR_HEADER, EVLR_HEADER = 54, 60
"""Smallest sizes of the records of metadata in LAS files."""
POINTS_PER_CHUNK = 1_000_000
"""Points that are decoded at once."""
MAX_LAZ_RATIO = 1000
"""Largest ratio of the sizes of points before and after compression."""
MAX_REFLECTANCE = 255.0


def read_las(data: bytes) -> GeometryData:
    """Read x y z with their scale and offset applied, and colors; needs laspy and lazrs."""
    laspy = _extra("laspy", "LAS and LAZ files need the packages laspy and lazrs")
    _check_las_records(data)
    try:
        with laspy.open(io.BytesIO(data), closefd=False, laz_backend=laspy.LazBackend.Lazrs) as reader:
            header = reader.header
            count, size = int(header.point_count), int(header.point_format.size)
            ratio = MAX_LAZ_RATIO if header.are_points_compressed else 1
            if count > MAX_POINTS or count * size > len(data) * ratio:
                raise FileFormatError(
                    f"truncated or damaged: the header declares {count:,} points, but the file has {len(data):,} bytes"
                )
            if header.are_points_compressed:
                _check_chunks(data, int(header.offset_to_point_data), size)
            has_colors = "red" in set(header.point_format.dimension_names)
            parts = [_columns(part, has_colors) for part in reader.chunk_iterator(POINTS_PER_CHUNK)]
    except laspy.errors.LaspyException as error:
        raise FileFormatError(f"damaged, or its content does not match its suffix ({error})") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust code: it is no Exception
            raise
        raise FileFormatError(f"damaged: the points cannot be decompressed ({error})") from error
    if not any(len(points) for points, _ in parts):
        raise FileFormatError("the file has no points")
    points = np.concatenate([points for points, _ in parts])
    colors = np.concatenate([colors for _, colors in parts]) if has_colors else None
    return GeometryData(narrow_dtype(points), None, None, None if colors is None else _fractions(colors))


def _columns(part: Any, has_colors: bool) -> tuple[Floats, Floats]:
    """Return the positions and the colors of points; decoding them by parts bounds the memory of damaged files."""
    points = np.stack([np.asarray(part.x), np.asarray(part.y), np.asarray(part.z)], axis=1)
    channels = [part.red, part.green, part.blue] if has_colors else []
    return points, np.stack(channels, axis=1) if channels else points[:, :0]


def _check_las_records(data: bytes) -> None:
    """Check the numbers of metadata records, each of which laspy reads, against the size of the file."""
    if data[:4] != b"LASF" or len(data) < 227:
        raise FileFormatError(
            "not a LAS file, or truncated: it should begin with LASF and a header of 227 bytes"
        )
    counts = [(struct.unpack_from("<I", data, 100)[0], VLR_HEADER)]
    if data[25] >= 4 and len(data) >= 247:
        counts.append((struct.unpack_from("<I", data, 243)[0], EVLR_HEADER))
    if any(count * size > len(data) for count, size in counts):
        raise FileFormatError("damaged: the header declares more records than the file can hold")


def _check_chunks(data: bytes, start: int, point_size: int) -> None:
    """Check the number of chunks of compressed points: the decoder reserves memory for as many as the file says."""
    if start + 8 > len(data):
        raise FileFormatError("truncated: the file ends before its points")
    (table,) = struct.unpack_from("<q", data, start)
    if table == -1:
        (table,) = struct.unpack_from("<q", data, len(data) - 8)
    if not 0 <= table <= len(data) - 8:
        raise FileFormatError(f"truncated or damaged: the table of chunks should be at byte {table}")
    (num_chunks,) = struct.unpack_from("<I", data, table + 4)
    if num_chunks * point_size > len(data):  # each begins with a point that is not compressed
        raise FileFormatError(f"damaged: {num_chunks:,} chunks in {len(data):,} bytes")


def _fractions(colors: Floats) -> Floats | None:
    """Convert colors of 16 bits, or of 8 bits in 16, to [0, 1]; None if all are black."""
    largest = int(colors.max(initial=0))
    fractions: Floats = colors.astype(np.float32) / np.float32(255 if largest <= 255 else 65535)
    return fractions if largest else None


def read_e57(data: bytes) -> GeometryData:
    """Read the points of all scans in world coordinates, and colors if all have some; needs pye57."""
    pye57 = _extra("pye57", "E57 files need the package pye57")
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # the library reads paths only, and deletes files it cannot read
        path = Path(folder) / "scan.e57"
        path.write_bytes(data)
        try:
            file = pye57.E57(str(path))
            try:
                scans = [_e57_scan(file, i) for i in range(file.scan_count)]
            finally:
                file.close()
        except pye57.libe57.E57Exception as error:
            raise FileFormatError(f"damaged, or its content does not match its suffix ({error})") from error
    scans = [scan for scan in scans if len(scan[0])]
    if not scans:
        raise FileFormatError("the file has no points")
    colors = [color for _, color in scans if color is not None]
    return GeometryData(
        narrow_dtype(np.concatenate([points for points, _ in scans])),
        None,
        None,
        np.concatenate(colors) if len(colors) == len(scans) else None,
    )


def _e57_scan(file: Any, index: int) -> tuple[Floats, Floats | None]:
    count = int(file.get_header(index).point_count)
    if not 0 <= count <= MAX_POINTS:
        raise FileFormatError(f"scan {index + 1} declares {count:,} points, more than {MAX_POINTS:,}")
    table = file.read_scan(index, colors=True, ignore_missing_fields=True)
    points, colors = (
        np.stack([table[name] for name in names], axis=1) if set(names) <= set(table) else None
        for names in (("cartesianX", "cartesianY", "cartesianZ"), ("colorRed", "colorGreen", "colorBlue"))
    )
    if points is None:
        raise FileFormatError(f"scan {index + 1} has no coordinates")
    return points, None if colors is None else _fractions(colors)


def read_bin(data: bytes) -> GeometryData:
    """Read KITTI's rows of x y z reflectance, or nuScenes' with a ring index as fifth value, in float32."""
    for columns in (4, 5):
        if len(data) % (4 * columns):
            continue
        table = np.frombuffer(data, "<f4").reshape(-1, columns)
        extra = table[:, 3:]
        if np.isfinite(table).all() and (extra >= 0).all() and (extra <= MAX_REFLECTANCE).all():
            return GeometryData(table[:, :3].copy())
    raise FileFormatError(
        "not a lidar scan: expected rows of float32 x y z reflectance (KITTI), or with a ring index (nuScenes)"
    )


def _extra(module: str, need: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise FileFormatError(f"{need}: pip install 'unrender[scans]'") from error
