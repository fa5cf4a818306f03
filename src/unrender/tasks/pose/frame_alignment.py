"""Alignment of one object to one video frame: color regions, texture and depth in one Gauss-Newton step."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unrender.tasks.pose.color_regions import (
    Array,
    Histograms,
    Lines,
    color_bins,
    foreground_probability,
    locate_contour,
    sample_lines,
)
from unrender.tasks.pose.normal_equations import (
    NormalEquations,
    apply_twist,
    flow_jacobians,
    twist_between,
    zero_equations,
)
from unrender.tasks.pose.surface_texture import Levels, Reference, normalized_levels, sample_bilinear
from unrender.tasks.pose.tracking_window import (
    Contour,
    FrameWindow,
    ModelView,
    box_blur,
    find_contour,
    image_gradients,
    unproject,
)

Pose = NDArray[np.float64]

MIN_TEXTURE_ERROR, MIN_KEYFRAME_ERROR, TEXTURE_ERROR = 0.15, 0.45, 0.5
"""Limits of the deviation of normalized brightness: minimum for the model's texture, for keyframes, whose poses have
errors and whose shading changes, and maximum."""
DEPTH_ERROR, MAX_DEPTH_ERROR = 0.02, 0.15
"""Expected and largest deviation of measured depth, in radii; larger ones belong to other objects."""
MAX_TEXTURE_SCALE = 2.0
"""The texture is aligned once the contour is, at this scale and finer: it converges from a few pixels only."""
VISIBLE_TOLERANCE = 0.06
"""A point is visible if it is not farther than the rendered depth by more, in radii."""
ROTATION_PRIOR, TRANSLATION_PRIOR = 0.1, 0.3
"""Standard deviations of the update, in radians and in radii: they hold what the image does not determine."""
PRIOR_WEIGHT = 20.0
INNER_STEPS = 3
LINE_REACH = 1.5
"""Residuals beyond this many samples, or twice the median, are downweighted."""
MAX_OCCLUDED_FRACTION = 0.6
NEARBY_RADIUS, MIN_NEARBY, MIN_FREE_FRACTION = 3, 0.4, 0.25
"""Points among colors that are less probable, on average within a radius, are hidden, if enough others are not."""
NUM_DEPTH_POINTS = 300


@dataclasses.dataclass
class FrameEvidence:
    """What a frame shows in a window: pixels, foreground probabilities, and images for the texture."""

    window: FrameWindow
    probability: Array
    nearby: Array
    """Foreground probability, averaged nearby."""
    use_texture: bool
    center: NDArray[np.float64]
    """Center of the object, around which the frame is cropped, in pixels of the frame."""
    _blurred: dict[int, Array] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def levels(self) -> Levels | None:
        """Images for the texture; None without."""
        return normalized_levels(self.window.gray) if self.use_texture else None

    def probability_at(self, scale: float) -> Array:
        """Return the foreground probability, averaged over the spacing of the samples."""
        radius = int(scale / 2)
        if radius == 0:
            return self.probability
        if radius not in self._blurred:
            self._blurred[radius] = box_blur(self.probability, radius)
        return self._blurred[radius]


def gather_evidence(
    window: FrameWindow, histograms: Histograms, use_texture: bool, center: NDArray[np.float64]
) -> FrameEvidence:
    """Prepare the images of a window around the center of the object."""
    probability = foreground_probability(histograms, color_bins(window.color, histograms.is_gray))
    return FrameEvidence(window, probability, box_blur(probability, NEARBY_RADIUS), use_texture, center)


class Measurements(NamedTuple):
    """The correspondences of one rendering of the model, from which a pose is updated."""

    contour: Contour
    lines: Lines
    scale: float
    points: Array
    """Points of the contour in the model's frame."""
    references: list[Reference]
    level: int
    surface: Array | None
    """Points of the surface in the model's frame, for the depth term."""
    surface_normals: Array | None


def measure(
    evidence: FrameEvidence, view: ModelView, pose: Pose, references: list[Reference], scale: float
) -> Measurements | None:
    """Find correspondences at a pose; None if too little of the object is in the window."""
    contour = find_contour(view)
    if len(contour.centers) < 12:
        return None
    samples = sample_lines(evidence.probability_at(scale), contour.centers, contour.normals, scale)
    lines = locate_contour(samples, scale)
    lines = _without_occluded(lines, evidence, contour)
    points = _to_model(unproject(evidence.window, contour.centers, contour.depths), pose)
    if scale > MAX_TEXTURE_SCALE:
        references = []
    visible = [_visible_part(reference, evidence, view, pose) for reference in references]
    surface, normals = _surface_points(evidence.window, view, pose)
    return Measurements(
        contour,
        lines,
        scale,
        points,
        [reference for reference in visible if len(reference.points) >= 12],
        0 if scale < 2 else 1,
        surface,
        normals,
    )


def _to_model(points: Array, pose: Pose) -> Array:
    moved: Array = ((points - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32)
    return moved


def _without_occluded(lines: Lines, evidence: FrameEvidence, contour: Contour) -> Lines:
    """Ignore lines without the object's colors, unless most are, and those where measured depth is nearer."""
    weight, window = lines.weight, evidence.window
    if lines.is_saturated.mean() < MAX_OCCLUDED_FRACTION:
        weight = np.where(lines.is_saturated, 0, weight)
    if window.depth is not None:
        inner = contour.centers - 2 * contour.normals
        column, row = (inner[:, k].astype(np.int32).clip(0, window.shape[1 - k] - 1) for k in (0, 1))
        measured = window.depth[row, column]
        weight = np.where((measured > 0) & (measured < contour.depths - 2 * MAX_DEPTH_ERROR), 0, weight)
    return lines._replace(weight=weight)


def _visible_part(reference: Reference, evidence: FrameEvidence, view: ModelView, pose: Pose) -> Reference:
    """Keep the points that face the camera and are not hidden by regions with the colors of the background."""
    window = evidence.window
    camera = reference.points @ pose[:3, :3].T.astype(np.float32) + pose[:3, 3].astype(np.float32)
    x, y = (camera[:, k] / camera[:, 2] * window.focal[k] + window.center[k] for k in (0, 1))
    height, width = window.shape
    inside = (x >= 2) & (x < width - 2) & (y >= 2) & (y < height - 2) & (camera[:, 2] > 0)
    column, row = (v.clip(0, n - 1).astype(np.int32) for v, n in ((x, width), (y, height)))
    surface = view.depth[row, column]
    seen = inside & (surface > 0) & (camera[:, 2] < surface + VISIBLE_TOLERANCE)
    free = seen & (evidence.nearby[row, column] > MIN_NEARBY)
    if free.sum() >= MIN_FREE_FRACTION * seen.sum():
        seen = free
    return reference._replace(points=reference.points[seen], values=reference.values[seen])


def _surface_points(window: FrameWindow, view: ModelView, pose: Pose) -> tuple[Array | None, Array | None]:
    """Return points and normals of the rendered surface, in the model's frame, where depth is measured."""
    if window.depth is None:
        return None, None
    gradient_y, gradient_x = image_gradients(view.depth)
    smooth = (np.hypot(gradient_x, gradient_y) < 0.2) & view.mask & (window.depth > 0)
    rows, columns = smooth.nonzero()
    if len(rows) < 20:
        return None, None
    step = max(1, len(rows) // NUM_DEPTH_POINTS)
    rows, columns = rows[::step], columns[::step]
    depth = view.depth[rows, columns]
    xy = np.stack([columns + 0.5, rows + 0.5], 1).astype(np.float32)
    points = unproject(window, xy, depth)
    # the tangents of the surface along rows and columns of the image
    slope_x, slope_y = gradient_x[rows, columns], gradient_y[rows, columns]
    flat = (xy - window.center) / window.focal
    along_x = np.stack([depth / window.focal[0] + flat[:, 0] * slope_x, flat[:, 1] * slope_x, slope_x], 1)
    along_y = np.stack([flat[:, 0] * slope_y, depth / window.focal[1] + flat[:, 1] * slope_y, slope_y], 1)
    normals = np.cross(along_y, along_x)
    normals /= np.maximum(np.sqrt((normals**2).sum(1, keepdims=True)), 1e-9)
    return _to_model(points, pose), (normals @ pose[:3, :3]).astype(np.float32)


def update_pose(evidence: FrameEvidence, found: Measurements, pose: Pose, predicted: Pose) -> Pose:
    """Take Gauss-Newton steps on all terms, with a prior towards the predicted pose."""
    for _ in range(INNER_STEPS):
        equations = (
            region_equations(evidence.window, found, pose)
            .plus(texture_equations(evidence, found, pose))
            .plus(depth_equations(evidence.window, found, pose))
        )
        prior = PRIOR_WEIGHT * np.array([ROTATION_PRIOR**-2.0] * 3 + [TRANSLATION_PRIOR**-2.0] * 3)
        hessian = equations.hessian + np.diag(prior)
        right = equations.right - prior * twist_between(predicted, pose)
        twist = np.asarray(np.linalg.solve(hessian, right), np.float64)
        excess = max(float(np.linalg.norm(twist[:3])) / 0.35, float(np.linalg.norm(twist[3:])) / 0.7, 1.0)
        pose = apply_twist(pose, twist / excess)
    return pose


def project(points: Array, pose: Pose, window: FrameWindow) -> tuple[Array, Array, Array, Array]:
    """Return x, y, points in the camera frame, and their offsets from the object's center."""
    offsets = points @ pose[:3, :3].T.astype(np.float32)
    camera = offsets + pose[:3, 3].astype(np.float32)
    x = camera[:, 0] / camera[:, 2] * window.focal[0] + window.center[0]
    y = camera[:, 1] / camera[:, 2] * window.focal[1] + window.center[1]
    return x, y, camera, offsets


def contour_residuals(found: Measurements, x: Array, y: Array) -> Array:
    """Return how far along its normal each point of the contour has to move, in pixels."""
    centers, normals = found.contour.centers, found.contour.normals
    moved = normals[:, 0] * (x - centers[:, 0]) + normals[:, 1] * (y - centers[:, 1])
    residual: Array = found.lines.shift - moved
    return residual


def region_equations(window: FrameWindow, found: Measurements, pose: Pose) -> NormalEquations:
    """Return the normal equations of the correspondence lines."""
    x, y, camera, offsets = project(found.points, pose, window)
    residual = contour_residuals(found, x, y)
    by_x, by_y = flow_jacobians(offsets, camera, window.focal)
    normals = found.contour.normals
    weight = found.lines.weight
    reach = max(LINE_REACH * found.scale, 2 * float(np.median(np.abs(residual))))
    if (
        found.scale < 2
    ):  # residuals that are larger than predicted mean that the colors separate the object badly
        weight = weight / max(1.0, float((weight * residual**2).sum() / max(float((weight > 0).sum()), 1.0)))
    weight = weight / (1 + (residual / reach) ** 2) ** 2
    return NormalEquations.of(normals[:, :1] * by_x + normals[:, 1:] * by_y, residual, weight)


def texture_residuals(
    levels: Levels, found: Measurements, reference: Reference, pose: Pose, window: FrameWindow
) -> tuple[Array, Array]:
    """Return the residuals of normalized brightness and their Jacobian."""
    x, y, camera, offsets = project(reference.points, pose, window)
    k = found.level
    stack = np.stack([levels.value[k], levels.gradient_x[k], levels.gradient_y[k]])
    value, gradient_x, gradient_y = sample_bilinear(stack, x, y)
    by_x, by_y = flow_jacobians(offsets, camera, window.focal)
    jacobian = gradient_x[:, None] * by_x + gradient_y[:, None] * by_y
    return reference.values[:, k] - value, jacobian


def texture_equations(evidence: FrameEvidence, found: Measurements, pose: Pose) -> NormalEquations:
    """Return the normal equations of the texture."""
    total = zero_equations()
    if evidence.levels is None:
        return total
    for reference in found.references:
        residual, jacobian = texture_residuals(evidence.levels, found, reference, pose, evidence.window)
        rank = len(residual) // 3  # up to half of the points may be occluded
        deviation = 2.3 * float(np.partition(np.abs(residual), rank)[rank])
        least = MIN_TEXTURE_ERROR if reference.is_exact and found.level == 0 else MIN_KEYFRAME_ERROR
        deviation = min(max(deviation, least), TEXTURE_ERROR)
        weight = deviation**-2 / (1 + (residual / (2 * deviation)) ** 2) ** 2
        total = total.plus(NormalEquations.of(jacobian, residual, weight.astype(np.float32)))
    return total


def depth_residuals(window: FrameWindow, found: Measurements, pose: Pose) -> tuple[Array, Array]:
    """Return the distances of measured points from the surface along its normals, and their Jacobian."""
    assert found.surface is not None
    assert found.surface_normals is not None
    assert window.depth is not None
    x, y, camera, offsets = project(found.surface, pose, window)
    height, width = window.shape
    column, row = (v.clip(0, n - 1).astype(np.int32) for v, n in ((x, width), (y, height)))
    measured = window.depth[row, column]
    xy = np.stack([x, y], 1)
    target = unproject(window, xy, measured)
    normals = found.surface_normals @ pose[:3, :3].T.astype(np.float32)
    residual = ((target - camera) * normals).sum(1)
    residual = np.where(measured > 0, residual, np.float32(1e3))
    jacobian = np.concatenate([np.cross(offsets, normals), normals], 1)
    return residual.astype(np.float32), jacobian.astype(np.float32)


def depth_equations(window: FrameWindow, found: Measurements, pose: Pose) -> NormalEquations:
    """Return the normal equations of the point-to-plane distances of measured depth."""
    if found.surface is None:
        return zero_equations()
    residual, jacobian = depth_residuals(window, found, pose)
    reach = MAX_DEPTH_ERROR * max(1.0, found.scale)
    weight = np.where(np.abs(residual) < reach, (1 - (residual / reach) ** 2) ** 2, 0) / DEPTH_ERROR**2
    return NormalEquations.of(jacobian, np.where(weight > 0, residual, 0), weight.astype(np.float32))
