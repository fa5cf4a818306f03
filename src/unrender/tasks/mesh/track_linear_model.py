"""Track a linear shape model through a sequence of point clouds: one identity and scale, a pose and expression each.

Every frame starts from the previous one. What a frame says about scale and identity, whatever its pose and expression,
is a Gaussian (the Schur complement of its normal matrix), which is the prior of the next frame. When all frames are
known, pose and expression are fitted again with the final identity.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sized

import numpy as np

from unrender.errors import InputError
from unrender.geometry.linear_shape_model import LinearShapeModel
from unrender.geometry.points import PointCloud
from unrender.tasks.mesh.fit_linear_model import (
    STAGES,
    FitLinearModel,
    check_config,
    coefficient_deviations,
    initial_state,
    is_converged,
    linearize,
)
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
    ShapeBasis,
    ShapeState,
    apply_step,
    marginal_precision,
    posterior_covariance,
)
from unrender.tasks.mesh.shape_target import ShapeTarget, prepare_target
from unrender.tasks.mesh.surface_matches import select_points

MAX_POINTS, POINTS_PER_STEP = 8000, 3000
"""Points of a frame, and how many of them a step uses; normals need neighbors that are near."""
FIRST_STEPS, TRACK_STEPS, FINAL_STEPS = 16, 6, 3
"""Steps of a frame after a search, after another frame, and with the final identity."""
DECAY = 0.5
"""Factor per step of the smallest scale of the robust loss."""
MAX_COST, COST_SCALE = 0.3, 0.02
"""Mean robust loss above which a frame is lost, so that its pose is searched again, and its scale."""


@dataclasses.dataclass(frozen=True)
class TrackLinearModelStep:
    """A frame of a sequence: first as it is tracked, and at the end again with the identity of all frames."""

    index: int
    last_index: int
    """Index of the last step, twice the number of frames; of a sequence of unknown length, that of this step."""
    frame: int
    is_final: bool
    result: LinearModelFit
    """In world units; identity and scale are shared by all final steps."""


@dataclasses.dataclass
class _Frame:
    """A frame that was tracked."""

    target: ShapeTarget
    state: ShapeState
    is_lost: bool
    num_equivalent: int
    """Number of poses that fitted about as well where it was searched."""


def track_linear_model(
    clouds: Iterable[PointCloud], model: LinearShapeModel, config: FitLinearModel = FitLinearModel()
) -> Iterator[TrackLinearModelStep]:
    """Track a linear shape model through point clouds of one subject; yield every frame twice, the second time final.

    A frame that does not show the shape has the status `unaligned`; the next one is searched without a guess. Frames
    that are tracked from an ambiguous one are ambiguous, too.

    Example: `steps = [s for s in track_linear_model(clouds, model) if s.is_final]`.
    """
    check_config(config, "track_linear_model")
    if config.free_vertices:
        raise InputError("track_linear_model: `free_vertices` does not apply to a sequence")
    return _track(clouds, model, config)


def _track(
    clouds: Iterable[PointCloud], model: LinearShapeModel, config: FitLinearModel
) -> Iterator[TrackLinearModelStep]:
    """Track all frames, then fit them again with the identity of all."""
    count = len(clouds) if isinstance(clouds, Sized) else 0
    frames: list[_Frame] = []
    problem: LinearProblem | None = None
    for number, cloud in enumerate(clouds):
        target = prepare_target(
            cloud,
            min(config.max_points, MAX_POINTS),
            config.seed,
            f"track_linear_model: frame {number}",
            remove_outliers=False,
        )
        if problem is None or all(frame.is_lost for frame in frames):  # whose size says nothing
            problem = linear_problem(model, target, config.scale, config.prior_weight, "track_linear_model")
        problem = problem._replace(target=target.in_frame_of(problem.target))
        last = frames[-1] if frames else None
        frame, equations = _track_frame(problem, last, config)
        frames.append(frame)
        if not frame.is_lost:
            basis = _with_information(problem.basis, frame.state, equations, len(model.identity))
            problem = problem._replace(basis=basis)
        deviations = coefficient_deviations(equations)
        result = linear_model_fit(problem, frame.state, deviations, frame.num_equivalent)
        last_index = max(2 * count - 1, number)
        yield TrackLinearModelStep(number, last_index, number, False, _marked(result, frame))
    if problem is None:
        raise InputError("track_linear_model: `clouds` should have at least one point cloud, got none")
    last_index = 2 * len(frames) - 1
    own = _with_identity(problem, len(model.identity))
    for number, frame in enumerate(frames):
        result = _final(problem._replace(target=frame.target), own, frame)
        yield TrackLinearModelStep(len(frames) + number, last_index, number, True, result)


def _track_frame(
    problem: LinearProblem, last: _Frame | None, config: FitLinearModel
) -> tuple[_Frame, NormalEquations]:
    """Fit a frame from the state of the last one or, where that fails or there is none, from a search."""
    is_fixed = config.scale is not None
    if last is not None and not last.is_lost:
        state, equations, cost = _descend(problem, last.state, TRACK_STEPS, is_fixed)
        if cost <= MAX_COST:
            return _Frame(problem.target, state, False, last.num_equivalent), equations
    searched, equivalent = initial_state(problem, config)
    state, equations, cost = _descend(problem, searched, FIRST_STEPS, is_fixed)
    return _Frame(problem.target, state, cost > MAX_COST, equivalent), equations


def _descend(
    problem: LinearProblem, state: ShapeState, steps: int, is_fixed: bool
) -> tuple[ShapeState, NormalEquations, float]:
    """Take Gauss-Newton steps; return the state, its normal equations and its mean robust loss."""
    some = select_points(problem.target, POINTS_PER_STEP)
    widest = STAGES[0].max_scale
    for step in range(steps):
        matches, equations = linearize(problem, state, some, widest, widest * DECAY**step)
        if not matches.weights.any():
            break
        state, before = apply_step(problem.basis, state, equations, fixed_scale=is_fixed), state
        if is_converged(before, state):
            break
    matches, equations = linearize(problem, state, some, FINAL_SCALE)
    return state, equations, matches.cost(COST_SCALE)


def _with_information(
    basis: ShapeBasis, state: ShapeState, equations: NormalEquations, num_identities: int
) -> ShapeBasis:
    """Return a basis whose prior of scale and identity is their posterior after a frame."""
    shared = np.arange(POSE - 1, POSE + num_identities)
    precision, mean = basis.prior_precision.copy(), basis.prior_mean.copy()
    own = slice(0, len(shared))
    precision[own, own] = marginal_precision(equations.hessian, shared)
    mean[own] = np.append(state.log_scale, state.coefficients)[own]
    return basis._replace(prior_precision=precision, prior_mean=mean)


def _with_identity(problem: LinearProblem, num_identities: int) -> ShapeBasis:
    """Return the basis of the expressions, for the identity that all frames together have."""
    basis = problem.basis
    kept = np.append(0, np.arange(1 + num_identities, len(basis.prior_mean)))
    mean = basis.mean + basis.offsets[..., :num_identities] @ basis.prior_mean[1 : 1 + num_identities]
    return ShapeBasis(
        mean,
        np.ascontiguousarray(basis.offsets[..., num_identities:]),
        basis.prior_mean[kept],
        basis.prior_precision[np.ix_(kept, kept)],
        basis.low[num_identities:],
        basis.high[num_identities:],
    )


def _final(problem: LinearProblem, own: ShapeBasis, frame: _Frame) -> LinearModelFit:
    """Fit pose and expression of a frame with the scale and the identity of all frames."""
    count = len(problem.model.identity)
    shared = slice(0, 1 + count)
    if frame.is_lost:
        nothing = Deviations(np.inf, np.full(len(frame.state.coefficients), np.inf))
        return _marked(linear_model_fit(problem, frame.state, nothing), frame)
    covariance = posterior_covariance(problem.basis.prior_precision[shared, shared])
    std = np.sqrt(np.diag(covariance))
    start = frame.state._replace(
        log_scale=float(own.prior_mean[0]), coefficients=frame.state.coefficients[count:]
    )
    state, equations, _ = _descend(problem._replace(basis=own), start, FINAL_STEPS, is_fixed=True)
    expression = coefficient_deviations(equations).coefficients
    complete = state._replace(
        coefficients=np.concatenate([problem.basis.prior_mean[1 : 1 + count], state.coefficients])
    )
    deviations = Deviations(float(std[0]), np.concatenate([std[1:], expression]))
    return linear_model_fit(problem, complete, deviations, frame.num_equivalent)


def _marked(result: LinearModelFit, frame: _Frame) -> LinearModelFit:
    """Return a result with the status of its frame."""
    return result.replace(status="unaligned") if frame.is_lost else result
