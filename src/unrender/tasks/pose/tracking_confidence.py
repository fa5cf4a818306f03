"""Confidence of a pose in a frame: how well contour, edges, texture, shading and depth agree with it."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unrender.tasks.pose.color_regions import HALF_LENGTH, sample_lines
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
from unrender.tasks.pose.surface_texture import MIN_POINTS

AGREEING_ERROR = 0.35
"""A point of the texture agrees up to this difference."""
MIN_EDGE = 0.03
"""Smallest difference of brightness of an image edge."""
EDGE_REACH, EDGE_RATIO = 2, 0.7
"""The contour lies at an edge if one within this many pixels is not much weaker than the strongest of the line."""

CONSTANT, CONTOUR, EDGES, MODEL_TEXTURE = -8.2, 4.9, 7.8, 7.4
"""Coefficients of the logistic model of the confidence, fitted to 1478 frames of tracking_sequences.py in benchmarks/:
cow, spot and bob, textured and in one color, from true and from wrong initial poses."""
KEYFRAME_TEXTURE, DEPTH = 3.0, 7.4
"""The same for keyframes, which agree with wrong poses, too: not significant in the fit; and for depth, as for texture.
"""
CHANCE, FULL_POINTS = 0.8, 100
"""Texture that agrees less speaks against a pose; with this many points, it counts fully."""


class Agreement(NamedTuple):
    """How well a pose explains a frame; fractions are in [0, 1]."""

    supported: float
    """Fraction of the contour that is found within two pixels of where it should be."""
    edges: float
    """Fraction of the contour that lies at an edge of the image."""
    model_texture: float
    """Fraction of the visible texture and shading of the model that agrees; nan without."""
    num_model_texture: int
    keyframe_texture: float
    """Fraction of the visible texture of keyframes that agrees; nan without."""
    num_keyframe_texture: int
    depth: float
    """Fraction of the measured depth inside the contour that agrees; nan without depth."""

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


def assess(evidence: FrameEvidence, found: Measurements, pose: Pose) -> Agreement:
    """Measure how well a pose explains a frame, from correspondences found at it."""
    lines = found.lines
    x, y, *_ = project(found.points, pose, evidence.window)
    residual = contour_residuals(found, x, y)
    informative = lines.weight * found.scale**2 > 0.15
    supported = (np.abs(residual) < 2 * found.scale) & informative
    return Agreement(
        float(supported.mean()),
        float(_at_edges(evidence, found).mean()),
        *_agreeing_texture(evidence, found, pose, is_exact=True),
        *_agreeing_texture(evidence, found, pose, is_exact=False),
        _agreeing_depth(evidence, found, pose),
    )


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
    evidence = (
        (MODEL_TEXTURE, agreement.model_texture, agreement.num_model_texture),
        (KEYFRAME_TEXTURE, agreement.keyframe_texture, agreement.num_keyframe_texture),
        (DEPTH, agreement.depth, FULL_POINTS),
    )
    for weight, fraction, count in evidence:
        if count >= MIN_POINTS and not math.isnan(fraction):
            value += weight * min(count / FULL_POINTS, 1.0) * (fraction - CHANCE)
    return 1 / (1 + math.exp(-value))
