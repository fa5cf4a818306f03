"""Confidence of a pose in a frame: how well contour, edges, texture, shading and depth agree with it."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from unrender.tasks.pose.color_regions import HALF_LENGTH, Array, sample_lines
from unrender.tasks.pose.frame_alignment import (
    DEPTH_ERROR,
    FrameEvidence,
    Measurements,
    Pose,
    contour_residuals,
    depth_residuals,
    project,
    texture_residuals,
)
from unrender.tasks.pose.normal_equations import flow_jacobians
from unrender.tasks.pose.surface_texture import MIN_POINTS
from unrender.tasks.pose.tracking_window import Contour, ModelView, box_blur

AGREEING_ERROR = 0.35
"""A point of the texture agrees up to this difference."""
MIN_EDGE = 0.03
"""Smallest difference of brightness of an image edge."""
EDGE_REACH, EDGE_RATIO = 2, 0.7
"""The contour lies at an edge if one within this many pixels is not much weaker than the strongest of the line."""

HIDDEN_PROBABILITY, MIN_OCCLUDER = 0.35, 0.03
"""A region is hidden if its colors are less probable, and it covers more than a fraction of the object."""
HIDDEN_REACH, HIDDEN_FRACTION, MIN_VISIBLE_CONTOUR = 3, 0.2, 0.25
"""The contour is hidden where such a region fills more than a fraction of the few pixels inside, unless most of it
would be."""
ADDED_POINTS = 3.0
"""Information on every motion, in points of the contour, that is added: a can may spin."""
OUTSIDE_DISTANCE, OUTSIDE_PROBABILITY = 5.0, 0.6
"""Colors that are more probable, so many pixels outside the contour, are the object's."""

CONSTANT, CONTOUR, EDGES, MODEL_TEXTURE = -9.5, 3.9, 6.6, 4.0
"""Coefficients of the logistic model of the confidence. The weights are fitted to alignments from true and from wrong
poses in tracking_sequences.py in benchmarks/: cow, spot and bob, textured and in one color. The constant is smaller
than in the fit, so that a teapot whose spout is hidden, which turns without contradiction, is not tracked."""
VISIBLE, OUTSIDE, DETERMINED = 1.0, -1.2, 4.2
KEYFRAME_TEXTURE, DEPTH = 1.0, 4.0
"""The same for keyframes, which agree with wrong poses, too: not significant in the fit; and for depth, as for texture.
"""
CHANCE, FULL_POINTS = 0.8, 100
"""Texture that agrees less speaks against a pose; with this many points, it counts fully."""


class Agreement(NamedTuple):
    """How well a pose explains a frame; fractions are in [0, 1]."""

    supported: float
    """Fraction of the contour that is found within two pixels of where it should be, where it is not occluded."""
    edges: float
    """Fraction of the contour that lies at an edge of the image, where it is not occluded."""
    model_texture: float
    """Fraction of the visible texture and shading of the model that agrees; nan without."""
    num_model_texture: int
    keyframe_texture: float
    """Fraction of the visible texture of keyframes that agrees; nan without."""
    num_keyframe_texture: int
    depth: float
    """Fraction of the measured depth inside the contour that agrees; nan without depth."""
    visible: float
    """Fraction of the object that is not behind connected regions without its colors."""
    outside: float
    """Fraction of the contour with the colors of the object outside."""
    all_edges: float
    """Fraction of the whole contour that lies at an edge of the image."""
    determined: float
    """Fraction of the contour's information that agrees, for the motion of the object with the least."""

    @property
    def num_texture(self) -> int:
        """Number of points of all texture."""
        return self.num_model_texture + self.num_keyframe_texture

    @property
    def texture(self) -> float:
        """Fraction of all texture that agrees; nan without."""
        if not self.num_texture:
            return math.nan
        values = np.nan_to_num([self.model_texture, self.keyframe_texture])
        return float(values @ [self.num_model_texture, self.num_keyframe_texture]) / self.num_texture


def assess(evidence: FrameEvidence, found: Measurements, view: ModelView, pose: Pose) -> Agreement:
    """Measure how well a pose explains a frame, from correspondences found at it.

    A connected region of disagreement is evidence for an occluder, and disagreement all over for a wrong pose.
    """
    lines, contour = found.lines, found.contour
    x, y, camera, offsets = project(found.points, pose, evidence.window)
    residual = contour_residuals(found, x, y)
    informative = lines.weight * found.scale**2 > 0.15
    supported = (np.abs(residual) < 2 * found.scale) & informative
    occluder = _occluder(evidence, view)
    fraction = box_blur(occluder.astype(np.float32), HIDDEN_REACH)
    hidden = _at_contour(fraction, contour, -HIDDEN_REACH) > HIDDEN_FRACTION
    visible = 1 - float(occluder.sum()) / max(float(view.mask.sum()), 1)
    counts = ~hidden if (~hidden).mean() > MIN_VISIBLE_CONTOUR else np.ones_like(hidden)
    at_edges = _at_edges(evidence, found)
    outside = _at_contour(evidence.nearby, contour, OUTSIDE_DISTANCE) > OUTSIDE_PROBABILITY
    return Agreement(
        float(supported[counts].mean()),
        float(at_edges[counts].mean()),
        *_agreeing_texture(evidence, found, pose, is_exact=True),
        *_agreeing_texture(evidence, found, pose, is_exact=False),
        _agreeing_depth(evidence, found, pose),
        visible,
        float(outside[counts].mean()),
        float(at_edges.mean()),
        _determined(contour, *flow_jacobians(offsets, camera, evidence.window.focal), supported | at_edges),
    )


def _determined(contour: Contour, by_x: Array, by_y: Array, agrees: NDArray[np.bool_]) -> float:
    """Return the smallest ratio, over all motions, of the information of the points that agree to that of all.

    The body of a teapot determines its pose except for a rotation, which the spout determines. A few points are added
    to both, so that a motion that not even the whole contour determines does not count.
    """
    jacobian = (contour.normals[:, :1] * by_x + contour.normals[:, 1:] * by_y).astype(np.float64)
    whole = jacobian.T @ jacobian
    added = np.diag(whole.diagonal() * (ADDED_POINTS / len(jacobian)))
    part = jacobian[agrees].T @ jacobian[agrees]
    inverse = np.linalg.inv(np.linalg.cholesky(whole + added))
    return float(np.linalg.eigvalsh(inverse @ (part + added) @ inverse.T)[0])


def _occluder(evidence: FrameEvidence, view: ModelView) -> NDArray[np.bool_]:
    """Return the large connected regions inside the contour without the colors of the object."""
    parts, _ = label(view.mask & (evidence.nearby < HIDDEN_PROBABILITY))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    occluder: NDArray[np.bool_] = (sizes > MIN_OCCLUDER * view.mask.sum())[parts]
    return occluder


def _at_contour(image: Array, contour: Contour, distance: float) -> Array:
    """Return the values of an image at a distance outside of the contour, in pixels."""
    height, width = image.shape
    column, row = (contour.centers + distance * contour.normals).astype(np.int32).T
    values: Array = image[row.clip(0, height - 1), column.clip(0, width - 1)]
    return values


def _at_edges(evidence: FrameEvidence, found: Measurements) -> NDArray[np.bool_]:
    """Return which points of the contour lie at edges of the image."""
    contour = found.contour
    levels = sample_lines(evidence.window.gray, contour.centers, contour.normals, 1.0)
    steps = np.abs(levels[:, 2:] - levels[:, :-2])
    middle = HALF_LENGTH - 1
    near = steps[:, middle - EDGE_REACH : middle + EDGE_REACH + 1].max(1)
    at_edges: NDArray[np.bool_] = (near > MIN_EDGE) & (near > EDGE_RATIO * steps.max(1))
    return at_edges


def _agreeing_texture(
    evidence: FrameEvidence, found: Measurements, pose: Pose, *, is_exact: bool
) -> tuple[float, int]:
    agreeing, count = 0, 0
    for reference in found.references if evidence.levels is not None else []:
        if reference.is_exact == is_exact:
            assert evidence.levels is not None
            difference, _ = texture_residuals(evidence.levels, found, reference, pose, evidence.window)
            agreeing += int((np.abs(difference) < AGREEING_ERROR).sum())
            count += len(difference)
    return agreeing / count if count else math.nan, count


def _agreeing_depth(evidence: FrameEvidence, found: Measurements, pose: Pose) -> float:
    if found.surface is None:
        return math.nan
    deviation, _ = depth_residuals(evidence.window, found, pose)
    measured = np.abs(deviation[deviation < 1e2])
    return float((measured < 3 * DEPTH_ERROR).mean()) if len(measured) else math.nan


def confidence_of(agreement: Agreement) -> float:
    """Estimate the probability that a pose is correct, within 5 degrees and 5 % of the distance."""
    value = CONSTANT + CONTOUR * agreement.supported + EDGES * agreement.edges
    value += VISIBLE * (agreement.visible - 1) + OUTSIDE * agreement.outside
    value += DETERMINED * agreement.determined
    evidence = (
        (MODEL_TEXTURE, agreement.model_texture, agreement.num_model_texture),
        (KEYFRAME_TEXTURE, agreement.keyframe_texture, agreement.num_keyframe_texture),
        (DEPTH, agreement.depth, FULL_POINTS),
    )
    for weight, fraction, count in evidence:
        if count >= MIN_POINTS and not math.isnan(fraction):
            value += weight * min(count / FULL_POINTS, 1.0) * (fraction - CHANCE)
    return 1 / (1 + math.exp(-value))
