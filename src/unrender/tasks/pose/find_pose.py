"""Pose from a picture: find where an object stands before the camera, or where the camera stood."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import describe_value
from unrender._struct import TensorStruct
from unrender.data.photos import Photo
from unrender.errors import InputError, ShapeError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.render.texture import Texture
from unrender.tasks.pose.cloud import CLOUD_STEPS, LIKENESS, MAX_POINTS, align_cloud
from unrender.tasks.pose.descent import Fit, descend, keep_best, select
from unrender.tasks.pose.model import Model, Placement, for_size, make_model
from unrender.tasks.pose.photo import Window, cut_window, evaluate, expect_color_error, object_side
from unrender.tasks.pose.search import expected_distance, search, search_near

Verdict = Literal["converged", "ambiguous", "failed"]
EQUAL_COST = 1.5
"""Poses that cost less than this many times the best explain the photo as well."""
FREE_TURN = 10.0
"""Degrees of uncertainty from which on a rotation is not known."""
LIMITS = {
    "num_views": (20, 20_000),
    "num_starts": (1, 2_000),
    "resolution": (32, 2048),
    "max_candidates": (1, 100),
    "seed": (0, 2**63 - 1),
}
SEARCH_SIZE = 64
LEAST_PIXELS = 8
FULLEST = 0.98
"""Share of the photo that the object covers, at most."""
LEAST_POINTS = 20
MOST_OFF = 5.0
"""Times by which depth may differ from what size tells, before its units are in doubt."""
SAME_POSE = math.radians(5)
"""Poses nearer to each other are one."""


class Standard(NamedTuple):
    """What poses are judged by."""

    least_agreement: float
    """Below, what is seen is something else."""
    sure_agreement: float
    """Below, another pose may explain it better."""
    most_cost: float
    """Beyond, what is seen is something else."""
    no_cost: float
    """Differences below tell no poses apart."""
    bias: float
    """Times the cost that the shift is off, in radii, however much is measured."""


PHOTO = Standard(0.7, 0.93, math.inf, 0.0, 0.0)
CLOUD = Standard(0.5, 0.0, 0.065**2, LIKENESS**2, 10.0)
"""Bias: noise moves points off a curved surface, but their nearest points on it not back by as much. Half views of an
armadillo are off by 0.004 radii with noise of 0.02, and by 0.036 with 0.06."""


@dataclasses.dataclass(frozen=True)
class FindPose:
    """Find where an object stands before the camera, without a first guess.

    The object is compared from all around with the photo's silhouette; the best poses descend together, on few pixels
    first and then on more, until silhouette, color (in whatever light) and depth agree. In clouds, all shifts of a
    thousand rotations are tried, and the best descend on the distance between points and surface.
    """

    use_color: bool = True
    """Compare colors, and the shading of the surface, inside the silhouette too."""
    num_views: int = 800
    """Directions from which a photo's object is looked at; their distance is about 200° / √num_views."""
    num_starts: int = 128
    """Poses that are followed from there, or from a guess."""
    resolution: int = 256
    """Side of the window around the object, in pixels, in the last stage; less for an object of fewer pixels."""
    max_candidates: int = 8
    """Report at most so many poses that explain the photo or cloud equally well."""
    seed: int = 0
    """Of the points drawn from clouds that have more than 20,000."""


class PoseEstimate(TensorStruct):
    """Where an object stands, how sure that is, and what else it could be.

    Poses are 4 × 4 and rigid: from the mesh's frame and units to the camera's (+x right, +y down, +z forward).
    """

    candidates: Float[Tensor, "poses 4 4"]
    """What explains the photo about as well as anything, best first."""
    scores: Float[Tensor, " poses"]
    """Least cost divided by the cost of each: 1 for the best."""
    agreements: Float[Tensor, " poses"]
    """Intersection over union of rendered and photographed silhouette; for clouds, the share of inliers."""
    covariance: Float[Tensor, "6 6"]
    """Of the best, by rotation vector (radians, about the middle of the object) and shift, in the camera's axes."""
    verdict: Verdict

    @property
    def camera_from_object(self) -> Float[Tensor, "4 4"]:
        """The best pose."""
        return self.candidates[0]

    @property
    def agreement(self) -> float:
        """Of the best pose."""
        return float(self.agreements[0])

    @property
    def rotation_std_degrees(self) -> float:
        """Standard deviation about the axis where it is largest; 180 at most, where nothing fixes it."""
        return min(180.0, math.degrees(_largest_deviation(self.covariance[:3, :3])))

    @property
    def translation_std(self) -> float:
        """Standard deviation in the direction where it is largest, in world units."""
        return _largest_deviation(self.covariance[3:, 3:])


@dataclasses.dataclass(frozen=True)
class FindPoseStep:
    """Where the search stands after a step."""

    index: int
    last_index: int
    """No step comes after this one; the search may well end before."""
    stage: str
    """How many pixels a side are compared; for clouds: search, coarse, fine."""
    fit: Fit
    placement: Placement
    num_measurements: float
    """Independent ones among pixels or points."""
    standard: Standard

    @property
    def cost(self) -> float:
        """Of the best pose: the mean squared residual, in units of what is expected; of clouds, in squared radii."""
        return float(self.fit.cost[0])

    @functools.cached_property
    def result(self) -> PoseEstimate:
        """The estimate at this step, in world units."""
        return _estimate(self)


def find_pose(
    mesh: Mesh,
    seen: Photo | PointCloud,
    config: FindPose = FindPose(),
    *,
    texture: Texture | None = None,
    guess: Float[Tensor, "4 4"] | None = None,
) -> Iterator[FindPoseStep]:
    """Find where an object stands in a photo or a cloud; every step has an estimate, the last one the result.

    A cloud may show a part of the object, with noise and some clutter, in the units of the mesh; poses are in its
    frame. A `guess` replaces the search: poses near it are followed instead. Raises InputError before the first
    step for a mesh that cannot be drawn, and for clouds and depths in other units than the mesh.
    """
    _check(config, guess)
    if not isinstance(seen, Photo | PointCloud):
        raise ShapeError(f"find_pose: expected a Photo or a PointCloud, got {describe_value(seen)}")
    model, placement = make_model(mesh, texture, config.use_color)
    if isinstance(seen, Photo):
        _check_photo(seen)
        starts = _starts_near(guess, placement, config)
        return _find_in_photo(model, placement, seen.to(torch.float32), starts, config)
    points, placement = _place_points(seen, placement)
    return _find_in_cloud(model, placement, points, _starts_near(guess, placement, config), config)


def _starts_near(guess: Tensor | None, placement: Placement, config: FindPose) -> Tensor | None:
    return None if guess is None else search_near(placement.from_world(guess)[None], config.num_starts)


def _check(config: FindPose, guess: Tensor | None) -> None:
    for name, (least, most) in LIMITS.items():
        value = getattr(config, name)
        if not isinstance(value, int) or not least <= value <= most:
            raise InputError(
                f"find_pose: `{name}` should be a whole number from {least} to {most}, got {value!r}"
            )
    if guess is not None and not _is_rigid(guess):
        raise InputError(
            "find_pose: `guess` should be rigid, a rotation and a translation in a 4 × 4 matrix, from the mesh to the "
            f"camera; got {describe_value(guess)}"
        )


def _check_photo(photo: Photo) -> None:
    if object_side(photo) < LEAST_PIXELS:
        raise InputError(
            f"find_pose: the object is {object_side(photo)} pixels wide in the photo, too few for a pose; "
            f"{LEAST_PIXELS} are the least"
        )
    if float((photo.mask > 0.5).float().mean()) > FULLEST:
        raise InputError(
            "find_pose: the object fills the photo, and its outline is not in it; check the mask, or step back"
        )


def _is_rigid(pose: object) -> bool:
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
    worst: float
    """Times the least cost that a pose may cost to go on."""


def _plan(photo: Photo, config: FindPose) -> list[_Stage]:
    """Double the pixels from stage to stage, until the photo has no more; drop what has fallen behind."""
    most = max(64, min(config.resolution, 2 * object_side(photo)))
    doubled = itertools.takewhile(lambda size: size < most, (128 * 2**n for n in itertools.count()))
    color, keep = config.use_color, max(12, config.max_candidates)
    return [
        _Stage(32, 1.5, 6, use_color=False, keep=2 * keep, worst=math.inf),
        *([_Stage(64, 1.2, 6, color, keep, worst=20.0)] if most > 64 else []),
        *(_Stage(size, 1.0, 6, color, keep, worst=6.0) for size in doubled),
        _Stage(most, 0.8, 12, color, config.max_candidates, EQUAL_COST),
    ]


def _find_in_photo(
    model: Model, placement: Placement, photo: Photo, starts: Tensor | None, config: FindPose
) -> Iterator[FindPoseStep]:
    plan = _plan(photo, config)
    last = sum(stage.steps + 1 for stage in plan) - 1
    index = itertools.count()
    window, drawn = cut_window(photo, SEARCH_SIZE, placement.radius), for_size(model, SEARCH_SIZE)
    _check_depth(drawn, window)
    poses = search(drawn, window, config.num_views, config.num_starts) if starts is None else starts
    for stage in plan:
        window, drawn = cut_window(photo, stage.size, placement.radius), for_size(model, stage.size)
        if stage.use_color:
            window = expect_color_error(drawn, window, poses)
        compare = functools.partial(evaluate, drawn, window, blur=stage.blur, shade=stage.use_color)
        measurements = math.sqrt(float(window.coverage.sum()))  # as many as pixels along the outline, about
        for fit in descend(compare, poses, stage.steps):
            best = keep_best(fit, SAME_POSE, stage.keep)
            yield FindPoseStep(
                next(index), last, f"{stage.size} pixels", best, placement, measurements, PHOTO
            )
        poses = keep_best(fit, SAME_POSE, stage.keep, stage.worst * float(fit.cost.min())).poses


def _find_in_cloud(
    model: Model, placement: Placement, points: Tensor, starts: Tensor | None, config: FindPose
) -> Iterator[FindPoseStep]:
    generator = torch.Generator(points.device).manual_seed(config.seed)
    steps = align_cloud(model.mesh, points, generator, starts)
    for index, (stage, fit) in enumerate(steps):
        best = keep_best(fit, SAME_POSE, config.max_candidates)
        yield FindPoseStep(index, CLOUD_STEPS, stage, best, placement, min(len(points), MAX_POINTS), CLOUD)


def _place_points(cloud: PointCloud, placement: Placement) -> tuple[Tensor, Placement]:
    """Scale points to radii, about their middle, so that far-away places lose no digits."""
    points = cloud.points[cloud.points.isfinite().all(-1)].double()
    if len(points) < LEAST_POINTS:
        raise InputError(
            f"find_pose: a cloud of {len(points)} finite points is too few for a pose, {LEAST_POINTS} the least"
        )
    some = points[:: 1 + len(points) // 100_000]
    low, middle, high = torch.quantile(some, some.new_tensor([0.05, 0.5, 0.95]), dim=0)
    if bool((low == high).all()):
        raise InputError("find_pose: nearly all points of the cloud are in one place")
    ratio = float((high - low).norm()) / (2 * placement.radius)
    if not 1 / 50 < ratio < 5:
        raise InputError(
            f"find_pose: the cloud is {ratio:.2g} times as large as the mesh; both should be in the same units, and "
            "the cloud should show little beside the object"
        )
    return ((points - middle) / placement.radius).float(), placement._replace(origin=middle)


def _check_depth(model: Model, window: Window) -> None:
    if window.depth is None or not bool(window.depth.any()):
        return
    ratio = float(window.depth[window.depth > 0].median()) / expected_distance(model, window)
    if not 1 / MOST_OFF < ratio < MOST_OFF:
        times = f"{ratio:,.0f} times" if ratio > 1 else f"1/{1 / ratio:,.0f} of"
        raise InputError(
            f"find_pose: the photo's depth is {times} what the size of the object in the photo tells; "
            "depth and mesh should be in the same units"
        )


def _estimate(step: FindPoseStep) -> PoseEstimate:
    placement, standard = step.placement, step.standard
    equal = step.fit.cost <= EQUAL_COST * step.fit.cost[0] + standard.no_cost
    fit = select(step.fit, equal.nonzero()[:, 0])
    scale = torch.tensor([1.0] * 3 + [placement.radius] * 3).to(placement.center)
    covariance = _covariance(fit, step.num_measurements).to(placement.center)
    covariance[3:, 3:] += (standard.bias * step.cost) ** 2 * torch.eye(3).to(covariance)
    covariance = covariance * scale[:, None] * scale
    scores = (fit.cost[0] / fit.cost).nan_to_num(nan=1.0)
    verdict = _judge(fit, standard, math.degrees(_largest_deviation(covariance[:3, :3])))
    return PoseEstimate(placement.to_world(fit.poses), scores, fit.agreement, covariance, verdict)


def _judge(fit: Fit, standard: Standard, turn: float) -> Verdict:
    agreement, cost = float(fit.agreement[0]), float(fit.cost[0])
    if agreement < standard.least_agreement or not cost <= standard.most_cost or math.isinf(cost):
        return "failed"
    if len(fit.poses) > 1 or turn > FREE_TURN or agreement < standard.sure_agreement:
        return "ambiguous"
    return "converged"


def _covariance(fit: Fit, num_measurements: float) -> Tensor:
    """Invert the Hessian, scaled by the residuals that are left: they tell how far measurements are off."""
    if not bool(fit.cost[0].isfinite()):
        return torch.full((6, 6), torch.inf, device=fit.cost.device)
    values, vectors = torch.linalg.eigh(fit.hessian[0].double())
    inverse: Tensor = (
        vectors @ torch.diag(1 / values.clamp(min=1e-9 * float(values[-1]) + 1e-30)) @ vectors.mT
    )
    return inverse * (fit.cost[0].double() / num_measurements)


def _largest_deviation(covariance: Tensor) -> float:
    if not bool(covariance.isfinite().all()):
        return math.inf
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(covariance)[-1])))
