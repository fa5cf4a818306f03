"""Segmentation of an object against a plain background, as the coverage of each pixel."""

import numpy as np
from numpy.typing import NDArray

from unrender.errors import InputError
from unrender.io.geometry_data import Floats

FIT_SIZE = 320
"""Longer side of the image that the background is fitted to, in pixels."""
MIN_SIDE = 8
"""Minimum of its shorter side, in pixels: fewer cannot separate the polynomial from an object."""
NUM_TRIALS = 500
"""RANSAC trials of six border pixels each: with 40 % outliers, all fail once in 10 billion images."""
DEGREE, QUADRATIC = 4, 6
"""Highest degree of the background polynomial; number of terms up to degree 2."""
EXPONENTS = tuple(np.array([(i, d - i) for d in range(DEGREE + 1) for i in range(d + 1)]).T)
"""Exponents of y and x in each term, in order of degree."""
RANK_TOLERANCE = 1e-6
"""Smallest singular value, relative to the largest, of a well-determined fit."""
INLIER_QUANTILE = 0.6
"""Quantile of the border's residuals that scores a trial."""
TERMS_PER_FIT = (6, 6, 6, 15, 15, 15, 15, 15)
"""Numbers of terms of the successive fits."""
MEDIAN_LENGTH = 1.54
"""Median length of a vector of three standard normal numbers."""
TAIL_LENGTH = 3.37
"""99th percentile of the same length."""
NOISE_SIGMAS = 4.5
"""Standard deviations of the noise within which a pixel is background."""
MIN_CONTRAST = 2.0
"""Minimum contrast of an object at its most distinct pixel, in units of `NOISE_SIGMAS` deviations."""
MIN_NOISE = 1 / 255
"""Minimum noise: one 8-bit step."""
MAX_NOISE = 0.025
"""Maximum noise of a plain background."""
WINDOW, MAX_STRUCTURE = 6, 0.55
"""Window in pixels, and the largest deviation of its mean from a plain background, relative to the noise."""
MIN_PLAIN_FRACTION = 0.55
"""Minimum fraction of the border that is plain background."""
RINGING = 0.1
"""Contrast of JPEG ringing beside an edge, as a fraction of the edge's,"""
RINGING_WINDOW = 17
"""within a window of this many pixels."""
EDGE_WINDOW = 5
"""Window in pixels in which an edge reaches the full color of the object."""
MIN_COMPONENT, MIN_HOLE = 0.05, 0.001
"""Minimum sizes of components and holes, as fractions of the largest component."""
MIN_KEPT_FRACTION = 0.8
"""Minimum fraction of the foreground pixels in large components."""

ADVICE = "give a mask of the object (--mask)"
Mask = NDArray[np.bool_]


def segment_object(image: Floats) -> Floats:
    """Return the fraction of each pixel that an object covers, in front of a plain background.

    The background is a polynomial of degree 4 per color, fitted to the border and grown from there. The object is
    the connected region that differs from it by more than noise and compression artifacts. At its edge, the fraction is
    the difference relative to the largest one nearby.
    """
    from scipy import ndimage

    difference = _difference(image)
    if difference.max() < MIN_CONTRAST:
        raise InputError(f"no object found: all pixels match the background; {ADVICE}")
    nearby = ndimage.maximum_filter(difference, RINGING_WINDOW)
    solid = _large_components(difference > np.maximum(1.0, RINGING * nearby))
    del nearby
    edge = ndimage.maximum_filter(solid, EDGE_WINDOW) & ~ndimage.minimum_filter(solid, 3)
    strongest = ndimage.maximum_filter(difference, EDGE_WINDOW)
    coverage: Floats = solid.astype(np.float32)
    coverage[edge] = difference[edge] / strongest[edge]
    # ringing beside an edge forms components of its own
    coverage *= ndimage.maximum_filter(_large_components(coverage > 0.5), 3)
    return coverage


def _difference(image: Floats) -> Floats:
    """Return the distance of each pixel from the background color, scaled such that noise stays below 1."""
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"an image of {width} × {height} pixels is too small to tell an object from its background; {ADVICE}"
        )
    step = -(-max(height, width) // FIT_SIZE)
    rows, columns = (_every(min(step, size // MIN_SIDE), size) for size in (height, width))
    down, across = _powers(height), _powers(width)
    coefficients, noise = _grow_background(image[rows, columns], _terms(down[rows], across[columns]))
    squares = np.zeros((height, width), np.float32)
    for channel in range(3):
        table = np.zeros((DEGREE + 1, DEGREE + 1))
        table[EXPONENTS] = coefficients[:, channel]
        background = (down @ table).astype(np.float32) @ across.T.astype(np.float32)
        squares += np.square(image[..., channel] - background)
    difference: Floats = np.sqrt(squares, out=squares) / np.float32(NOISE_SIGMAS * noise)
    return difference


def _every(step: int, size: int) -> slice:
    return slice((size - 1) % step // 2, None, step)


def _powers(size: int) -> Floats:
    """Return powers of normalized pixel positions, between -1 and 1."""
    return np.vander((2 * np.arange(size) + 1) / size - 1, DEGREE + 1, increasing=True)


def _terms(down: Floats, across: Floats) -> Floats:
    terms: Floats = down[:, None, EXPONENTS[0]] * across[:, EXPONENTS[1]]
    return terms


def _grow_background(image: Floats, terms: Floats) -> tuple[Floats, float]:
    """Fit polynomials to the border, then to the region connected to it; return them and the noise."""
    from scipy import ndimage

    border = np.ones(image.shape[:2], bool)
    border[1:-1, 1:-1] = False
    background, coefficients = border, np.zeros((terms.shape[-1], image.shape[-1]))
    coefficients[:QUADRATIC] = _fit_robustly(image[border].astype(np.float64), terms[border])
    for num_terms in TERMS_PER_FIT:
        residuals = image - terms @ coefficients
        lengths = np.linalg.norm(residuals, axis=-1)
        noise = max(float(np.median(lengths[background])) / MEDIAN_LENGTH, MIN_NOISE)
        near = lengths < NOISE_SIGMAS * noise
        background = ndimage.binary_propagation(near & border, mask=near)
        fit, _, rank, _ = np.linalg.lstsq(terms[background][:, :num_terms], image[background], RANK_TOLERANCE)
        if rank == num_terms:  # otherwise these pixels do not determine the polynomials
            coefficients[:num_terms] = fit
    if noise > MAX_NOISE or near[border].mean() < MIN_PLAIN_FRACTION or _has_structure(residuals, background):
        raise InputError(f"the background is not plain; {ADVICE}")
    closed = ndimage.binary_closing(background, iterations=2) | background
    tail = float(np.quantile(lengths[closed], 0.99)) / TAIL_LENGTH
    noise = min(max(noise, tail), MAX_NOISE)  # compression artifacts have heavier tails than normal noise
    return coefficients, noise


def _has_structure(residuals: Floats, background: Mask) -> bool:
    """Return whether the deviations of neighboring pixels are correlated, unlike those of noise."""
    from scipy import ndimage

    fraction = ndimage.uniform_filter(background.astype(np.float32), WINDOW)
    sums = ndimage.uniform_filter(residuals * background[..., None], (WINDOW, WINDOW, 1))
    mostly_background = (
        fraction > 0.5 + 0.5 / WINDOW**2
    )  # between half of the window and one pixel more, so rounding does not matter
    means = sums[mostly_background] / fraction[mostly_background][:, None]
    return _rms(means) > max(2 * MIN_NOISE, MAX_STRUCTURE * _rms(residuals[background]))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.square(values).sum() / max(values.size, 1)))


def _fit_robustly(colors: Floats, terms: Floats) -> Floats:
    """Fit polynomials of degree 2 by RANSAC, from six random pixels each, scored by a quantile of the residuals.

    Degenerate samples, such as six pixels on one line, are skipped.
    """
    chosen = np.random.default_rng(0).integers(len(colors), size=(NUM_TRIALS, QUADRATIC))
    systems = terms[chosen][..., :QUADRATIC]
    sizes = np.linalg.svd(systems, compute_uv=False)
    determined = sizes[:, -1] > RANK_TOLERANCE * sizes[:, 0]
    candidates = np.linalg.solve(systems[determined], colors[chosen[determined]])
    distances = [
        np.linalg.norm(colors - terms[:, :QUADRATIC] @ candidate, axis=-1) for candidate in candidates
    ]
    best: Floats = candidates[np.argmin(np.quantile(distances, INLIER_QUANTILE, axis=1))]
    return best


def _large_components(foreground: Mask) -> Mask:
    """Keep components that are not small relative to the largest, and fill small holes."""
    from scipy import ndimage

    labels = ndimage.label(foreground)[0]
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = (sizes >= MIN_COMPONENT * sizes.max())[labels]
    if kept.sum() < MIN_KEPT_FRACTION * sizes.sum():
        raise InputError(f"the background is not plain, too many separate regions differ from it; {ADVICE}")
    labels = ndimage.label(~kept)[0]
    holes = (np.bincount(labels.ravel()) >= MIN_HOLE * sizes.max())[labels]
    filled: Mask = kept | ~holes
    return filled
