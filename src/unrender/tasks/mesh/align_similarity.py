"""Alignment of a known shape to a point cloud without a guess: rotation, translation and scale.

The pose finder's search covers rotations and translations, for several scales about the one that the extents of the
cloud suggest. The best poses of each scale are refined with the scale, on points and surface.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.landmarks import Landmarks
from unrender.geometry.mesh import Mesh
from unrender.geometry.rotations import rotation_angle
from unrender.geometry.simplify import cluster_vertices
from unrender.tasks.mesh.linear_registration import (
    ShapeBasis,
    ShapeState,
    apply_step,
    normal_equations,
)
from unrender.tasks.mesh.shape_target import ShapeTarget
from unrender.tasks.mesh.surface_matches import Array, Surface, TargetPoints, match_surface, select_points
from unrender.tasks.pose.cloud_alignment import (
    MAX_SCALE,
    evaluate_points,
    sampled_distance_field,
    search_rigid_poses,
)
from unrender.tasks.pose.levenberg_marquardt import keep_best, levenberg_marquardt

SCALE_FACTORS = (1.1, 0.92, 0.77, 0.64)
"""Sizes of the cloud relative to the shape that are searched, in those that equal extents suggest: a cloud that shows
one side is smaller than the shape."""
NUM_STARTS, NUM_REFINED, NUM_CANDIDATES = 64, 4, 3
"""Poses per scale in the coarse search and in the refinement, and distinct poses in the result."""
NUM_POINTS = 500
ROUNDS = ((3, 0.15, 6), (6, 0.06, 6))
"""Steps of the refinement, the largest scale of the robust loss, and the number of poses that are kept."""
MAX_CHANGE = 0.3
"""Largest change of the logarithm of the scale in a round."""
CELLS, MIN_FACES_TO_SIMPLIFY = 40, 4000
"""Cells along the longest side of a mesh that is simplified for the refinement."""
COST_SCALE = 0.05
"""Scale of the robust loss that compares poses, relative to the cloud."""
MIN_LANDMARK_SPREAD = 0.01
"""Smallest second extent of landmarks relative to the first: the rotation about a line is arbitrary."""
MIN_ANGLE = 0.35
"""Minimum rotation in radians between candidates."""


class AlignedShape(NamedTuple):
    """A candidate of the alignment."""

    state: ShapeState
    cost: float
    """Mean robust distance of the points from the surface, relative to the cloud."""


def align_similarity(
    mesh: Mesh, target: ShapeTarget, generator: torch.Generator, log_scale: float | None = None
) -> list[AlignedShape]:
    """Find the similarity transforms that place a mesh on a target, best first. log_scale: the scale, where known.

    The mesh fills the unit sphere about the origin; the states have no coefficients.
    """
    points = target.points
    field = sampled_distance_field(mesh.to(torch.float32), generator)
    starts: list[ShapeState] = []
    for size in _sizes(mesh, target) if log_scale is None else [math.exp(-log_scale)]:
        rows = torch.arange(min(len(points), 2000)) * len(points) // min(len(points), 2000)
        scaled = points[rows].float() * size
        center = scaled.median(0).values
        poses = search_rigid_poses(field, scaled - center, NUM_STARTS, generator)
        some = (scaled - center)[:: max(1, len(scaled) // 200)]
        *_, fit = levenberg_marquardt(
            functools.partial(evaluate_points, field, some, scale=MAX_SCALE), poses, 6
        )
        for pose in keep_best(fit, MIN_ANGLE, NUM_REFINED).poses:
            translation = (pose[:3, 3] + center).double() / size
            rotation = pose[:3, :3].double().numpy()
            starts.append(ShapeState(rotation, translation.numpy(), -math.log(size), np.zeros(0)))
    return refine_alignment(mesh, target, starts, fixed_scale=log_scale is not None)


def refine_alignment(
    mesh: Mesh, target: ShapeTarget, starts: list[ShapeState], *, fixed_scale: bool
) -> list[AlignedShape]:
    """Refine poses and scales on closest points; return the distinct ones, best first."""
    simplified = cluster_vertices(mesh, CELLS) if len(mesh.faces) > MIN_FACES_TO_SIMPLIFY else mesh
    basis, surface = rigid_basis(simplified), Surface(simplified)
    some = select_points(target, NUM_POINTS)
    found = [AlignedShape(start, 0.0) for start in starts]
    for steps, max_scale, kept in ROUNDS:
        refined = [
            _refine(basis, surface, some, each.state, steps, max_scale, fixed_scale=fixed_scale)
            for each in found
        ]
        found = sorted(refined, key=lambda each: each.cost)[:kept]
    distinct: list[AlignedShape] = []
    for each in found:
        if all(_is_distinct(each.state, other.state) for other in distinct):
            distinct.append(each)
    return distinct[:NUM_CANDIDATES]


def _refine(
    basis: ShapeBasis,
    surface: Surface,
    some: TargetPoints,
    start: ShapeState,
    steps: int,
    max_scale: float,
    *,
    fixed_scale: bool,
) -> AlignedShape:
    """Take steps from one pose; return the new one and its cost."""
    state = start
    for _ in range(steps):
        matches = match_surface(surface, state.vertices(basis), some, max_scale)
        if not matches.weights.any():
            break
        state = apply_step(basis, state, normal_equations(basis, state, matches), fixed_scale=fixed_scale)
        nearby = np.clip(state.log_scale, start.log_scale - MAX_CHANGE, start.log_scale + MAX_CHANGE)
        state = state._replace(log_scale=float(nearby))
    return AlignedShape(
        state, match_surface(surface, state.vertices(basis), some, COST_SCALE).cost(COST_SCALE)
    )


def rigid_basis(mesh: Mesh) -> ShapeBasis:
    """Return the basis of a shape without coefficients."""
    none = np.zeros(0)
    mean = mesh.vertices.double().numpy()
    return ShapeBasis(mean, np.zeros((len(mean), 3, 0)), np.zeros(1), np.zeros((1, 1)), none, none)


def align_to_landmarks(mesh: Mesh, landmarks: Landmarks, log_scale: float | None = None) -> AlignedShape:
    """Return the similarity transform of least squared distances between landmarks (Umeyama 1991)."""
    shape, points = mesh.vertices[landmarks.vertex_ids].double().numpy(), landmarks.points.double().numpy()
    shape_center, center = shape.mean(0), points.mean(0)
    left, values, right = np.linalg.svd((points - center).T @ (shape - shape_center))
    if not values[1] > MIN_LANDMARK_SPREAD**2 * values[0]:
        raise InputError("the landmarks are collinear: give at least three that span a plane")
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    scale = (values * signs).sum() / ((shape - shape_center) ** 2).sum()
    log_scale = math.log(scale) if log_scale is None else log_scale
    translation = center - math.exp(log_scale) * rotation @ shape_center
    return AlignedShape(ShapeState(rotation, translation, log_scale, np.zeros(0)), 0.0)


def _is_distinct(a: ShapeState, b: ShapeState) -> bool:
    angle = rotation_angle(torch.from_numpy(a.rotation), torch.from_numpy(b.rotation))
    return float(angle) > MIN_ANGLE


def _sizes(mesh: Mesh, target: ShapeTarget) -> list[float]:
    """Return the scales that make the cloud as large as the mesh, from its two largest principal extents."""
    ratio = extent(mesh.vertices.double()) / extent(target.points)
    return [ratio * factor for factor in SCALE_FACTORS]


def extent(points: Tensor) -> float:
    """Return the geometric mean of the two largest principal extents, which most views show."""
    centered = (points - points.mean(0)).numpy()
    axes = np.linalg.eigh(centered.T @ centered)[1]
    low, high = np.quantile(centered @ axes, [0.02, 0.98], axis=0)
    spread: Array = high - low
    return float(np.sqrt(spread[1] * spread[2]))
