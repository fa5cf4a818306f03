"""Masks of one object: chosen by its ID among several, and the right way around."""

import logging

import numpy as np
from numpy.typing import NDArray

from unrender.errors import InputError
from unrender.io.files import FilePath, read_bytes, reading
from unrender.io.geometry_data import Floats
from unrender.io.images import load_mask, open_image, resample_nearest

LOSSY_FORMATS = ("JPEG", "WEBP", "HEIF")
MAX_IDS = 4096
"""Distinct values beyond which an image is no map of IDs."""
MIN_REGION, MIN_INTERIOR = 16, 0.25
"""Size in pixels of the region of an object, and the fraction of it that has no other neighbor: edges have none."""
MIN_COVERED = 0.8
"""Fraction of the foreground that the regions of a map of IDs cover."""
INVERTED_BORDER = 0.9
"""Fraction of the image border that is white in an inverted mask."""
MAX_SHOWN = 8
UNKNOWN = 128 / 255
"""Value in a mask of pixels that may belong to the object or not."""
log = logging.getLogger("unrender")


def load_object_mask(path: FilePath, shape: tuple[int, ...], mask_id: int | None = None) -> Floats:
    """Load the mask of one object in [0, 1], of a given shape.

    Of an image with one ID per object, such as an instance segmentation, `mask_id` selects the object: its gray value,
    its index in the palette, or red + 256 green + 65536 blue. Raises InputError for such an image without `mask_id`.
    A mask that is white all around and black inside is inverted, with a warning.
    """
    ids, background, is_lossless = _read_ids(path)
    if mask_id is None:
        found = _regions(ids, background) if is_lossless else {}
        if len(found) > 1 and not set(found) <= {128, 255}:
            raise InputError(
                f"{path}: the mask has {len(found)} objects, with the IDs {_describe(found, ids.size)} of the image; "
                "choose one with `mask_id`"
            )
        return _upright(load_mask(path, shape), path)
    chosen = ids == mask_id
    if not chosen.any():
        known = _regions(ids, background) or {
            int(value): 0 for value in np.unique(ids[~background])[:MAX_SHOWN]
        }
        raise InputError(
            f"{path}: no pixel of the mask has the ID {mask_id}; there is {_describe(known, ids.size)}"
        )
    with reading(path):
        return resample_nearest(chosen, shape, "the mask", "the image").astype(np.float32)


def unknown_pixels(mask: Floats) -> Floats | None:
    """Return 1 at the gray pixels of a mask with the values 0, 128 and 255 only, a trimap, 0 elsewhere; else None."""
    gray = np.abs(mask - UNKNOWN) < 1e-3
    is_trimap = gray.any() and bool((gray | (mask == 0) | (mask == 1)).all())
    return gray.astype(np.float32) if is_trimap else None


def load_used_pixels(path: FilePath, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Load the pixels that a mask of a scene keeps: bright ones, or those of all objects if it has one ID for each."""
    mask = load_mask(path, shape)
    used: NDArray[np.bool_] = mask > 0.5
    if ((mask == 0) | (mask == 1)).all():
        return used
    ids, background, is_lossless = _read_ids(path)
    if not is_lossless or len(_regions(ids, background)) < 2:
        return used
    with reading(path):
        return resample_nearest(~background, shape, "the mask", "the image")


def _read_ids(path: FilePath) -> tuple[NDArray[np.int64], NDArray[np.bool_], bool]:
    """Return an ID for each pixel, whether it is black or transparent, and whether the file stores exact values."""
    data = read_bytes(path)
    with reading(path):
        image = open_image(data)
        is_lossless = image.format not in LOSSY_FORMATS
        if image.mode == "P":
            ids = np.asarray(image).astype(np.int64)
            background = np.asarray(image.convert("RGB")).max(axis=-1) == 0
            return ids, background, is_lossless
        values = np.asarray(image)
        if values.ndim == 2:
            is_lossless = is_lossless and values.dtype.kind != "f"
            ids = values.astype(np.int64)
            return ids, ids == 0, is_lossless
        rgba = np.asarray(image.convert("RGBA")).astype(np.int64)
        red, green, blue, alpha = np.moveaxis(rgba, -1, 0)
        is_gray = bool(((red == green) & (green == blue)).all())
        ids = red if is_gray else red + 256 * green + 65536 * blue
        return ids, (ids == 0) | (alpha == 0), is_lossless


def _regions(ids: NDArray[np.int64], background: NDArray[np.bool_]) -> dict[int, int]:
    """Return the IDs that cover regions and their numbers of pixels; none if the image has soft values instead."""
    values, index, areas = np.unique(ids, return_inverse=True, return_counts=True)
    if len(values) > MAX_IDS:
        return {}
    index = index.reshape(ids.shape)
    padded = np.pad(index, 1, mode="edge")
    center = (slice(1, -1), slice(1, -1))
    shifts = [(axis, step) for axis in (0, 1) for step in (-1, 1)]
    inside = np.all([np.roll(padded, step, axis)[center] == index for axis, step in shifts], axis=0)
    is_foreground = np.bincount(index[~background], minlength=len(values)) > 0
    interior = np.bincount(index[inside], minlength=len(values))
    solid = is_foreground & (areas >= MIN_REGION) & (interior >= MIN_INTERIOR * areas)
    if areas[solid].sum() < MIN_COVERED * max(int((~background).sum()), 1):
        return {}
    return {int(value): int(area) for value, area in zip(values[solid], areas[solid], strict=True)}


def _describe(regions: dict[int, int], size: int) -> str:
    """List IDs with their fractions of the image, the largest first."""
    by_size = sorted(regions.items(), key=lambda item: -item[1])
    shown = [
        f"{value} ({100 * area / size:.1f} %)" if area else str(value) for value, area in by_size[:MAX_SHOWN]
    ]
    return ", ".join(shown) + (", …" if len(by_size) > MAX_SHOWN else "")


def _upright(mask: Floats, path: FilePath) -> Floats:
    """Invert a mask that is white at nearly all of the border and black inside."""
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]) > 0.5
    if border.mean() < INVERTED_BORDER or not (mask <= 0.5).any():
        return mask
    log.warning("%s: the mask is white around a black region; inverted, as white should be the object", path)
    return 1 - mask
