"""Pictures: files of pixels, as tensors with values in [0, 1]."""

import io
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked, describe_value
from unrender.errors import FileFormatError, InputError
from unrender.io.contents import Floats, floats_from_tensor
from unrender.io.files import FilePath, open_file, read_bytes, reading, write_whole
from unrender.io.formats import known_suffix

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
WRITTEN_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
MAX_PIXELS = 2**27
"""134 million: a file of a few kB can unpack to any number."""
EXIF_ORIENTATION = 0x0112
"""From 5 on, height and width change places."""
ROUNDING = 1e-4
"""How far outside [0, 1] a value may lie, as sums of floats do."""


def load_image(path: FilePath) -> Float[Tensor, "height width channels"]:
    """Load a picture (png, jpg, tif, webp, bmp) as RGB, or RGBA where it has transparency, upright.

    Values are the file's, divided by the largest that its kind of number can hold, with no change of color space;
    floats are taken as they are. Grey has three equal channels. Colors of 16 bits keep 8 of them, grey keeps all.
    Of an animation or several pages, the first counts. EXIF's orientation is applied; alpha is not multiplied in.
    """
    known_suffix(path, IMAGE_SUFFIXES)
    data = read_bytes(path)
    with reading(path):
        return torch.from_numpy(colors_from_picture(open_picture(data)))


@checked
def save_image(
    image: Float[Tensor, "height width channels"] | Float[Tensor, "height width"], path: FilePath
) -> None:
    """Save grey, grey with alpha, RGB or RGBA in [0, 1] with 8 bits (png, jpg), whole or not at all.

    Values beyond 0 and 1 are refused, unless by a rounding error of 1e-4; jpg knows no alpha.
    """
    from PIL import Image

    kind = WRITTEN_FORMATS[known_suffix(path, WRITTEN_FORMATS)]
    channels = image.shape[2] if image.dim() == 3 else 1
    if channels not in ((1, 3) if kind == "JPEG" else (1, 2, 3, 4)) or image.numel() == 0:
        raise InputError(f"save_image: no {kind} picture can be made of {describe_value(image)}")
    low, high = (float(value) for value in image.detach().aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise InputError(
            f"save_image: `image` should lie in [0, 1], got {low:g} to {high:g}; clamp or scale it"
        )
    values = (floats_from_tensor(image).clip(0, 1) * 255).round().astype(np.uint8)
    with write_whole(path) as file:
        Image.fromarray(values[..., 0] if values.shape[2:] == (1,) else values).save(file, kind, quality=95)


def load_mask(path: FilePath, shape: tuple[int, ...]) -> Floats:
    """Load a mask of `shape`: the brightest color of each pixel, times its alpha, as a share of the brightest."""
    values = load_image(path).numpy()
    if values.shape[:2] != shape:
        raise FileFormatError(
            f"{path}: a mask of {list(values.shape[:2])} pixels for a picture of {list(shape)}"
        )
    brightest: Floats = values[..., :3].max(axis=-1)
    if values.shape[-1] == 4:
        brightest *= values[..., 3]
    return brightest / max(float(brightest.max()), 1 / 65535)


def open_picture(data: bytes, *, upright: bool = True) -> "Image":
    """Unpack a file's first picture, turned upright unless told otherwise."""
    from PIL import ImageOps

    image = _look_into(io.BytesIO(data))
    image.load()
    if upright:
        ImageOps.exif_transpose(image, in_place=True)
    return image


def picture_size(path: FilePath) -> tuple[int, int]:
    """Return height and width of a picture as it is stored, reading only the beginning of its file."""
    known_suffix(path, IMAGE_SUFFIXES)
    with open_file(path) as file, reading(path):
        image = _look_into(file)
        return image.height, image.width


def upright_size(path: FilePath) -> tuple[int, int]:
    """Return height and width of a picture turned as EXIF says."""
    with open_file(path) as file, reading(path):
        image = _look_into(file)
        turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def has_deep_colors(path: FilePath) -> bool:
    """Say whether a picture has more than 8 bits for a color that `load_image` would keep."""
    with open_file(path) as file, reading(path):
        return _is_deep(_look_into(file))


def _is_deep(image: "Image") -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _look_into(file: BinaryIO) -> "Image":
    from PIL import Image

    try:
        image: Image.Image = Image.open(file, formats=["PNG", "JPEG", "TIFF", "WEBP", "BMP", "TGA"])
    except Image.DecompressionBombError as error:
        raise FileFormatError(f"too large: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise FileFormatError(
            f"{image.width} × {image.height} pixels are more than {MAX_PIXELS // 10**6} million; scale it down"
        )
    return image


def colors_from_picture(image: "Image") -> Floats:
    """Return RGB or RGBA in [0, 1]."""
    return unit_pixels(pixels_from_picture(image))


def unit_pixels(values: Floats) -> Floats:
    """Turn bytes into shares of 255; leave floats as they are."""
    if values.dtype == np.uint8:
        values = values.astype(np.float32)
        values /= 255
    return values


def pixels_from_picture(image: "Image") -> Floats:
    """Return RGB or RGBA as bytes; grey of more than 8 bits as RGB in [0, 1]."""
    if _is_deep(image):
        return np.repeat(_unit_grey(np.asarray(image))[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _unit_grey(values: Floats) -> Floats:
    """Return floats as they are, whole numbers as shares of 65535."""
    grey = values.astype(np.float32) / np.float32(1 if values.dtype.kind == "f" else 65535)
    if not (grey.min() >= 0 and grey.max() <= 1):
        largest = 1 if values.dtype.kind == "f" else 65535
        raise FileFormatError(
            f"its values should lie in 0 to {largest}, got {values.min()} to {values.max()}"
        )
    return grey
