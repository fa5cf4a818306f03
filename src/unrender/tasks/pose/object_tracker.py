"""The tracker of one object: prediction, alignment, confidence, and its colors and keyframes."""

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unrender.geometry.camera import Camera
from unrender.tasks.pose.color_regions import (
    PRIOR,
    Array,
    Histograms,
    blend,
    color_bins,
    count_colors,
)
from unrender.tasks.pose.frame_alignment import (
    Agreement,
    FrameEvidence,
    Pose,
    assess,
    gather_evidence,
    measure,
    update_pose,
)
from unrender.tasks.pose.normal_equations import apply_twist, twist_between
from unrender.tasks.pose.object_model import Model
from unrender.tasks.pose.redetection import LastSeen, candidate_poses
from unrender.tasks.pose.surface_texture import (
    MIN_POINTS,
    Reference,
    make_reference,
    normalized_levels,
    viewing_direction,
)
from unrender.tasks.pose.tracking_window import (
    FrameWindow,
    ModelView,
    box_blur,
    crop_frame,
    projected_box,
    render_luminance,
    render_view,
)

SCALES, WIDE_SCALES = (2.0, 1.0, 1.0), (4.0, 2.0, 1.0, 1.0)
"""Spacing of the samples along the correspondence lines, in pixels, for each iteration; wide for fast motion."""
SEARCH_SCALES = (6.0, 4.0, 2.0, 1.0, 1.0)
MAX_WINDOW_SHIFT = 8
"""The window follows the object if it moves by more pixels during the alignment."""
GOOD_SCORE = 0.75
"""The wide search is skipped if the score of the first one is larger."""
FIRST_SCALES = (3.0, 2.0, 1.5, 1.0)
FIRST_ROUNDS = 3
"""Repetitions in the first frame, each with colors counted at the improved pose."""
VELOCITY_DECAY, UNCERTAIN_DECAY = 0.8, 0.5
LEARNING_RATE = 0.15
"""Weight of a new frame in the histograms."""
KEYFRAME_AGREEMENT = 0.75
"""A keyframe is added if this fraction of the texture agrees, also where colors do not separate the object;"""
KEYFRAME_ANGLE = math.radians(10)
"""A keyframe is added where the view differs from all others by more,"""
MAX_REFERENCE_ANGLE = math.radians(30)
"""and used where it differs by less."""
MAX_KEYFRAMES = 60
OCCLUDER_RADIUS, MIN_INSIDE_PROBABILITY = 4, 0.4
"""Regions inside the contour whose colors are less probable, on average within a radius in pixels, are occluded."""
UPDATE_CONFIDENCE, MIN_CONFIDENCE = 0.8, 0.5
"""Colors are updated from frames with at least the first confidence; a pose is reliable with the second."""
MAX_UNCERTAIN_FRAMES = 3
"""An object is lost after so many frames in a row without a reliable pose."""
CONFIDENCE = (-4.5, 6.5, 7.0, -2.0)
"""Coefficients of the logistic model of the confidence: constant, contour, texture, and constant with texture; chosen
by hand on the sequences of benchmarks/bench_track_pose.py."""
REDETECTION_CONFIDENCE = 0.8
"""A lost object is found again with at least this confidence,"""
MIN_CONFIRMED = 4
"""and its colors and keyframes are updated after so many reliable frames in a row."""
WITHOUT_TEXTURE = 0.5
"""Factor of the confidence if an object with texture shows none."""
MAX_SCALE_CHANGE = 2.0
"""Largest ratio of the distance to the last reliable one."""
TrackStatus = Literal["tracked", "uncertain", "lost"]


@dataclasses.dataclass
class Alignment:
    """The result of aligning the object to a frame."""

    pose: Pose
    agreement: Agreement
    evidence: FrameEvidence
    view: ModelView
    hessian: NDArray[np.float64]


def confidence_of(agreement: Agreement) -> float:
    """Return how much a frame supports a pose, from 0 to 1: 0.5 separates poses within 5 degrees from others."""
    constant, contour, texture, with_texture = CONFIDENCE
    value = constant + contour * agreement.supported
    if agreement.num_texture >= MIN_POINTS:
        value += texture * agreement.texture + with_texture
    if not math.isnan(agreement.depth):
        value += texture * agreement.depth + with_texture
    return 1 / (1 + math.exp(-value))


class ObjectTracker:
    """Tracks one object; poses are of the normalized model, lengths in radii."""

    def __init__(
        self, model: Model, camera: Camera, resolution: int, use_texture: bool, redetect: bool
    ) -> None:
        self.model, self.camera, self.resolution = model, camera, resolution
        self.use_texture, self.redetect = use_texture, redetect
        self.status: TrackStatus = "lost"
        self.confidence = 0.0
        self.num_uncertain, self.num_confirmed, self.has_texture = 0, 0, False
        self.vertices: Array = model.mesh.vertices.numpy()
        self.pose: Pose | None = None
        self.velocity = np.zeros(6)
        self.histograms: Histograms | None = None
        self.first_histograms: Histograms | None = None
        self.keyframes: list[Reference] = []
        self.last_seen = LastSeen(np.eye(4), 0.0)

    def start(
        self, image: NDArray[np.uint8], depth: Array | None, pose: Pose, is_gray: bool
    ) -> Alignment | None:
        """Initialize the colors of the object at a pose in a frame, and refine the pose."""
        self.histograms, self.keyframes, self.velocity = None, [], np.zeros(6)
        self.pose, self.status, self.confidence = pose, "lost", 0.0
        aligned = None
        for _ in range(FIRST_ROUNDS):
            window = self._crop(image, depth, pose)
            if window is None:
                return None
            view = render_view(self.model, window, pose)
            self.histograms = self._count(window, view, is_gray)
            aligned = self.align(image, depth, pose, FIRST_SCALES)
            if aligned is None:
                return None
            pose = aligned.pose
        assert aligned is not None
        self.histograms = self.first_histograms = self._count(aligned.evidence.window, aligned.view, is_gray)
        self.pose = pose
        self.confidence = confidence_of(aligned.agreement)
        self.status = "tracked" if self.confidence >= MIN_CONFIDENCE else "uncertain"
        self.num_uncertain, self.num_confirmed = 0, MIN_CONFIRMED
        self._remember(image, aligned)
        self._add_keyframe(aligned)
        return aligned

    def step(self, image: NDArray[np.uint8], depth: Array | None) -> None:
        """Track the object to the next frame, or search for it if it is lost."""
        if self.histograms is None:
            return
        aligned = self.search(image, depth) if self.status == "lost" else self.track(image, depth)
        self.confidence = 0.0 if aligned is None else self._confidence(aligned)
        required = MIN_CONFIDENCE if self.status != "lost" else REDETECTION_CONFIDENCE
        if aligned is not None and self.confidence >= required:
            self.num_confirmed += 1
            if self.status == "lost":
                self.pose = aligned.pose  # no velocity from before the loss
            self.status, self.num_uncertain = "tracked", 0
            self._accept(aligned)
            self._remember(image, aligned)
            return
        self.num_uncertain, self.num_confirmed = self.num_uncertain + 1, 0
        if self.num_uncertain >= MAX_UNCERTAIN_FRAMES:
            self.status = "lost"
        elif aligned is not None:
            self.status = "uncertain"
            self._accept(aligned)
        self.velocity = UNCERTAIN_DECAY * self.velocity

    def _confidence(self, aligned: Alignment) -> float:
        """Return the confidence; low where an object with texture shows none, or is found at another scale."""
        confidence = confidence_of(aligned.agreement)
        if aligned.agreement.num_texture >= 2 * MIN_POINTS:
            self.has_texture = True
        elif self.has_texture and aligned.agreement.num_texture < MIN_POINTS:
            confidence *= WITHOUT_TEXTURE
        scale = aligned.pose[2, 3] / self.last_seen.pose[2, 3]
        return confidence if 1 / MAX_SCALE_CHANGE < scale < MAX_SCALE_CHANGE else 0.0

    def _remember(self, image: NDArray[np.uint8], aligned: Alignment) -> None:
        pixels = (
            image.shape[0]
            * image.shape[1]
            * float(aligned.evidence.window.focal[0] / self.camera.focal[0]) ** 2
        )
        self.last_seen = LastSeen(aligned.pose, float(aligned.view.mask.sum()) / pixels)

    def predict(self) -> Pose:
        """Predict the pose in the next frame."""
        assert self.pose is not None
        return apply_twist(self.pose, VELOCITY_DECAY * self.velocity)

    def _accept(self, aligned: Alignment) -> None:
        """Continue from a pose, and update colors and keyframes if it is reliable."""
        assert self.pose is not None
        assert self.histograms is not None
        assert self.first_histograms is not None
        self.velocity = twist_between(self.pose, aligned.pose)
        self.pose = aligned.pose
        if self.num_confirmed < MIN_CONFIRMED:
            return
        if aligned.agreement.num_texture >= 2 * MIN_POINTS and aligned.agreement.texture > KEYFRAME_AGREEMENT:
            self._add_keyframe(aligned)
        if self.confidence < UPDATE_CONFIDENCE:
            return
        evidence = aligned.evidence
        new = self._count(evidence.window, aligned.view, self.histograms.is_gray, evidence.probability)
        updated = blend(self.histograms, new, LEARNING_RATE)
        self.histograms = blend(updated, self.first_histograms, PRIOR * LEARNING_RATE)
        self._add_keyframe(aligned)

    def track(self, image: NDArray[np.uint8], depth: Array | None) -> Alignment | None:
        """Align the object near its predicted pose; farther away, too, if it does not agree there."""
        start = self.predict()
        best = self.align(image, depth, start)
        if best is not None and best.agreement.score > GOOD_SCORE:
            return best
        wide = self.align(image, depth, start, WIDE_SCALES)
        found = [aligned for aligned in (best, wide) if aligned is not None]
        return max(found, key=lambda aligned: aligned.agreement.score) if found else None

    def search(self, image: NDArray[np.uint8], depth: Array | None) -> Alignment | None:
        """Search for a lost object: near its last pose, then in the whole frame."""
        assert self.histograms is not None
        assert self.pose is not None
        if not self.redetect:
            return None
        arguments = (self.model, self.camera, self.histograms, self.last_seen, image)
        starts = candidate_poses(*arguments, self.num_uncertain - MAX_UNCERTAIN_FRAMES)
        found = [self.align(image, depth, start, SEARCH_SCALES) for start in starts]
        valid = [aligned for aligned in found if aligned is not None]
        return max(valid, key=lambda aligned: aligned.agreement.score) if valid else None

    def align(
        self, image: NDArray[np.uint8], depth: Array | None, start: Pose, scales: tuple[float, ...] = SCALES
    ) -> Alignment | None:
        """Align the object to a frame from a start; None if it is not in the image."""
        assert self.histograms is not None
        pose, hessian = start, np.zeros((6, 6))
        evidence: FrameEvidence | None = None
        references: list[Reference] = []
        center, has_rendered = np.zeros(2), False
        for scale in (*scales, 0.0):  # the last one assesses the result
            moved = self._image_center(pose)
            if evidence is None or np.abs(moved - center).max() > MAX_WINDOW_SHIFT:
                window = self._crop(image, depth, pose)
                if window is None:
                    return None
                evidence, center = gather_evidence(window, self.histograms, self.use_texture), moved
            view = render_view(self.model, evidence.window, pose)
            if self.use_texture and (scale == scales[0] or (scale == 1.0 and not has_rendered)):
                has_rendered = scale == 1.0
                references = self._references(evidence.window, view, pose)
            found = measure(evidence, view, pose, references, scale or 1.0)
            if found is None:
                return None
            if scale == 0:
                return Alignment(pose, assess(evidence, found, pose), evidence, view, hessian)
            pose, equations = update_pose(evidence, found, pose, start)
            hessian = equations.hessian
        return None

    def _image_center(self, pose: Pose) -> NDArray[np.float64]:
        focal, center = self.camera.focal.numpy(), self.camera.center.numpy()
        pixel: NDArray[np.float64] = pose[:2, 3] / max(pose[2, 3], 1e-3) * focal + center
        return pixel

    def _crop(self, image: NDArray[np.uint8], depth: Array | None, pose: Pose) -> FrameWindow | None:
        box = projected_box(self.vertices, pose, self.camera)
        return None if box is None else crop_frame(image, depth, self.camera, box, self.resolution)

    def _references(self, window: FrameWindow, view: ModelView, pose: Pose) -> list[Reference]:
        """Choose keyframes with a similar view, and render the model's own texture."""
        found = []
        if self.model.has_colors:
            gray = render_luminance(self.model, view)
            rendered = make_reference(normalized_levels(gray, view.mask), window, view, pose)
            found += [] if rendered is None else [rendered._replace(is_exact=True)]
        direction = viewing_direction(pose)
        cosines = [float(direction @ keyframe.direction) for keyframe in self.keyframes]
        order = sorted(range(len(cosines)), key=lambda k: -cosines[k])[:2]
        return found + [self.keyframes[k] for k in order if cosines[k] > math.cos(MAX_REFERENCE_ANGLE)]

    def _add_keyframe(self, aligned: Alignment) -> None:
        levels = aligned.evidence.levels
        if levels is None or len(self.keyframes) >= MAX_KEYFRAMES:
            return
        direction = viewing_direction(aligned.pose)
        if any(float(direction @ key.direction) > math.cos(KEYFRAME_ANGLE) for key in self.keyframes):
            return
        evidence = aligned.evidence
        free = box_blur(evidence.probability, OCCLUDER_RADIUS) > MIN_INSIDE_PROBABILITY
        view = aligned.view._replace(mask=aligned.view.mask & free)
        reference = make_reference(levels, evidence.window, view, aligned.pose, border=6)
        if reference is not None:
            self.keyframes.append(reference)

    def _count(
        self, window: FrameWindow, view: ModelView, is_gray: bool, probability: Array | None = None
    ) -> Histograms:
        """Count the colors around the contour and inside, except for regions with the colors of the background."""
        near = box_blur(view.mask.astype(np.float32), 2)
        inside = near > 0.99
        if probability is not None:
            inside &= box_blur(probability, OCCLUDER_RADIUS) > MIN_INSIDE_PROBABILITY
        return count_colors(color_bins(window.color, is_gray), inside, near < 0.01, is_gray)
