"""Pictures from files, as RGB in [0, 1]."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unrender.errors import FileFormatError
from unrender.io.contents import Floats

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "TGA", "WEBP")
MAX_TEXELS = 1 << 26
"""8192 × 8192."""


def read_picture(data: bytes) -> Floats:
    """Return RGB [height, width, 3]; gray is repeated, opacity dropped, sizes are checked before unpacking."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_TEXELS:
                raise FileFormatError(
                    f"a picture of {image.width} × {image.height} texels, more than {MAX_TEXELS}; make it smaller"
                )
            deep = image.mode in ("F", "I") or image.mode.startswith("I;")
            values: NDArray[Any] = np.asarray(image if deep else image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise FileFormatError(f"too large: {error}") from error
    full = 1.0 if values.dtype.kind == "f" else 255.0 if values.dtype == np.uint8 else 65535.0
    unit = np.nan_to_num(values.astype(np.float32) / np.float32(full)).clip(0.0, 1.0)
    rgb: Floats = unit if unit.ndim == 3 else np.repeat(unit[..., None], 3, axis=2)
    return rgb
