"""Segmentation of an object against a plain background, as the coverage of each pixel."""

import numpy as np
from numpy.typing import NDArray

from unrender.errors import InputError
from unrender.io.geometry_data import Floats

SIDE = 320
"""Longer side of the image that the background is fitted to, in pixels."""
LEAST_SIDE = 8
"""Pixels along its shorter side: fewer do not tell a polynomial from an object."""
TRIALS = 500
"""Guesses from six pixels of the border each: one is right with 40 % of it hidden, but for 1 in 10 billion."""
DEGREE, QUADRATIC = 4, 6
"""Highest degree of a background's polynomial; terms up to degree 2."""
EXPONENTS = tuple(np.array([(i, d - i) for d in range(DEGREE + 1) for i in range(d + 1)]).T)
"""Of y and x in each term, the lowest degree first."""
LEAST_RANK = 1e-6
"""Of a fit, the least singular value, as part of the largest, with which its polynomial is determined."""
CLOSEST = 0.6
"""Part of the border by which a guess is judged."""
GROWTH = (6, 6, 6, 15, 15, 15, 15, 15)
"""Terms of the polynomials fitted one after the other."""
MEDIAN_LENGTH = 1.54
"""Of three standard normal numbers."""
TAIL_LENGTH = 3.37
"""Of three standard normal numbers, exceeded by one in a hundred."""
CLEAR = 4.5
"""Standard deviations of the noise that a background stays within."""
STRIKING = 2.0
"""Times as far from the background an object reaches somewhere, and no lone pixel of noise."""
QUIET = 1 / 255
"""The least noise assumed: one step of 8 bits."""
LOUDEST = 0.025
"""The most noise of a plain background."""
WINDOW, STRUCTURE = 6, 0.55
"""Window in pixels, and the largest deviation of its mean from a plain background, relative to the noise."""
PLAIN = 0.55
"""The least part of the border that is plain background."""
ECHO = 0.1
"""Part of an edge's contrast that JPEG leaves beside it,"""
REACH = 17
"""within a window of this many pixels."""
EDGE = 5
"""Window in pixels in which an edge meets the full color of the object."""
SMALLEST_PART, SMALLEST_HOLE = 0.05, 0.001
"""Sizes that count, of the size of the largest part."""
TOGETHER = 0.8
"""Minimum fraction of the foreground pixels in such components."""

ADVICE = "give a mask of the object (--mask)"
Mask = NDArray[np.bool_]


def segment_object(image: Floats) -> Floats:
    """Return the fraction of each pixel that an object covers, in front of a plain background.

    The background is a polynomial of degree 4 per color, fitted to the border and grown from there. The object is what
    differs from it by more than noise and compression artifacts, if it is connected. At its edge, the fraction is the
    difference relative to the largest one nearby.
    """
    from scipy import ndimage

    difference = _difference(image)
    if difference.max() < STRIKING:
        raise InputError(f"nothing differs from the background; {ADVICE}")
    nearby = ndimage.maximum_filter(difference, REACH)
    solid = _parts(difference > np.maximum(1.0, ECHO * nearby))
    del nearby
    edge = ndimage.maximum_filter(solid, EDGE) & ~ndimage.minimum_filter(solid, 3)
    strongest = ndimage.maximum_filter(difference, EDGE)
    cover: Floats = solid.astype(np.float32)
    cover[edge] = difference[edge] / strongest[edge]
    cover *= ndimage.maximum_filter(_parts(cover > 0.5), 3)  # beside an edge, echoes stand apart from it
    return cover


def _difference(image: Floats) -> Floats:
    """Return the distance of each pixel from the background color, in units in which noise stays below 1."""
    height, width = image.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise InputError(
            f"an image of {width} × {height} pixels is too small to tell an object from its background; {ADVICE}"
        )
    step = -(-max(height, width) // SIDE)
    rows, columns = (_every(min(step, size // LEAST_SIDE), size) for size in (height, width))
    down, across = _powers(height), _powers(width)
    coefficients, noise = _grow_background(image[rows, columns], _terms(down[rows], across[columns]))
    squares = np.zeros((height, width), np.float32)
    for channel in range(3):
        table = np.zeros((DEGREE + 1, DEGREE + 1))
        table[EXPONENTS] = coefficients[:, channel]
        background = (down @ table).astype(np.float32) @ across.T.astype(np.float32)
        squares += np.square(image[..., channel] - background)
    difference: Floats = np.sqrt(squares, out=squares) / np.float32(CLEAR * noise)
    return difference


def _every(step: int, size: int) -> slice:
    return slice((size - 1) % step // 2, None, step)


def _powers(size: int) -> Floats:
    """Return powers of the pixels' positions between -1 and 1."""
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
    coefficients[:QUADRATIC] = _guess(image[border].astype(np.float64), terms[border])
    for num_terms in GROWTH:
        residuals = image - terms @ coefficients
        lengths = np.linalg.norm(residuals, axis=-1)
        noise = max(float(np.median(lengths[background])) / MEDIAN_LENGTH, QUIET)
        near = lengths < CLEAR * noise
        background = ndimage.binary_propagation(near & border, mask=near)
        fit, _, rank, _ = np.linalg.lstsq(terms[background][:, :num_terms], image[background], LEAST_RANK)
        if rank == num_terms:  # otherwise these pixels leave the polynomials open
            coefficients[:num_terms] = fit
    if noise > LOUDEST or near[border].mean() < PLAIN or _has_structure(residuals, background):
        raise InputError(f"the background is not plain; {ADVICE}")
    surely = ndimage.binary_closing(background, iterations=2) | background
    tail = float(np.quantile(lengths[surely], 0.99)) / TAIL_LENGTH
    noise = min(max(noise, tail), LOUDEST)  # what was compressed has more large values than normal noise
    return coefficients, noise


def _has_structure(residuals: Floats, background: Mask) -> bool:
    """Return whether the deviations of neighboring pixels are correlated, unlike those of noise."""
    from scipy import ndimage

    fraction = ndimage.uniform_filter(background.astype(np.float32), WINDOW)
    sums = ndimage.uniform_filter(residuals * background[..., None], (WINDOW, WINDOW, 1))
    most = fraction > 0.5 + 0.5 / WINDOW**2  # of the pixels, between half and one more
    means = sums[most] / fraction[most][:, None]
    return _typical(means) > max(2 * QUIET, STRUCTURE * _typical(residuals[background]))


def _typical(values: Floats) -> float:
    return float(np.sqrt(np.square(values).sum() / max(values.size, 1)))


def _guess(colors: Floats, terms: Floats) -> Floats:
    """Return the polynomials of degree 2 through six random pixels that `CLOSEST` of the others are nearest to.

    Pixels that do not determine a polynomial, such as six of one edge, guess nothing.
    """
    chosen = np.random.default_rng(0).integers(len(colors), size=(TRIALS, QUADRATIC))
    systems = terms[chosen][..., :QUADRATIC]
    sizes = np.linalg.svd(systems, compute_uv=False)
    determined = sizes[:, -1] > LEAST_RANK * sizes[:, 0]
    guesses = np.linalg.solve(systems[determined], colors[chosen[determined]])
    distances = [np.linalg.norm(colors - terms[:, :QUADRATIC] @ guess, axis=-1) for guess in guesses]
    best: Floats = guesses[np.argmin(np.quantile(distances, CLOSEST, axis=1))]
    return best


def _parts(different: Mask) -> Mask:
    """Keep the parts that are not small beside the largest, and their holes likewise."""
    from scipy import ndimage

    labels = ndimage.label(different)[0]
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    parts = (sizes >= SMALLEST_PART * sizes.max())[labels]
    if parts.sum() < TOGETHER * sizes.sum():
        raise InputError(f"the background is not plain, too many parts differ from it; {ADVICE}")
    labels = ndimage.label(~parts)[0]
    holes = (np.bincount(labels.ravel()) >= SMALLEST_HOLE * sizes.max())[labels]
    filled: Mask = parts | ~holes
    return filled
