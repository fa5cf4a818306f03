"""Fit a linear shape model to a point cloud: pose, scale, identity and expression coefficients."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrender.errors import InputError
from unrender.geometry.landmarks import Landmarks, check_landmarks
from unrender.geometry.linear_shape_model import LinearShapeModel
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.tasks.mesh.align_similarity import AlignedShape, align_similarity, align_to_landmarks
from unrender.tasks.mesh.deform_shape import deform_step
from unrender.tasks.mesh.linear_model_fit import (
    FINAL_SCALE,
    Deviations,
    LinearModelFit,
    LinearProblem,
    linear_model_fit,
    linear_problem,
)
from unrender.tasks.mesh.linear_registration import (
    POSE,
    NormalEquations,
    ShapeState,
    apply_step,
    normal_equations,
    posterior_covariance,
)
from unrender.tasks.mesh.rigid_energy import RigidEnergy
from unrender.tasks.mesh.shape_target import prepare_target
from unrender.tasks.mesh.surface_matches import SurfaceMatches, TargetPoints, match_surface, select_points

AMBIGUOUS_COST = 1.15
"""Costs of other poses relative to the best one, up to which the pose is ambiguous."""
FIRST_COEFFICIENTS = 10
"""Coefficients that are fitted to compare poses."""
LANDMARK_STD = 0.01
"""Assumed standard deviation of landmarks, relative to the cloud."""


class FitStage(NamedTuple):
    """Steps with some of the points."""

    name: str
    steps: int
    num_points: int
    max_scale: float
    """Largest scale of the robust loss, relative to the cloud."""
    decay: float = 0.0
    """Factor per step of the smallest scale, from the largest one on."""


CANDIDATE_STAGE = FitStage("pose", 5, 600, 0.05)
STAGES = (FitStage("shape", 16, 2500, 0.06, 0.7), FitStage("final", 4, 20_000, FINAL_SCALE))
FREE_STIFFNESSES = (1e-2, 2e-3, 5e-4, 2e-4)
"""Stiffnesses of the deformation of free vertices."""


@dataclasses.dataclass(frozen=True)
class FitLinearModel:
    """Fit a linear shape model to a point cloud."""

    free_vertices: bool = False
    """Deform the mesh freely after the fit of the coefficients, for details that the model does not have."""
    scale: float | None = None
    """Units of the cloud per unit of the model, where known. Default: estimated."""
    prior_weight: float = 1.0
    """Weight of the priors of the coefficients; larger for subjects that the model describes badly."""
    max_points: int = 20_000
    """Maximum number of points to fit; larger clouds are subsampled."""
    seed: int = 0
    """Random seed; the same seed gives the same result."""


@dataclasses.dataclass(frozen=True)
class FitLinearModelStep:
    """The state of the fit after a step."""

    index: int
    last_index: int
    """Index of the last possible step; the fit may end before."""
    stage: str
    """pose, shape, final, or free."""
    rms: float
    """Robust root mean square distance of the points from the surface, in world units."""
    problem: LinearProblem
    state: ShapeState
    equations: NormalEquations
    num_equivalent: int = 1
    """Number of poses that fit about as well as the best one, including it."""
    vertices: Tensor | None = None
    """Free vertices, in the frame of the points."""

    @functools.cached_property
    def result(self) -> LinearModelFit:
        """The fit at this step, in world units."""
        deviations = coefficient_deviations(self.equations)
        return linear_model_fit(self.problem, self.state, deviations, self.num_equivalent, self.vertices)


def fit_linear_model(
    cloud: PointCloud,
    model: LinearShapeModel,
    config: FitLinearModel = FitLinearModel(),
    *,
    landmarks: Landmarks | None = None,
) -> Iterator[FitLinearModelStep]:
    """Fit a linear shape model to a point cloud without a guess, in steps; the last one has the result.

    All rotations, translations and scales are searched; then pose, scale and coefficients are optimized together by
    Gauss-Newton steps on robust distances between points and surface, with the priors of the coefficients. The cloud
    may show one side only. If it does not show the shape, the status of the result is `unaligned`. Three or more
    landmarks replace the search.
    Raises InputError before the first step for clouds of too few points.

    Example: `*_, last = fit_linear_model(load_cloud("face.ply"), load_linear_model("faces.npz"))`, then
    `last.result.expression`.
    """
    task = "fit_linear_model"
    check_config(config, task)
    target = prepare_target(cloud, config.max_points, config.seed, task)
    problem = linear_problem(model, target, config.scale, config.prior_weight, task)
    if landmarks is not None:
        check_landmarks(landmarks, len(problem.basis.mean), task)
        problem = problem._replace(landmarks=target.normalized(landmarks))
    return _fit(problem, config)


def check_config(config: FitLinearModel, task: str) -> None:
    """Raise InputError for values that are out of range."""
    for name in ("scale", "prior_weight", "max_points"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{task}: `{name}` should be positive and finite, got {value}")
    if config.seed < 0:
        raise InputError(f"{task}: `seed` should be at least 0, got {config.seed}")


def _fit(problem: LinearProblem, config: FitLinearModel) -> Iterator[FitLinearModelStep]:
    """Align the mean, try the best poses with a few coefficients, and fit all coefficients from the best one."""
    last = sum(stage.steps for stage in STAGES) + len(FREE_STIFFNESSES) * config.free_vertices
    is_fixed = config.scale is not None
    state, equivalent = initial_state(problem, config)
    step = _first_step(problem, state, last, equivalent)
    yield step
    for stage in STAGES:
        some = select_points(problem.target, stage.num_points)
        for count in range(stage.steps):
            floor = stage.max_scale * stage.decay**count if stage.decay else 0.0
            matches, equations = linearize(problem, state, some, stage.max_scale, floor)
            if not matches.weights.any():
                break
            state, before = apply_step(problem.basis, state, equations, fixed_scale=is_fixed), state
            step = dataclasses.replace(
                step,
                index=step.index + 1,
                stage=stage.name,
                rms=matches.rms * problem.target.size,
                state=state,
                equations=equations,
            )
            yield step
            if stage.name == "shape" and is_converged(before, state):
                break
    if config.free_vertices:
        yield from _free(step)


def _free(step: FitLinearModelStep) -> Iterator[FitLinearModelStep]:
    """Deform the mesh beyond the model, as rigidly as possible, from stiff to soft."""
    problem = step.problem
    vertices = step.state.vertices(problem.basis)
    energy = RigidEnergy(Mesh(vertices, problem.surface.faces))
    every = select_points(problem.target, len(problem.target.points))
    for stiffness in FREE_STIFFNESSES:
        done = deform_step(
            *(problem.surface, energy, vertices, every, stiffness, (0.0, FINAL_SCALE)),
            landmarks=problem.landmarks,
            is_final=True,
        )
        vertices = done.vertices
        rms = done.matches.rms * problem.target.size
        step = dataclasses.replace(step, index=step.index + 1, stage="free", rms=rms, vertices=vertices)
        yield step


def initial_state(problem: LinearProblem, config: FitLinearModel) -> tuple[ShapeState, int]:
    """Find the pose without a guess; return the state, and the number of poses that fit about as well."""
    is_fixed = config.scale is not None
    if problem.landmarks is not None and len(problem.landmarks.vertex_ids) >= 3:
        candidates = [align_to_landmarks(problem.mean, problem.landmarks, problem.log_scale(config.scale))]
    else:
        generator = torch.Generator().manual_seed(config.seed)
        candidates = align_similarity(
            problem.mean, problem.target, generator, problem.log_scale(config.scale)
        )
    return _select_candidate(problem, candidates, fixed_scale=is_fixed)


def _select_candidate(
    problem: LinearProblem, candidates: list[AlignedShape], *, fixed_scale: bool
) -> tuple[ShapeState, int]:
    """Fit a few coefficients from each candidate; return the best state, and how many fit about as well."""
    some = select_points(problem.target, CANDIDATE_STAGE.num_points)
    few = problem._replace(basis=problem.basis.first(min(FIRST_COEFFICIENTS, len(problem.basis.low))))
    found = []
    for candidate in candidates:
        start = np.clip(few.basis.prior_mean[1:], few.basis.low, few.basis.high)
        state = candidate.state._replace(coefficients=start)
        for _ in range(CANDIDATE_STAGE.steps):
            matches, equations = linearize(few, state, some, CANDIDATE_STAGE.max_scale)
            if not matches.weights.any():
                break
            state = apply_step(few.basis, state, equations, fixed_scale=fixed_scale)
        matches = match_surface(few.surface, state.vertices(few.basis), some, CANDIDATE_STAGE.max_scale)
        found.append((matches.cost(CANDIDATE_STAGE.max_scale), state))
    costs = [cost for cost, _ in found]
    cost, state = found[int(np.argmin(costs))]
    coefficients = problem.basis.prior_mean[1:].copy()
    coefficients[: len(state.coefficients)] = state.coefficients
    return state._replace(coefficients=coefficients), sum(each <= AMBIGUOUS_COST * cost for each in costs)


def linearize(
    problem: LinearProblem,
    state: ShapeState,
    some: TargetPoints,
    max_scale: float,
    min_scale: float = 0.0,
) -> tuple[SurfaceMatches, NormalEquations]:
    """Match points with the surface at a state, and linearize."""
    matches = match_surface(problem.surface, state.vertices(problem.basis), some, max_scale, min_scale)
    if problem.landmarks is None:
        return matches, normal_equations(problem.basis, state, matches)
    given = (problem.landmarks.vertex_ids.numpy(), problem.landmarks.points.numpy(), LANDMARK_STD)
    return matches, normal_equations(problem.basis, state, matches, given)


def _first_step(problem: LinearProblem, state: ShapeState, last: int, equivalent: int) -> FitLinearModelStep:
    matches, equations = linearize(
        problem, state, select_points(problem.target, STAGES[0].num_points), STAGES[0].max_scale
    )
    rms = matches.rms * problem.target.size
    return FitLinearModelStep(0, last, "pose", rms, problem, state, equations, equivalent)


def coefficient_deviations(equations: NormalEquations) -> Deviations:
    """Return the posterior standard deviations of the scale and of the coefficients."""
    deviations = np.sqrt(np.diag(posterior_covariance(equations.hessian)))
    return Deviations(float(deviations[POSE - 1]), deviations[POSE:])


def is_converged(before: ShapeState, after: ShapeState) -> bool:
    """Say whether a step changed little."""
    change = np.abs(after.coefficients - before.coefficients).max(initial=0.0)
    moved = np.abs(after.translation - before.translation).max() + abs(after.log_scale - before.log_scale)
    return bool(change < 0.01 and moved < 1e-4)
