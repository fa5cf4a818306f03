"""Volumetric scans: npy, nrrd and NIfTI.

World coordinates of a volume from a file are RAS, in the units of the file, usually millimeters: +x to the right of a
patient, +y to the front (anterior), +z up (superior). LPS is converted to RAS. npy has no world coordinates: one voxel
is one unit, unless a spacing is given.
"""

import bz2
import gzip
import importlib
import io
import logging
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unrender._checked import checked
from unrender.errors import FileFormatError, InputError
from unrender.geometry.volume import Volume
from unrender.io.arrays import array_from_npy
from unrender.io.files import FilePath, atomic_write, read_bytes, reading
from unrender.io.geometry_data import floats_from_tensor

MAX_VOXELS = 2**30
"""One billion, 4 GiB as float32: decompression bombs of a few kB can declare any size."""

NRRD_TYPES = {
    "i1": "signed char, int8",
    "u1": "uchar, unsigned char, uint8",
    "i2": "short, short int, signed short, signed short int, int16",
    "u2": "ushort, unsigned short, unsigned short int, uint16",
    "i4": "int, signed int, int32",
    "u4": "uint, unsigned int, uint32",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64",
    "f4": "float",
    "f8": "double",
}
"""Names of the NRRD types for each NumPy type."""

EXTRAS = {".nrrd": ("nrrd", "pynrrd"), ".nii": ("nibabel", "nibabel"), ".nii.gz": ("nibabel", "nibabel")}
"""Module and package that read and write a format."""


class Scan(NamedTuple):
    """The content of a file: values with axes x, y, z, and the transform from voxel centers (i, j, k) to the world."""

    values: NDArray[Any]
    world_from_centers: NDArray[np.float64]


def load_volume(
    path: FilePath, *, spacing: tuple[float, float, float] | None = None, frame: int | None = None
) -> Volume:
    """Load a scalar volume (npy, nrrd, nii, nii.gz); render it with a `TransferFunction`.

    Values are float32, or float64 if the file has doubles; the scaling of the file is applied. Spacing and orientation
    become `world_from_volume`, in RAS; `spacing`, the size of a voxel along x, y, z, overrides them. The axes of an npy
    array are depth, height, width: z, y, x. Voxels that are not finite, as outside of a brain mask, get the smallest
    value of the others. `frame` selects a volume, from 0 on, of a file with several, such as a time series.
    """
    suffix = _suffix(path, READERS)
    if suffix in EXTRAS:
        _extra(suffix)
    data = read_bytes(path)
    with reading(path):
        scan = READERS[suffix](data)
        values, num_lost = _fill_lost(_checked_values(_select_frame(scan.values, frame)))
        matrix = scan.world_from_centers if spacing is None else np.diag([*spacing, 1.0])
        if not np.isfinite(matrix).all() or not _has_extent(matrix[:3, :3]):
            raise FileFormatError(f"the voxel-to-world matrix is singular or not finite: {matrix.tolist()}")
        centers_from_volume = np.eye(4)
        centers_from_volume[:3, 3] = -0.5
        world_from_volume = (matrix @ centers_from_volume).astype(values.dtype)
        if (
            not np.isfinite(world_from_volume).all()
            or not np.isfinite(np.linalg.inv(world_from_volume)).all()
        ):
            raise FileFormatError(
                f"the voxel-to-world matrix has no inverse in the precision of the voxels: {matrix.tolist()}"
            )
    if num_lost:
        logging.getLogger("unrender").warning(
            "%s: %d of %d voxels are not finite; they are shown as empty space", path, num_lost, values.size
        )
    return Volume(torch.from_numpy(np.ascontiguousarray(values.T)), torch.from_numpy(world_from_volume))


@checked
def save_volume(volume: Volume, path: FilePath) -> None:
    """Save a scalar volume (npy, nrrd, nii, nii.gz), atomically; npy does not store its position and orientation."""
    writer = WRITERS[_suffix(path, WRITERS)]
    if volume.batch_shape or volume.color is not None:
        raise InputError(
            "save_volume: expected a single volume without color; index a batch, and save density only"
        )
    volume_from_centers = np.eye(4)
    volume_from_centers[:3, 3] = 0.5
    matrix = volume.world_from_volume.detach().double().cpu().numpy() @ volume_from_centers
    with atomic_write(path) as file:
        writer(file, Scan(floats_from_tensor(volume.density).T, matrix))


def _suffix(path: FilePath, known: dict[str, Any]) -> str:
    """Return the known suffix of a file name, in lower case; raise `InputError` if there is none."""
    name = Path(path).name.lower()
    found = next((suffix for suffix in known if name.endswith(suffix)), None)
    if found is None and name.endswith((".dcm", ".ima")):
        raise InputError(f"{path}: DICOM is not read; convert the series to NIfTI: `dcm2niix FOLDER`")
    if found is None:
        raise InputError(f"{path}: unsupported suffix {Path(path).suffix!r}; use one of {', '.join(known)}")
    return found


def _has_extent(axes: NDArray[Any]) -> bool:
    """Return whether the axes of a voxel are linearly independent, by more than rounding error."""
    return bool(abs(np.linalg.det(axes)) > 1e-9 * np.linalg.norm(axes, axis=0).prod())


def _select_frame(values: NDArray[Any], frame: int | None) -> NDArray[Any]:
    """Return one of the volumes along the axes after the third."""
    if values.ndim <= 3 or 0 in values.shape:
        if frame not in (None, 0):
            raise FileFormatError(f"the file has one volume, so frame {frame} does not exist")
        return values
    volumes = values.reshape(*values.shape[:3], -1, order="F")
    count = volumes.shape[-1]
    if frame is None and count > 1:
        raise FileFormatError(
            f"the file has {count} volumes; choose one, 0 to {count - 1}, with --frame (`frame`)"
        )
    if not 0 <= (frame or 0) < count:
        raise FileFormatError(f"frame {frame} does not exist; the file has 0 to {count - 1}")
    return volumes[..., frame or 0]


def _fill_lost(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Replace values that are not finite by the smallest one, which transfer functions leave empty; count them."""
    finite = np.isfinite(values)
    num_lost = int(values.size - finite.sum())
    if num_lost == values.size:
        raise FileFormatError("none of the voxels is finite")
    return (np.where(finite, values, values[finite].min()), num_lost) if num_lost else (values, 0)


def _checked_values(values: NDArray[Any]) -> NDArray[Any]:
    """Convert values to floats with three axes."""
    if values.ndim != 3 or values.size == 0:
        raise FileFormatError(f"a volume should have three non-empty axes, got shape {list(values.shape)}")
    if values.dtype.kind not in "iufb":
        raise FileFormatError(f"expected one number per voxel, got values of type {values.dtype}")
    return values.astype(np.float64 if values.dtype == np.float64 else np.float32)


def _check_size(shape: Sequence[int], itemsize: int, available: int | None) -> int:
    """Return the size of the voxels in bytes; raise an error if it exceeds what is available or supported."""
    size = math.prod(shape) if min(shape, default=0) > 0 else 0
    if not size:
        raise FileFormatError(f"the volume is empty: the header declares {list(shape)} voxels")
    if size > MAX_VOXELS:
        raise FileFormatError(
            f"the header declares {list(shape)} voxels, more than {MAX_VOXELS // 10**6} million; crop the volume"
        )
    if available is not None and size * itemsize > available:
        raise FileFormatError(
            f"truncated: the header declares {list(shape)} voxels, but only {available} bytes follow"
        )
    return size * itemsize


def _unpack_gzip(data: bytes, size: int) -> bytes:
    """Decompress the first `size` bytes, or fewer if the data ends before."""
    unpacker, found = zlib.decompressobj(wbits=31), bytearray()
    while len(found) < size and data:
        found += unpacker.decompress(data, size - len(found))
        data = unpacker.unconsumed_tail
        if unpacker.eof:
            data, unpacker = unpacker.unused_data, zlib.decompressobj(wbits=31)
    return bytes(found)


def _read_npy(data: bytes) -> Scan:
    return Scan(array_from_npy(data, "iufb").T, np.eye(4))


def _write_npy(file: BinaryIO, scan: Scan) -> None:
    np.save(file, np.ascontiguousarray(scan.values.T), allow_pickle=False)


def _read_nrrd(data: bytes) -> Scan:
    nrrd = _extra(".nrrd")
    stream = io.BytesIO(data)
    try:
        header = nrrd.read_header(stream)
    except nrrd.NRRDError as error:
        raise FileFormatError(f"damaged, or its content does not match its suffix ({error})") from error
    if "data file" in header or "datafile" in header:
        raise FileFormatError("detached NRRD headers are not supported; save header and voxels in one file")
    if any(int(header.get(key, 0)) for key in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise FileFormatError("line skip and byte skip are not supported; save the file without them")
    dtype = _nrrd_dtype(header)
    shape = [int(n) for n in header["sizes"]]
    encoding, packed = header["encoding"].lower(), data[stream.tell() :]
    if encoding == "raw":
        voxels = packed[: _check_size(shape, dtype.itemsize, len(packed))]
    elif encoding in ("gzip", "gz"):
        size = _check_size(shape, dtype.itemsize, None)
        voxels = _unpack_gzip(packed, size)
    elif encoding in ("bzip2", "bz2"):
        size = _check_size(shape, dtype.itemsize, None)
        voxels = bz2.BZ2Decompressor().decompress(packed, size)
    else:
        raise FileFormatError(f"unsupported encoding {encoding!r}; use raw, gzip or bzip2")
    _check_size(shape, dtype.itemsize, len(voxels))
    values = np.frombuffer(voxels, dtype, math.prod(shape)).reshape(shape, order="F")
    return Scan(values, _nrrd_matrix(header))


def _nrrd_dtype(header: dict[str, Any]) -> np.dtype[Any]:
    words = str(header["type"]).lower().removesuffix("_t")
    kind = next((kind for kind, names in NRRD_TYPES.items() if words in names.split(", ")), None)
    if kind is None:
        raise FileFormatError(f"expected one number per voxel, got values of type {words!r}")
    return np.dtype(("<" if header.get("endian", "little") == "little" else ">") + kind)


def _nrrd_matrix(header: dict[str, Any]) -> NDArray[np.float64]:
    """Return the transform from voxel centers to RAS."""
    matrix = np.eye(4)
    if "space directions" in header:
        directions = np.asarray(header["space directions"], np.float64)
        matrix[:3, :3] = directions[np.isfinite(directions).all(axis=1)].T
    elif "spacings" in header:
        matrix[:3, :3] = np.diag(np.asarray(header["spacings"], np.float64)[:3])
    if "space origin" in header:
        matrix[:3, 3] = header["space origin"]
    space = str(header.get("space", "")).lower()
    axes = space.split("-") if "-" in space else list(space)
    for row, (axis, negative) in enumerate(zip(axes[:3], ("l", "p", "i"), strict=False)):
        if axis[:1] == negative:
            matrix[row] *= -1
    return matrix


def _write_nrrd(file: BinaryIO, scan: Scan) -> None:
    matrix = scan.world_from_centers
    header = {
        "space": "right-anterior-superior",
        "space directions": matrix[:3, :3].T,
        "space origin": matrix[:3, 3],
        "encoding": "gzip",
    }
    stream = io.BytesIO()
    _extra(".nrrd").write(stream, scan.values, header, compression_level=4)
    file.write(stream.getvalue())


def _read_nifti(data: bytes) -> Scan:
    nibabel = _extra(".nii")
    errors = (
        nibabel.wrapstruct.WrapStructError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.filebasedimages.ImageFileError,
    )
    try:
        return _scan_from_nifti(nibabel, data)
    except errors as error:
        raise FileFormatError(f"damaged, or its content does not match its suffix ({error})") from error


def _scan_from_nifti(nibabel: Any, data: bytes) -> Scan:
    is_packed = data[:2] == b"\x1f\x8b"
    head = _unpack_gzip(data, 2048) if is_packed else data
    kind = nibabel.Nifti2Image if head[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nibabel.Nifti1Image
    header = kind.header_class.from_fileobj(io.BytesIO(head))
    shape, itemsize, begin = (
        header.get_data_shape(),
        header.get_data_dtype().itemsize,
        int(header.get_data_offset()),
    )
    if is_packed:
        data = _unpack_gzip(data, begin + _check_size(shape, itemsize, None))
    _check_size(shape, itemsize, len(data) - begin)
    image = kind.from_bytes(data)
    return Scan(np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64))


def _nifti_bytes(scan: Scan) -> bytes:
    nibabel = _extra(".nii")
    image = nibabel.Nifti1Image(scan.values, scan.world_from_centers)
    image.header.set_xyzt_units("mm")
    written: bytes = image.to_bytes()
    return written


def _extra(suffix: str) -> Any:
    """Import the optional package for a format, from the extra `volumes`."""
    module, package = EXTRAS[suffix]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{suffix} files require the package {package}; install it with `pip install 'unrender[volumes]'`"
        ) from error


READERS: dict[str, Callable[[bytes], Scan]] = {
    ".npy": _read_npy,
    ".nrrd": _read_nrrd,
    ".nii.gz": _read_nifti,
    ".nii": _read_nifti,
}
WRITERS: dict[str, Callable[[BinaryIO, Scan], None]] = {
    ".npy": _write_npy,
    ".nrrd": _write_nrrd,
    ".nii.gz": lambda file, scan: _write(file, gzip.compress(_nifti_bytes(scan), 4, mtime=0)),
    ".nii": lambda file, scan: _write(file, _nifti_bytes(scan)),
}


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
