"""Pose estimation: find the pose of a known object in a photo or a point cloud."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import describe_value
from unrender._struct import TensorStruct
from unrender.data.photos import Photo
from unrender.errors import InputError, ShapeError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud, is_measured
from unrender.render.texture import Texture
from unrender.tasks.pose.cloud_alignment import MAX_CLOUD_STEPS, MAX_POINTS, MODEL_ERROR, align_point_cloud
from unrender.tasks.pose.levenberg_marquardt import Fit, keep_best, levenberg_marquardt, select
from unrender.tasks.pose.object_model import Model, Placement, make_model, simplify_for_resolution
from unrender.tasks.pose.photo_alignment import (
    MARGIN,
    Window,
    crop_window,
    estimate_color_error,
    evaluate,
    object_side,
)
from unrender.tasks.pose.systematic_errors import (
    MASK_ERROR_IF_VISIBLE,
    NO_ERRORS,
    SystematicErrors,
    estimate_focal_error,
    estimate_mask_error,
)
from unrender.tasks.pose.view_search import expected_distance, perturb_pose, search_views

PoseStatus = Literal["converged", "ambiguous", "failed"]
EQUIVALENT_COST_RATIO = 1.5
"""Poses are equivalent to the best one up to this ratio of costs."""
MAX_ROTATION_STD_DEGREES = 10.0
"""A pose is ambiguous if its rotation is less certain than this."""
LIMITS = {
    "num_views": (20, 20_000),
    "num_starts": (1, 2_000),
    "resolution": (32, 2048),
    "max_candidates": (1, 100),
    "seed": (0, 2**63 - 1),
}
SEARCH_SIZE = 64
MIN_OBJECT_PIXELS = 8
MASK_ERROR = 0.5
"""Standard deviation, in pixels, by which a mask is too large or too small all around: the residuals do not show it."""
MAX_COVERED_FRACTION = 0.98
"""Maximum fraction of the photo that the object may cover."""
MIN_POINTS = 20
MAX_DEPTH_RATIO = 5.0
"""Maximum ratio of the measured depth to the depth expected from the object's size; beyond, units differ."""
SAME_POSE_ANGLE = math.radians(5)
"""Poses that differ by less are merged."""


class QualityCriteria(NamedTuple):
    """Thresholds for the status of a pose."""

    min_agreement: float
    """Below, the estimation has failed."""
    min_unambiguous_agreement: float
    """Below, the pose is ambiguous."""
    max_cost: float
    """Above, the estimation has failed."""
    cost_tolerance: float
    """Cost differences below do not discriminate poses."""
    bias: float
    """Systematic error of the translation in radii, relative to the cost, independent of the number of measurements."""
    max_translation_std: float
    """Above, in radii, the pose is ambiguous."""


PHOTO_CRITERIA = QualityCriteria(0.7, 0.93, math.inf, 0.0, 0.0, 0.1)
CLOUD_CRITERIA = QualityCriteria(0.5, 0.0, 0.065**2, MODEL_ERROR**2, 10.0, math.inf)
"""The bias is due to noise on curved surfaces, where closest points are systematically displaced. For half views of an
armadillo the translation is off by 0.004 radii with noise of 0.02, and by 0.036 with 0.06."""


@dataclasses.dataclass(frozen=True)
class FindPose:
    """Estimate the pose of a known object, without an initial guess.

    In photos, views of the object from all directions are matched with the silhouette; the best poses are refined
    together, coarse to fine, on silhouette, color (under unknown lighting) and depth. In point clouds, all translations
    of a thousand rotations are searched, and the best poses minimize the distance between points and surface.
    """

    use_color: bool = True
    """Compare color and shading inside the silhouette, not only the silhouette."""
    num_views: int = 800
    """Number of view directions in the search; their angular distance is about 200° / √num_views."""
    num_starts: int = 128
    """Number of poses that are refined, from the search or from the guess."""
    resolution: int = 256
    """Resolution of the last stage: pixels per side of the window around the object; lower for small objects."""
    max_candidates: int = 8
    """Maximum number of equivalent poses to report."""
    focal_length_std: float = 0.1
    """Standard deviation of the focal length of photos, relative to it; 0 for a calibrated camera."""
    seed: int = 0
    """Random seed for subsampling clouds of more than 20,000 points."""


class PoseEstimate(TensorStruct):
    """The estimated pose of an object, with its uncertainty, equivalent candidates, and status.

    Poses are 4 × 4 rigid transforms from the mesh's frame and units to the camera frame (+x right, +y down, +z
    forward).
    """

    candidates: Float[Tensor, "poses 4 4"]
    """Equivalent poses, best first; several for symmetric objects."""
    scores: Float[Tensor, " poses"]
    """Cost of the best pose divided by the cost of each: 1 for the best."""
    agreements: Float[Tensor, " poses"]
    """IoU of rendered and photographed silhouette; for clouds, the inlier fraction."""
    covariance: Float[Tensor, "6 6"]
    """Covariance of the best pose: rotation vector (radians, about the object's center) and translation, in camera
    axes."""
    status: PoseStatus
    """converged: unique and reliable. ambiguous: several poses, or an uncertain rotation. failed: no pose fits."""
    message: str = ""
    """Systematic errors that the residuals show, of the focal length or of the mask; empty if none is evident."""

    @property
    def camera_from_object(self) -> Float[Tensor, "4 4"]:
        """The best pose."""
        return self.candidates[0]

    @property
    def agreement(self) -> float:
        """Agreement of the best pose."""
        return float(self.agreements[0])

    @property
    def rotation_std_degrees(self) -> float:
        """Standard deviation of the rotation about its least certain axis; at most 180."""
        return min(180.0, math.degrees(_max_std(self.covariance[:3, :3])))

    @property
    def translation_std(self) -> float:
        """Standard deviation of the translation along its least certain direction, in world units."""
        return _max_std(self.covariance[3:, 3:])


@dataclasses.dataclass(frozen=True)
class FindPoseStep:
    """The state of pose estimation after a step."""

    index: int
    last_index: int
    """Index of the last possible step; estimation may end before."""
    stage: str
    """Resolution in pixels; for clouds: search, coarse, fine."""
    fit: Fit
    placement: Placement
    num_measurements: float
    """Number of independent measurements among pixels or points."""
    criteria: QualityCriteria
    distance_error: float = 0.0
    """Systematic error of the distance, relative to it, due to the mask's size."""
    systematic: SystematicErrors = NO_ERRORS
    """Errors of the focal length and of the mask; estimated in the last step."""

    @property
    def cost(self) -> float:
        """Cost of the best pose: mean squared normalized residual; for clouds, in squared radii."""
        return float(self.fit.cost[0])

    @functools.cached_property
    def result(self) -> PoseEstimate:
        """The estimate at this step, in world units."""
        return _estimate(self)

    def to(self, device: torch.device | str) -> Self:
        """Return a copy on another device; the optimization itself stays on the device of its input."""
        center, radius, origin = self.placement
        return dataclasses.replace(
            self,
            fit=Fit(*(tensor.to(device) for tensor in self.fit)),
            placement=Placement(center.to(device), radius, origin.to(device)),
        )


def find_pose(
    mesh: Mesh,
    observation: Photo | PointCloud,
    config: FindPose = FindPose(),
    *,
    texture: Texture | None = None,
    guess: Float[Tensor, "4 4"] | None = None,
) -> Iterator[FindPoseStep]:
    """Estimate the pose of an object in a photo or a point cloud, in steps; the last step has the final result.

    A cloud may show a part of the object, with noise and some clutter, in the units of the mesh; poses are in its
    frame. A `guess` replaces the global search. Check `status` of the result before you use the pose.
    Raises InputError before the first step for an invalid mesh, and for clouds and depths in other units than the mesh.

    Example: `*_, last = find_pose(mesh, load_photo("photo.jpg", mask="mask.png"))`, then `last.result`.
    """
    _check(config, guess)
    if not isinstance(observation, Photo | PointCloud):
        raise ShapeError(
            f"find_pose: `observation` should be a Photo or a PointCloud, got {describe_value(observation)}"
        )
    model, placement = make_model(mesh, texture, config.use_color)
    if isinstance(observation, Photo):
        _check_photo(observation)
        starts = _starts_near(guess, placement, config)
        return _find_in_photo(model, placement, observation.to(torch.float32), starts, config)
    points, placement = _normalize_points(observation, placement)
    return _find_in_cloud(model, placement, points, _starts_near(guess, placement, config), config)


def _starts_near(guess: Tensor | None, placement: Placement, config: FindPose) -> Tensor | None:
    return None if guess is None else perturb_pose(placement.from_world(guess)[None], config.num_starts)


def _check(config: FindPose, guess: Tensor | None) -> None:
    for name, (low, high) in LIMITS.items():
        value = getattr(config, name)
        if not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"find_pose: `{name}` should be an integer from {low} to {high}, got {value!r}")
    if not 0 <= config.focal_length_std <= 1:
        raise InputError(
            f"find_pose: `focal_length_std` should be from 0 to 1, got {config.focal_length_std!r}"
        )
    if guess is not None and not is_rigid(guess):
        raise InputError(
            "find_pose: `guess` should be a 4 × 4 rigid transform (rotation and translation) from the mesh to the "
            f"camera, got {describe_value(guess)}"
        )


def _check_photo(photo: Photo) -> None:
    if object_side(photo) < MIN_OBJECT_PIXELS:
        raise InputError(
            f"find_pose: the object is too small in the photo: {object_side(photo)} pixels wide, "
            f"at least {MIN_OBJECT_PIXELS} are required"
        )
    if float((photo.mask > 0.5).float().mean()) > MAX_COVERED_FRACTION:
        raise InputError(
            "find_pose: the object fills the photo, so that its silhouette is not visible; check the mask, or use a "
            "photo taken from farther away"
        )


def is_rigid(pose: object) -> bool:
    """Return whether a value is a finite 4 × 4 rigid transform."""
    if not isinstance(pose, Tensor) or pose.shape != (4, 4) or not bool(pose.isfinite().all()):
        return False
    rotation, bottom = pose[:3, :3].double(), pose.new_tensor([0.0, 0.0, 0.0, 1.0])
    orthonormal = torch.allclose(rotation @ rotation.mT, torch.eye(3).to(rotation), atol=1e-3)
    return orthonormal and float(rotation.det()) > 0 and torch.equal(pose[3], bottom)


class _Stage(NamedTuple):
    size: int
    blur: float
    steps: int
    use_color: bool
    keep: int
    max_cost_ratio: float
    """Maximum cost of the poses to keep, relative to the best one."""


def _plan(photo: Photo, config: FindPose) -> list[_Stage]:
    """Plan a coarse-to-fine schedule: double the resolution up to that of the photo, and drop poses of high cost."""
    finest = max(64, min(config.resolution, 2 * object_side(photo)))
    doubled = itertools.takewhile(lambda size: size < finest, (128 * 2**n for n in itertools.count()))
    color, keep = config.use_color, max(12, config.max_candidates)
    return [
        _Stage(32, 1.5, 6, use_color=False, keep=2 * keep, max_cost_ratio=math.inf),
        *([_Stage(64, 1.2, 6, color, keep, max_cost_ratio=20.0)] if finest > 64 else []),
        *(_Stage(size, 1.0, 6, color, keep, max_cost_ratio=6.0) for size in doubled),
        _Stage(finest, 0.8, 12, color, config.max_candidates, EQUIVALENT_COST_RATIO),
    ]


def _find_in_photo(
    model: Model, placement: Placement, photo: Photo, starts: Tensor | None, config: FindPose
) -> Iterator[FindPoseStep]:
    plan = _plan(photo, config)
    last = sum(stage.steps + 1 for stage in plan)
    index = itertools.count()
    distance_error = 2 * MASK_ERROR / object_side(photo) if photo.depth is None else 0.0
    window, simplified = (
        crop_window(photo, SEARCH_SIZE, placement.radius),
        simplify_for_resolution(model, SEARCH_SIZE),
    )
    _check_depth(simplified, window)
    poses = (
        search_views(simplified, window, config.num_views, config.num_starts) if starts is None else starts
    )
    for stage in plan:
        window, simplified = (
            crop_window(photo, stage.size, placement.radius),
            simplify_for_resolution(model, stage.size),
        )
        if stage.use_color:
            window = estimate_color_error(simplified, window, poses)
        compare = functools.partial(
            evaluate, simplified, blur=stage.blur, shade=stage.use_color, robust=stage.size > SEARCH_SIZE
        )
        measurements = math.sqrt(float(window.area))  # about the number of pixels along the silhouette
        for fit in levenberg_marquardt(functools.partial(compare, window), poses, stage.steps):
            best = keep_best(fit, SAME_POSE_ANGLE, stage.keep)
            name = f"{stage.size} pixels"
            step = FindPoseStep(
                next(index), last, name, best, placement, measurements, PHOTO_CRITERIA, distance_error
            )
            yield step
        poses = keep_best(
            fit, SAME_POSE_ANGLE, stage.keep, stage.max_cost_ratio * float(fit.cost.min())
        ).poses
    if photo.depth is None and step.result.status != "failed":
        best = select(step.fit, torch.tensor([0], device=step.fit.cost.device))
        pixel = window.size / (MARGIN * object_side(photo))
        systematic = SystematicErrors(
            estimate_focal_error(compare, window, best, measurements, config.focal_length_std),
            estimate_mask_error(functools.partial(compare, shade=False), window, best, max(1, round(pixel))),
        )
        distance_error *= MASK_ERROR_IF_VISIBLE / MASK_ERROR if systematic.mask else 1
        yield dataclasses.replace(
            step, index=next(index), distance_error=distance_error, systematic=systematic
        )


def _find_in_cloud(
    model: Model, placement: Placement, points: Tensor, starts: Tensor | None, config: FindPose
) -> Iterator[FindPoseStep]:
    generator = torch.Generator().manual_seed(config.seed)
    steps = align_point_cloud(model.mesh, points, generator, starts)
    for index, (stage, fit) in enumerate(steps):
        best = keep_best(fit, SAME_POSE_ANGLE, config.max_candidates)
        yield FindPoseStep(
            index, MAX_CLOUD_STEPS, stage, best, placement, min(len(points), MAX_POINTS), CLOUD_CRITERIA
        )


def _normalize_points(cloud: PointCloud, placement: Placement) -> tuple[Tensor, Placement]:
    """Center points at their median and scale them to radii, which preserves precision far from the origin."""
    points = cloud.points[cloud.points.isfinite().all(-1)].double()
    points = points[is_measured(points)]
    if len(points) < MIN_POINTS:
        raise InputError(
            f"find_pose: the cloud has too few finite points: {len(points)}, at least {MIN_POINTS} are required"
        )
    some = points[:: 1 + len(points) // 100_000]
    low, center, high = torch.quantile(some, some.new_tensor([0.05, 0.5, 0.95]), dim=0)
    if bool((low == high).all()):
        raise InputError("find_pose: nearly all points of the cloud coincide")
    ratio = float((high - low).norm()) / (2 * placement.radius)
    if not 1 / 50 < ratio < 5:
        raise InputError(
            f"find_pose: the cloud is {ratio:.2g} times as large as the mesh; use the same units for both, and crop "
            "the cloud to the object"
        )
    return ((points - center) / placement.radius).float(), placement._replace(origin=center)


def _check_depth(model: Model, window: Window) -> None:
    if window.depth is None or not bool(window.depth.any()):
        return
    ratio = float(window.depth[window.depth > 0].median()) / expected_distance(model, window)
    if not 1 / MAX_DEPTH_RATIO < ratio < MAX_DEPTH_RATIO:
        times = f"{ratio:,.0f} times" if ratio > 1 else f"1/{1 / ratio:,.0f} of"
        raise InputError(
            f"find_pose: the photo's depth is {times} the depth expected from the size of the object; "
            "use the same units for depth and mesh"
        )


def _estimate(step: FindPoseStep) -> PoseEstimate:
    placement, criteria = step.placement, step.criteria
    equivalent = step.fit.cost <= EQUIVALENT_COST_RATIO * step.fit.cost[0] + criteria.cost_tolerance
    fit = select(step.fit, equivalent.nonzero()[:, 0])
    scale = torch.tensor([1.0] * 3 + [placement.radius] * 3).to(placement.center)
    covariance = _covariance(fit, step.num_measurements).to(placement.center)
    covariance[3:, 3:] += (criteria.bias * step.cost) ** 2 * torch.eye(3).to(covariance)
    along_ray = fit.poses[0, :3, 3].to(covariance)
    covariance[3:, 3:] += step.distance_error**2 * along_ray[:, None] * along_ray
    covariance = covariance * scale[:, None] * scale
    scores = (fit.cost[0] / fit.cost).nan_to_num(nan=1.0)
    shift = _max_std(covariance[3:, 3:]) / placement.radius
    is_uncertain = math.degrees(_max_std(covariance[:3, :3])) > MAX_ROTATION_STD_DEGREES
    message = step.systematic.message
    is_uncertain |= shift > criteria.max_translation_std or bool(message)
    along_ray *= step.systematic.focal.bound * placement.radius
    covariance[3:, 3:] += along_ray[:, None] * along_ray
    return PoseEstimate(
        placement.to_world(fit.poses),
        scores,
        fit.agreement,
        covariance,
        _status(fit, criteria, is_uncertain),
        message,
    )


def _status(fit: Fit, criteria: QualityCriteria, is_uncertain: bool) -> PoseStatus:
    agreement, cost = float(fit.agreement[0]), float(fit.cost[0])
    if agreement < criteria.min_agreement or not cost <= criteria.max_cost or math.isinf(cost):
        return "failed"
    if len(fit.poses) > 1 or is_uncertain or agreement < criteria.min_unambiguous_agreement:
        return "ambiguous"
    return "converged"


def _covariance(fit: Fit, num_measurements: float) -> Tensor:
    """Compute the covariance: the inverse Hessian, scaled by the mean squared residual."""
    if not bool(fit.cost[0].isfinite()):
        return torch.full((6, 6), torch.inf, device=fit.cost.device)
    values, vectors = torch.linalg.eigh(fit.hessian[0].double())
    inverse: Tensor = (
        vectors @ torch.diag(1 / values.clamp(min=1e-9 * float(values[-1]) + 1e-30)) @ vectors.mT
    )
    return inverse * (fit.cost[0].double() / num_measurements)


def _max_std(covariance: Tensor) -> float:
    if not bool(covariance.isfinite().all()):
        return math.inf
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(covariance)[-1])))
