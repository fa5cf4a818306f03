"""Color regions: foreground and background histograms, and correspondence lines across the contour of an object.

The pose is updated such that the contour separates the colors of the object from those around it (Stoiber et al.,
"SRT3D: A Sparse Region-Based 3D Object Tracking Approach for the Real World", IJCV 2022, sections 3 and 4).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

BINS = 16
"""Bins per color channel."""
GRAY_BINS = 64
BLUR = np.array([0.25, 0.5, 0.25], np.float32)
"""Each color also counts in the neighboring bins."""
PRIOR = 0.3
"""Weight of the first histograms, which are never forgotten."""
HALF_LENGTH = 8
"""Samples of a correspondence line on either side of the contour."""
MAX_SHIFT = 6
"""Largest shift of the contour along a line, in samples."""
STEP_AMPLITUDE, STEP_WIDTH = 0.43, 0.8
"""The smoothed step function of the contour: the amplitude accounts for wrong colors, the width for blur."""
MIN_PROBABILITY = 0.02


class Histograms(NamedTuple):
    """Color histograms of the object and its surroundings, each normalized to a sum of 1."""

    foreground: Array
    background: Array
    is_gray: bool


class Lines(NamedTuple):
    """Correspondence lines: where the contour lies along each, with its uncertainty, in pixels."""

    shift: Array
    """Mean shift of the contour along the outward normal."""
    variance: Array
    weight: Array
    """Information on the shift: 0 where the colors do not tell."""
    is_saturated: NDArray[np.bool_]
    """The contour may lie beyond the ends of the line."""
    separation: Array
    """Mean probability of the colors at the predicted contour, 1 if all agree, in [0, 1]."""


def color_bins(image: Array, is_gray: bool) -> NDArray[np.int32]:
    """Return the index of the histogram bin of every pixel, of colors in [0, 1]."""
    if is_gray:
        return np.minimum(image[..., 0] * GRAY_BINS, GRAY_BINS - 1).astype(np.int32)
    red, green, blue = np.moveaxis(np.minimum(image * BINS, BINS - 1).astype(np.int32), -1, 0)
    bins: NDArray[np.int32] = (red * BINS + green) * BINS + blue
    return bins


def count_colors(
    bins: NDArray[np.int32], inside: NDArray[np.bool_], outside: NDArray[np.bool_], is_gray: bool
) -> Histograms:
    """Compute the histograms of two regions."""
    return Histograms(_histogram(bins[inside], is_gray), _histogram(bins[outside], is_gray), is_gray)


def _histogram(bins: NDArray[np.int32], is_gray: bool) -> Array:
    shape = (GRAY_BINS,) if is_gray else (BINS,) * 3
    counts = np.bincount(bins, minlength=int(np.prod(shape))).astype(np.float32).reshape(shape)
    for axis in range(len(shape)):
        padded = np.pad(counts, [(int(k == axis),) * 2 for k in range(len(shape))])
        low, middle, high = (np.take(padded, np.arange(n, n + shape[axis]), axis) for n in range(3))
        counts = BLUR[0] * low + BLUR[1] * middle + BLUR[2] * high
    return counts.ravel() / max(float(counts.sum()), 1e-6)


def blend(old: Histograms, new: Histograms, rate: float) -> Histograms:
    """Update histograms with those of a new frame."""
    return Histograms(
        (1 - rate) * old.foreground + rate * new.foreground,
        (1 - rate) * old.background + rate * new.background,
        old.is_gray,
    )


def foreground_probability(histograms: Histograms, bins: NDArray[np.int32]) -> Array:
    """Return the posterior probability that each pixel belongs to the object, by its color."""
    floor = 2e-5
    foreground, background = histograms.foreground + floor, histograms.background + floor
    table = foreground / (foreground + background)
    return np.clip(table, MIN_PROBABILITY, 1 - MIN_PROBABILITY).astype(np.float32)[bins]


def _step_table() -> tuple[Array, Array]:
    """Return the probabilities that a sample lies inside and outside, for every shift and sample."""
    samples, shifts = np.arange(-HALF_LENGTH, HALF_LENGTH + 1), np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
    step = STEP_AMPLITUDE * np.tanh((samples[None] - shifts[:, None]) / (2 * STEP_WIDTH))
    return (0.5 - step).astype(np.float32), (0.5 + step).astype(np.float32)


INSIDE, OUTSIDE = _step_table()
SHIFTS = np.arange(-MAX_SHIFT, MAX_SHIFT + 1).astype(np.float32)
UNIFORM_VARIANCE = float((SHIFTS**2).mean())


def sample_lines(probability: Array, centers: Array, normals: Array, scale: float) -> Array:
    """Sample the foreground probability along lines, `scale` pixels apart: [lines, samples]; 0.5 outside the image."""
    steps = scale * np.arange(-HALF_LENGTH, HALF_LENGTH + 1, dtype=np.float32)
    x = centers[:, :1] + normals[:, :1] * steps
    y = centers[:, 1:] + normals[:, 1:] * steps
    height, width = probability.shape
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    valid = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    values = probability[row.clip(0, height - 1), column.clip(0, width - 1)]
    return np.where(valid, values, np.float32(0.5))


def locate_contour(samples: Array, scale: float) -> Lines:
    """Compute the distribution of the contour's shift along each line from the probabilities of its samples."""
    terms = INSIDE * samples[:, None] + OUTSIDE * (1 - samples[:, None])
    logarithm = np.log(terms).sum(2)
    density = np.exp(logarithm - logarithm.max(1, keepdims=True))
    density /= density.sum(1, keepdims=True)
    mean = density @ SHIFTS
    variance = (density @ SHIFTS**2) - mean**2
    information = np.maximum(1 / (variance + 0.8) - 1 / UNIFORM_VARIANCE, 0)
    near = samples[:, HALF_LENGTH - 6 : HALF_LENGTH].mean(1) - samples[
        :, HALF_LENGTH + 1 : HALF_LENGTH + 7
    ].mean(1)
    return Lines(
        (scale * mean).astype(np.float32),
        (scale**2 * variance).astype(np.float32),
        (information / scale**2).astype(np.float32),
        np.abs(mean) > MAX_SHIFT - 1,
        ((near + 1) / 2).astype(np.float32),
    )
