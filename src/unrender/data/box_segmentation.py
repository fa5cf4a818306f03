"""Segmentation of an object in a box, by the colors inside and around it."""

import numpy as np
from numpy.typing import NDArray

from unrender.errors import InputError
from unrender.io.geometry_data import Floats

BINS = 16
"""Histogram bins per color channel."""
MARGIN = 0.4
"""Width of the surroundings of the box, relative to its longer side,"""
MIN_MARGIN = 10
"""and at least, in pixels."""
MIN_SIDE = 8
"""Minimum side of a box, in pixels."""
ROUNDS = 8
SMOOTHING = 0.02
"""Radius, relative to the longer side of the box, over which probabilities are averaged."""
FLOOR = 1e-4
"""Probability of a color that a histogram does not contain."""
CENTER, CORNER = 0.75, 0.15
"""Prior probability of the object in the center and at the corners of the box."""
MIN_FRACTION, MAX_FRACTION = 0.03, 0.97
"""Fractions of the box that an object covers."""

Box = tuple[float, float, float, float]


def segment_box(image: Floats, box: Box) -> Floats:
    """Return the mask of the object in a box (left, top, right, bottom in pixels), 0 or 1 for each pixel.

    Pixels outside of the box are background. Histograms of the colors of object and background are estimated in turns
    with the probability of each pixel, which is averaged over its neighbors.
    Raises InputError if the box is outside of the image or too small, or if its colors do not differ from those around.
    """
    from scipy import ndimage

    left, top, right, bottom = checked_box(box, image.shape)
    side = max(right - left, bottom - top)
    margin = max(MIN_MARGIN, round(MARGIN * side))
    rows = slice(max(0, top - margin), min(image.shape[0], bottom + margin))
    columns = slice(max(0, left - margin), min(image.shape[1], right + margin))
    bins = _color_bins(image[rows, columns, :3])
    prior = np.zeros(bins.shape, np.float32)
    prior[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = _prior(
        bottom - top, right - left
    )
    probability, radius = prior, max(1, round(SMOOTHING * side))
    for _ in range(ROUNDS):
        likelihood = _ratio(bins, probability)
        odds = likelihood * prior / (1 - prior)
        probability = ndimage.uniform_filter(odds / (1 + odds), 2 * radius + 1) * (prior > 0)
    solid = _largest_component(probability > 0.5)
    covered = float(solid.sum()) / ((right - left) * (bottom - top))
    if not MIN_FRACTION < covered < MAX_FRACTION:
        raise InputError(
            f"no object found in the box: {100 * covered:.0f} % of it has other colors than its surroundings; give a "
            "mask of the object (--mask)"
        )
    mask: Floats = np.zeros(image.shape[:2], np.float32)
    mask[rows, columns] = solid
    return mask


def checked_box(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return a box in whole pixels within an image; InputError if it is invalid."""
    height, width = shape[:2]
    if len(box) != 4 or not all(np.isfinite(box)) or not (box[0] < box[2] and box[1] < box[3]):
        raise InputError(f"`box` should be left, top, right, bottom in pixels, got {box}")
    left, right = (int(np.clip(round(x), 0, width)) for x in (box[0], box[2]))
    top, bottom = (int(np.clip(round(y), 0, height)) for y in (box[1], box[3]))
    if min(right - left, bottom - top) < MIN_SIDE:
        raise InputError(
            f"`box` has {right - left} × {bottom - top} pixels in an image of {width} × {height}; at least "
            f"{MIN_SIDE} × {MIN_SIDE} are required"
        )
    return left, top, right, bottom


def _prior(height: int, width: int) -> Floats:
    """Return the prior probability of the object in a box: it decreases from the center to the corners."""
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    values: Floats = (CENTER - (CENTER - CORNER) * (x * x + y * y) / 2).astype(np.float32)
    return values


def _color_bins(image: Floats) -> NDArray[np.int64]:
    red, green, blue = np.moveaxis(np.minimum(image * BINS, BINS - 1).astype(np.int64), -1, 0)
    bins: NDArray[np.int64] = (red * BINS + green) * BINS + blue
    return bins


def _ratio(bins: NDArray[np.int64], probability: Floats) -> Floats:
    """Return the likelihood ratio of every pixel: how much more often the object has its color than the background."""
    from scipy import ndimage

    tables = []
    for weight in (probability, 1 - probability):
        counts = np.bincount(bins.ravel(), weight.ravel(), minlength=BINS**3).reshape(BINS, BINS, BINS)
        smooth = ndimage.gaussian_filter(counts, 0.7).ravel()
        tables.append(smooth / max(float(smooth.sum()), 1e-9) + FLOOR)
    ratio: Floats = (tables[0] / tables[1])[bins].astype(np.float32)
    return ratio


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest connected region, without holes."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(labels == largest)
    return filled
