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
    FrameEvidence,
    Pose,
    gather_evidence,
    measure,
    project,
    update_pose,
)
from unrender.tasks.pose.normal_equations import apply_twist, twist_between
from unrender.tasks.pose.object_model import Model
from unrender.tasks.pose.redetection import candidate_poses, first_poses, object_templates
from unrender.tasks.pose.surface_shading import normals_of, shade
from unrender.tasks.pose.surface_texture import (
    MIN_POINTS,
    Reference,
    make_reference,
    normalized_levels,
    sample_bilinear,
    viewing_direction,
)
from unrender.tasks.pose.tracking_confidence import AGREEING_ERROR, Agreement, assess, confidence_of
from unrender.tasks.pose.tracking_window import (
    FrameWindow,
    ModelView,
    box_blur,
    crop_frame,
    projected_box,
    render_view,
)
from unrender.tasks.pose.view_search import Templates

SCALES, WIDE_SCALES = (2.0, 1.0, 1.0), (4.0, 2.0, 1.0, 1.0)
"""Spacing of the samples along the correspondence lines, in pixels, for each iteration; wide for fast motion."""
SEARCH_SCALES = (6.0, 4.0, 2.0, 1.0, 1.0)
MAX_WINDOW_SHIFT = 8
"""The window follows the object if it moves by more pixels during the alignment."""
GOOD_CONFIDENCE = 0.9
"""The wide search is skipped if the confidence of the first one is larger."""
FIRST_SCALES = (3.0, 2.0, 1.5, 1.0)
FIRST_ROUNDS = 3
"""Repetitions in the first frame, each with colors counted at the improved pose."""
VELOCITY_DECAY, UNCERTAIN_DECAY = 0.8, 0.5
LEARNING_RATE, EXPLAINED_RATE = 0.15, 0.3
"""Weight of a new frame in the histograms; larger if the shaded model says which pixels are the object's."""
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
"""An object is lost after so many uncertain frames in a row."""
DOUBTFUL_CONFIDENCE, MAX_DOUBTFUL_FRAMES = 0.4, 12
"""Frames with at least this confidence, which may show an occluder, do not count, up to this number in a row."""
RECOVERY_CONFIDENCE, REDETECTION_CONFIDENCE, FIRST_CONFIDENCE = 0.65, 0.93, 0.8
"""After some uncertain frames, a pose is reliable with at least the first; a lost object is found with the
second, and one that was not at its initial pose in the first frame with the third."""
MIN_HYPOTHESIS, SURE_CONFIDENCE = 0.3, 0.97
"""The best pose of a search is a start of the next one with at least the first; the search ends at the second."""
SEARCH_PERIOD = 3
"""An object that was not at its initial pose is searched for in every third frame."""
MIN_CONFIRMED = 4
"""and its colors and keyframes are updated after so many reliable frames in a row."""
RECOLORED_EDGES, RECOLORED_SUPPORT, RECOLORED_CONFIDENCE = 0.8, 0.6, 0.2
"""The lighting has changed if more of the whole contour lies at image edges, but the colors support less of it: then
all colors inside are counted, also those of the background, and at this confidence."""
MAX_SHADING_ERROR = 0.12
"""Pixels whose brightness differs by more from the shaded model do not update the colors."""
MIN_EXPLAINED = 0.7
"""Fraction of the texture in the first frame that agrees with the shaded model, without which keyframes are used."""
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


class ObjectTracker:
    """Tracks one object; poses are of the normalized model, lengths in radii."""

    def __init__(
        self, model: Model, camera: Camera, resolution: int, use_texture: bool, redetect: bool
    ) -> None:
        self.model, self.camera, self.resolution = model, camera, resolution
        self.use_texture, self.redetect = use_texture, redetect
        self.status: TrackStatus = "lost"
        self.confidence = 0.0
        self.num_uncertain, self.num_doubtful, self.num_confirmed = 0, 0, 0
        self.initial, self.is_gray, self.is_confirmed = np.eye(4), False, False
        self.vertices: Array = model.mesh.vertices.numpy()
        self.pose: Pose | None = None
        self.velocity = np.zeros(6)
        self.histograms: Histograms | None = None
        self.first_histograms: Histograms | None = None
        self.keyframes: list[Reference] = []
        self.normals = normals_of(model)
        self.shading: Array | None = None
        self.is_explained = False
        self.agreement: Agreement | None = None
        self.last_seen = np.eye(4)
        self.templates: Templates | None = None
        self.hypothesis: Pose | None = None

    def start(self, image: NDArray[np.uint8], depth: Array | None, pose: Pose, is_gray: bool) -> None:
        """Begin at an approximate pose; until it is confirmed, also in the next frames."""
        self.initial, self.is_gray, self.is_confirmed = pose, is_gray, False
        self.num_uncertain, self.num_doubtful, self.hypothesis = 0, 0, None
        self._initialize(image, depth, pose)

    def _initialize(
        self, image: NDArray[np.uint8], depth: Array | None, pose: Pose, required: float = MIN_CONFIDENCE
    ) -> None:
        """Initialize the colors of the object at a pose in a frame, and refine the pose."""
        is_gray = self.is_gray
        self.histograms, self.keyframes, self.velocity = None, [], np.zeros(6)
        self.is_explained = False
        self.pose, self.status, self.confidence = pose, "lost", 0.0
        aligned = None
        for _ in range(FIRST_ROUNDS):
            window = self._crop(image, depth, pose)
            if window is None:
                return
            view = render_view(self.model, window, pose)
            self.histograms = self._count(window, view, is_gray)
            aligned = self.align(image, depth, pose, FIRST_SCALES)
            if aligned is None:
                return
            pose = aligned.pose
        assert aligned is not None
        self.is_explained = self._explains(aligned)
        if self.is_explained and not self.model.has_colors:
            aligned = self.align(image, depth, pose) or aligned
            pose = aligned.pose
        self.histograms = self.first_histograms = self._count(aligned.evidence.window, aligned.view, is_gray)
        self.pose = pose
        self.confidence = confidence_of(aligned.agreement)
        self.agreement = aligned.agreement
        self.is_confirmed = self.confidence >= required
        self.status = "tracked" if self.is_confirmed else "uncertain"
        self.num_confirmed = MIN_CONFIRMED
        self.last_seen = aligned.pose
        self._add_keyframe(aligned)

    def _start_again(self, image: NDArray[np.uint8], depth: Array | None) -> None:
        """Try the initial pose in another frame and, now and then, regions with the colors of the model."""
        self.num_uncertain += 1
        starts = [self.initial]
        if self.model.has_colors and self.redetect and self.num_uncertain % SEARCH_PERIOD == 0:
            templates = self._templates_at(self.initial)
            starts += first_poses(self.model, templates, self.camera, self.initial, image, self.is_gray)
        for start in starts:
            self._initialize(image, depth, start, FIRST_CONFIDENCE)
            if self.is_confirmed:
                self.num_uncertain = 0
                return
        self.pose, self.confidence = self.initial, 0.0
        self.status = "lost" if self.num_uncertain >= MAX_UNCERTAIN_FRAMES else "uncertain"

    def step(self, image: NDArray[np.uint8], depth: Array | None) -> None:
        """Track the object to the next frame, or search for it if it is lost."""
        if not self.is_confirmed:
            self._start_again(image, depth)
            return
        aligned = self.search(image, depth) if self.status == "lost" else self.track(image, depth)
        self.confidence = 0.0 if aligned is None else self._confidence(aligned)
        self.agreement = None if aligned is None else aligned.agreement
        required = REDETECTION_CONFIDENCE if self.status == "lost" else MIN_CONFIDENCE
        if self.status == "uncertain" and self.num_uncertain + self.num_doubtful >= MAX_UNCERTAIN_FRAMES:
            required = RECOVERY_CONFIDENCE
        if aligned is not None and self.confidence >= required:
            self.num_confirmed += 1
            if self.status == "lost":
                self.pose, self.hypothesis = aligned.pose, None  # no velocity from before the loss
            self.status, self.num_uncertain, self.num_doubtful = "tracked", 0, 0
            self._accept(aligned)
            self.last_seen = aligned.pose
            return
        is_doubtful = self.status != "lost" and self.confidence >= DOUBTFUL_CONFIDENCE
        is_doubtful &= self.num_doubtful < MAX_DOUBTFUL_FRAMES
        self.num_doubtful += int(is_doubtful)
        self.num_uncertain += int(not is_doubtful)
        self.num_confirmed = 0
        if self.num_uncertain >= MAX_UNCERTAIN_FRAMES:
            self.status = "lost"
        else:
            self.status = "uncertain"
            if aligned is not None:
                self._accept(aligned)
        if not is_doubtful:
            self.velocity = UNCERTAIN_DECAY * self.velocity

    def _confidence(self, aligned: Alignment) -> float:
        """Return the confidence; 0 if the object is found at another scale than before."""
        confidence = confidence_of(aligned.agreement)
        scale = aligned.pose[2, 3] / self.last_seen[2, 3]
        return confidence if 1 / MAX_SCALE_CHANGE < scale < MAX_SCALE_CHANGE else 0.0

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
        agreement = aligned.agreement
        is_recolored = agreement.all_edges > RECOLORED_EDGES and agreement.supported < RECOLORED_SUPPORT
        if self.num_confirmed < MIN_CONFIRMED and not is_recolored:
            return
        if agreement.num_texture >= 2 * MIN_POINTS and agreement.texture > KEYFRAME_AGREEMENT:
            self._add_keyframe(aligned)
        required = MIN_CONFIDENCE if self.is_explained else UPDATE_CONFIDENCE
        if self.confidence < (RECOLORED_CONFIDENCE if is_recolored else required):
            return
        evidence = aligned.evidence
        probability = None if is_recolored else evidence.probability
        new = self._count(evidence.window, aligned.view, self.histograms.is_gray, probability)
        rate = EXPLAINED_RATE if self.is_explained or is_recolored else LEARNING_RATE
        updated = blend(self.histograms, new, rate)
        self.histograms = blend(updated, self.first_histograms, PRIOR * LEARNING_RATE)
        self._add_keyframe(aligned)

    def track(self, image: NDArray[np.uint8], depth: Array | None) -> Alignment | None:
        """Align the object near its predicted pose; farther away, too, if it does not agree there."""
        start = self.predict()
        evidence = self._gather(image, depth, start)
        best = self.align(image, depth, start, SCALES, evidence)
        if best is not None and confidence_of(best.agreement) > GOOD_CONFIDENCE:
            return best
        wide = self.align(image, depth, start, WIDE_SCALES, evidence)
        found = [aligned for aligned in (best, wide) if aligned is not None]
        return max(found, key=lambda aligned: confidence_of(aligned.agreement), default=None)

    def search(self, image: NDArray[np.uint8], depth: Array | None) -> Alignment | None:
        """Search for a lost object at the best pose of the previous search, and at candidates in the whole frame."""
        assert self.histograms is not None
        assert self.pose is not None
        if not self.redetect:
            return None
        arguments = (self._templates_at(self.last_seen), self.camera, self.histograms, self.last_seen, image)
        starts = candidate_poses(*arguments, self.num_uncertain - MAX_UNCERTAIN_FRAMES)
        best, best_confidence = None, 0.0
        for start in starts if self.hypothesis is None else [self.hypothesis, *starts]:
            aligned = self.align(image, depth, start, SEARCH_SCALES)
            confidence = 0.0 if aligned is None else self._confidence(aligned)
            if confidence > best_confidence:
                best, best_confidence = aligned, confidence
            if confidence > SURE_CONFIDENCE:
                break
        self.hypothesis = best.pose if best is not None and best_confidence > MIN_HYPOTHESIS else None
        return best

    def _templates_at(self, pose: Pose) -> Templates:
        if self.templates is None:
            self.templates = object_templates(self.model, float(pose[2, 3]))
        return self.templates

    def align(
        self,
        image: NDArray[np.uint8],
        depth: Array | None,
        start: Pose,
        scales: tuple[float, ...] = SCALES,
        evidence: FrameEvidence | None = None,
    ) -> Alignment | None:
        """Align the object to a frame from a start; None if it is not in the image.

        `evidence` is that of another alignment to this frame, which is used if the object is near it.
        """
        pose = start
        references: list[Reference] = []
        has_rendered = False
        for scale in (*scales, 0.0):  # the last one assesses the result
            center = self._image_center(pose)
            if evidence is None or np.abs(center - evidence.center).max() > MAX_WINDOW_SHIFT:
                evidence = self._gather(image, depth, pose)
            if evidence is None:
                return None
            view = render_view(self.model, evidence.window, pose)
            if self.use_texture and (scale == scales[0] or (scale == 1.0 and not has_rendered)):
                has_rendered = scale == 1.0
                references = self._references(evidence, view, pose)
            found = measure(evidence, view, pose, references, scale or 1.0)
            if found is None:
                return None
            if scale == 0:
                return Alignment(pose, assess(evidence, found, view, pose), evidence, view)
            pose = update_pose(evidence, found, pose, start)
        return None

    def _image_center(self, pose: Pose) -> NDArray[np.float64]:
        focal, center = self.camera.focal.numpy(), self.camera.center.numpy()
        pixel: NDArray[np.float64] = pose[:2, 3] / max(pose[2, 3], 1e-3) * focal + center
        return pixel

    def _crop(self, image: NDArray[np.uint8], depth: Array | None, pose: Pose) -> FrameWindow | None:
        box = projected_box(self.vertices, pose, self.camera)
        return None if box is None else crop_frame(image, depth, self.camera, box, self.resolution)

    def _gather(self, image: NDArray[np.uint8], depth: Array | None, pose: Pose) -> FrameEvidence | None:
        """Crop the frame around the object, and prepare its images; None if it is not in the image."""
        assert self.histograms is not None
        window = self._crop(image, depth, pose)
        if window is None:
            return None
        return gather_evidence(window, self.histograms, self.use_texture, self._image_center(pose))

    def _references(self, evidence: FrameEvidence, view: ModelView, pose: Pose) -> list[Reference]:
        """Choose keyframes with a similar view, and shade the model as the frame should show it."""
        found, window = list[Reference](), evidence.window
        shading = self._shade(evidence, view, pose)
        if shading is not None and (self.model.has_colors or self.is_explained):
            self.shading = shading
            levels = normalized_levels(shading, view.mask)
            rendered = make_reference(levels, window, view, pose)
            found += [] if rendered is None else [rendered._replace(is_exact=True)]
        direction = viewing_direction(pose)
        cosines = [float(direction @ keyframe.direction) for keyframe in self.keyframes]
        order = sorted(range(len(cosines)), key=lambda k: -cosines[k])[:2]
        return found + [self.keyframes[k] for k in order if cosines[k] > math.cos(MAX_REFERENCE_ANGLE)]

    def _shade(self, evidence: FrameEvidence, view: ModelView, pose: Pose) -> Array | None:
        return shade(self.model, self.normals, view, evidence.window, evidence.probability, pose)

    def _explains(self, aligned: Alignment) -> bool:
        """Return whether the shaded model explains the texture of a frame, so that keyframes have nothing to add."""
        evidence, view, pose = aligned.evidence, aligned.view, aligned.pose
        shading = self._shade(evidence, view, pose)
        if evidence.levels is None or shading is None:
            return False
        points = make_reference(evidence.levels, evidence.window, view, pose, border=6)
        if points is None:
            return True
        x, y, *_ = project(points.points, pose, evidence.window)
        expected = sample_bilinear(normalized_levels(shading, view.mask).value, x, y)[0]
        return float((np.abs(points.values[:, 0] - expected) < AGREEING_ERROR).mean()) > MIN_EXPLAINED

    def _add_keyframe(self, aligned: Alignment) -> None:
        levels = aligned.evidence.levels
        if levels is None or len(self.keyframes) >= MAX_KEYFRAMES or self.is_explained:
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
            shading = self.shading if self.is_explained else None
            if shading is not None and shading.shape == inside.shape:
                inside &= np.abs(window.gray - shading) < MAX_SHADING_ERROR
        return count_colors(color_bins(window.color, is_gray), inside, near < 0.01, is_gray)
