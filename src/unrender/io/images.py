"""Loading and saving of images, as tensors with values in [0, 1]."""

import io
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked, describe_value
from unrender.errors import FileFormatError, InputError
from unrender.io.files import FilePath, atomic_write, open_file, read_bytes, reading
from unrender.io.formats import known_suffix
from unrender.io.geometry_data import Floats, floats_from_tensor

if TYPE_CHECKING:
    from PIL.Image import Image

HEIF_SUFFIXES = (".heic", ".heif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", *HEIF_SUFFIXES)
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
WRITTEN_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
MAX_PIXELS = 2**27
"""134 million: decompression bombs of a few kB can declare any size."""
MAX_DEFLATE_RATIO = 1100
"""The compression of PNG unpacks a byte to at most 1032."""
EXIF_ORIENTATION = 0x0112
"""EXIF tag; values of 5 and more swap height and width."""
ASPECT_TOLERANCE = 0.01
"""Largest relative difference between the aspect ratios of images of one view in different sizes."""
ROUNDING = 1e-4
"""Tolerance for values outside [0, 1] due to rounding."""


def is_hidden(name: str) -> bool:
    """Return whether a file is none of the user's: hidden, or the resource fork (`._…`) that macOS puts beside it."""
    return name.startswith(".")


def load_image(path: FilePath) -> Float[Tensor, "height width channels"]:
    """Load an image (png, jpg, tif, webp, bmp, heic) as RGB, or as RGBA if it has transparency.

    Integer values are divided by the maximum of their type; floats are kept; the color space is not changed. Grayscale
    images get three equal channels. 16-bit colors are reduced to 8 bits, 16-bit gray is kept. Of animations and
    multi-page files, the first image is loaded. EXIF orientation is applied; alpha is not premultiplied.
    """
    known_suffix(path, IMAGE_SUFFIXES)
    data = read_bytes(path)
    with reading(path):
        return torch.from_numpy(colors_from_image(open_image(data)))


@checked
def save_image(
    image: Float[Tensor, "height width channels"] | Float[Tensor, "height width"], path: FilePath
) -> None:
    """Save a gray, gray with alpha, RGB or RGBA image in [0, 1] with 8 bits per channel (png, jpg), atomically.

    jpg does not support alpha. Raises InputError for values outside [0, 1], with a tolerance of 1e-4.
    """
    from PIL import Image

    kind = WRITTEN_FORMATS[known_suffix(path, WRITTEN_FORMATS)]
    channels = image.shape[2] if image.dim() == 3 else 1
    if channels not in ((1, 3) if kind == "JPEG" else (1, 2, 3, 4)) or image.numel() == 0:
        raise InputError(f"save_image: cannot save {describe_value(image)} as a {kind} image")
    low, high = (float(value) for value in image.detach().aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise InputError(
            f"save_image: `image` should have values in [0, 1], got {low:g} to {high:g}; clamp or scale it"
        )
    values = (floats_from_tensor(image).clip(0, 1) * 255).round().astype(np.uint8)
    with atomic_write(path) as file:
        Image.fromarray(values[..., 0] if values.shape[2:] == (1,) else values).save(file, kind, quality=95)


def load_mask(path: FilePath, shape: tuple[int, ...]) -> Floats:
    """Load a mask of `shape` in [0, 1]: the maximum color channel times alpha, divided by its maximum.

    A mask of another size is resampled to the nearest pixels; another aspect ratio is an error.
    """
    values = load_image(path).numpy()
    brightest: Floats = values[..., :3].max(axis=-1)
    if values.shape[-1] == 4:
        brightest *= values[..., 3]
    with reading(path):
        resampled = resample_nearest(brightest, shape, "the mask", "the image")
    return resampled / max(float(brightest.max()), 1 / 65535)


def resample_nearest(values: Floats, shape: tuple[int, ...], name: str, target: str) -> Floats:
    """Resample an image [height, width] to another size by nearest neighbor; FileFormatError if it is not similar."""
    height, width = shape
    if values.shape == (height, width):
        return values
    if abs(values.shape[0] * width / (values.shape[1] * height) - 1) > ASPECT_TOLERANCE:
        turned = abs(values.shape[1] * width / (values.shape[0] * height) - 1) <= ASPECT_TOLERANCE
        fix = "rotate it by 90 degrees" if turned else "crop or render it like the image"
        raise FileFormatError(
            f"{name} has {list(values.shape)} pixels, but {target} has {[height, width]}, which is another aspect "
            f"ratio; {fix}"
        )
    rows, columns = (
        ((np.arange(size) + 0.5) * source / size).astype(int)
        for size, source in zip((height, width), values.shape, strict=True)
    )
    resampled: Floats = values[rows[:, None], columns]
    return resampled


def open_image(data: bytes, *, upright: bool = True) -> "Image":
    """Decode the first image of a file; with `upright`, apply its EXIF orientation."""
    from PIL import ImageOps

    image = _open(io.BytesIO(data))
    bits = 8 * len(image.getbands()) if image.mode in ("RGB", "RGBA", "LA") else 1
    if image.format == "PNG" and image.width * image.height * bits > 8 * MAX_DEFLATE_RATIO * len(data):
        raise FileFormatError(
            f"truncated or damaged: the header declares {image.width} × {image.height} pixels, which {len(data)} bytes "
            "cannot hold"
        )
    image.load()
    if upright:
        ImageOps.exif_transpose(image, in_place=True)
    return image


def image_size(path: FilePath) -> tuple[int, int]:
    """Return the stored height and width of an image, reading only the header of the file."""
    known_suffix(path, IMAGE_SUFFIXES)
    with open_file(path) as file, reading(path):
        image = _open(file)
        return image.height, image.width


def oriented_image_size(path: FilePath) -> tuple[int, int]:
    """Return the height and width of an image after applying its EXIF orientation."""
    with open_file(path) as file, reading(path):
        image = _open(file)
        turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def has_high_bit_depth(path: FilePath) -> bool:
    """Return whether `load_image` would keep more than 8 bits per channel of an image."""
    with open_file(path) as file, reading(path):
        return _is_high_bit_depth(_open(file))


def _is_high_bit_depth(image: "Image") -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _open(file: BinaryIO) -> "Image":
    from PIL import Image, UnidentifiedImageError

    formats = ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "TGA"]
    if _is_heif(file):
        _register_heif()
        formats = ["HEIF"]
    try:
        image: Image.Image = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        if formats != ["HEIF"]:
            raise FileFormatError(
                f"damaged, or its content does not match its suffix: it is none of {', '.join(formats)}"
            ) from error
        raise FileFormatError("the HEIC photo cannot be decoded; save it as JPEG") from error
    except Image.DecompressionBombError as error:
        raise FileFormatError(f"the image is too large: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise FileFormatError(
            f"the image has {image.width} × {image.height} pixels, more than {MAX_PIXELS // 10**6} million; "
            "scale it down"
        )
    return image


def _is_heif(file: BinaryIO) -> bool:
    """Return whether a file begins like the photos of iPhones."""
    head = file.read(12)
    file.seek(0)
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def _register_heif() -> None:
    """Let Pillow decode HEIF; FileFormatError if the optional package is missing."""
    try:
        import pi_heif
    except ImportError as error:
        raise FileFormatError(
            "HEIC photos need the package pi-heif: pip install 'unrender[photos]', or save the photo as JPEG"
        ) from error
    pi_heif.register_heif_opener(thumbnails=False)


def colors_from_image(image: "Image") -> Floats:
    """Convert an image to RGB or RGBA in [0, 1]."""
    return normalize_pixels(pixels_from_image(image))


def normalize_pixels(values: Floats) -> Floats:
    """Convert 8-bit values to [0, 1]; floats are unchanged."""
    if values.dtype == np.uint8:
        values = values.astype(np.float32)
        values /= 255
    return values


def pixels_from_image(image: "Image") -> Floats:
    """Convert an image to 8-bit RGB or RGBA; high-bit-depth gray to RGB in [0, 1]."""
    if _is_high_bit_depth(image):
        return np.repeat(_normalize_gray(np.asarray(image))[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _normalize_gray(values: Floats) -> Floats:
    """Convert 16-bit integers to [0, 1]; floats are unchanged."""
    gray = values.astype(np.float32) / np.float32(1 if values.dtype.kind == "f" else 65535)
    if not (gray.min() >= 0 and gray.max() <= 1):
        largest = 1 if values.dtype.kind == "f" else 65535
        raise FileFormatError(
            f"pixel values should be in [0, {largest}], got {values.min()} to {values.max()}"
        )
    return gray
