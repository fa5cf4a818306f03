"""Gauss-Newton registration of a linear shape to points: similarity transform and coefficients together.

The shape x = s R (mean + Σ cₖ Bₖ) + t is attached to points p by closest positions q with normals n. With the residuals
r = n · (q − p), the noise σ and robust weights w, a step minimizes the negative logarithm of the posterior

    Σ w r² / 2σ² + Σ (cₖ − mₖ)² / 2τₖ²    subject to lowₖ ≤ cₖ ≤ highₖ

where the prior has means m and standard deviations τ. The noise follows from the residuals: while the shape is far from
the points it is large, and the prior holds the coefficients back.
"""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse
import torch
from torch import Tensor

from unrender.geometry.rotations import so3_exp_map
from unrender.tasks.mesh.gauss_newton import Matrix
from unrender.tasks.mesh.surface_matches import Array, SurfaceMatches

Indices = npt.NDArray[np.int64]

POSE = 7
"""Parameters of a similarity transform: rotation vector, translation, logarithm of the scale."""
DAMPING = 1e-9
"""Added to the diagonal of the normal matrix, relative to its maximum, for movements that nothing determines."""
MAX_ROTATION, MAX_LOG_SCALE = 0.4, 0.2
"""Largest change of the pose in a step."""
TANGENTIAL = 0.02
"""Weight of offsets along the surface relative to those along the normal, while there are no coefficients: it keeps
the shape from sliding away, and would slow down the convergence of the coefficients."""


class ShapeBasis(NamedTuple):
    """A linear shape in a frame of its own, with priors."""

    mean: Array
    """[vertices, 3]"""
    offsets: Array
    """[vertices, 3, coefficients]"""
    prior_mean: Array
    """Of the logarithm of the scale, then of the coefficients: [1 + coefficients]."""
    prior_precision: Array
    """Inverse covariance of the prior: [1 + coefficients, 1 + coefficients]."""
    low: Array
    high: Array

    def first(self, count: int) -> Self:
        """Return the basis with only the first coefficients."""
        return type(self)(
            self.mean,
            np.ascontiguousarray(self.offsets[..., :count]),
            self.prior_mean[: 1 + count],
            self.prior_precision[: 1 + count, : 1 + count],
            self.low[:count],
            self.high[:count],
        )


class ShapeState(NamedTuple):
    """A pose, a scale and coefficients."""

    rotation: Array
    translation: Array
    log_scale: float
    coefficients: Array

    @property
    def scale(self) -> float:
        """Units of the points per unit of the shape."""
        return float(np.exp(self.log_scale))

    def vertices(self, basis: ShapeBasis) -> Tensor:
        """Return the positions of the vertices in the frame of the points."""
        shape = basis.mean + (basis.offsets @ self.coefficients if len(self.coefficients) else 0.0)
        return torch.from_numpy(self.scale * (shape @ self.rotation.T) + self.translation)


class NormalEquations(NamedTuple):
    """Half the derivatives of the negative log posterior; the parameters are the pose, then the coefficients."""

    hessian: Array
    gradient: Array
    noise: float
    """Standard deviation of the residuals."""


def normal_equations(
    basis: ShapeBasis,
    state: ShapeState,
    matches: SurfaceMatches,
    landmarks: tuple[Indices, Array, float] | None = None,
) -> NormalEquations:
    """Linearize the residuals about a state.

    landmarks: vertices, their positions [landmarks, 3], and the standard deviation of these.
    """
    count = len(state.coefficients)
    noise = matches.noise
    used = np.flatnonzero(matches.weights)
    weights = matches.weights[used, None] / noise**2
    interpolation = matches.interpolation[used]
    normals = matches.normals[used]
    points = interpolation @ state.vertices(basis).numpy()
    jacobian = _jacobian(basis, state, interpolation, points, normals)
    weighted = weights * jacobian
    hessian = weighted.T @ jacobian
    gradient = weighted.T @ matches.residuals[used]
    if not count:
        tangential = matches.offsets[used] - matches.residuals[used, None] * normals
        arm = points - state.translation
        for axis in np.eye(3):
            slide = _pose_jacobian(arm, np.broadcast_to(axis, arm.shape))
            weighted = TANGENTIAL * weights * slide
            hessian += weighted.T @ slide
            gradient += weighted.T @ (tangential @ axis)
    if landmarks is not None:
        _add_landmarks(basis, state, hessian, gradient, landmarks)
    parameters = np.append(state.log_scale, state.coefficients)
    hessian[POSE - 1 :, POSE - 1 :] += basis.prior_precision
    gradient[POSE - 1 :] += basis.prior_precision @ (parameters - basis.prior_mean)
    return NormalEquations(hessian, gradient, noise)


def _add_landmarks(
    basis: ShapeBasis,
    state: ShapeState,
    hessian: Array,
    gradient: Array,
    landmarks: tuple[Indices, Array, float],
) -> None:
    """Add the squared distances of landmarks to normal equations."""
    vertices, positions, deviation = landmarks
    at = state.vertices(basis).numpy()[vertices]
    rows = sparse.csr_array((np.ones(len(at)), (np.arange(len(at)), vertices)), (len(at), len(basis.mean)))
    for axis in np.eye(3):
        jacobian = _jacobian(basis, state, rows, at, np.broadcast_to(axis, at.shape)) / deviation
        hessian += jacobian.T @ jacobian
        gradient += jacobian.T @ ((at - positions) @ axis / deviation)


def _jacobian(basis: ShapeBasis, state: ShapeState, rows: Matrix, points: Array, normals: Array) -> Array:
    """Return the derivatives of n · q with respect to all parameters."""
    count = len(state.coefficients)
    result = np.empty((len(points), POSE + count))
    result[:, :POSE] = _pose_jacobian(points - state.translation, normals)
    if count:
        vertices = len(basis.mean)
        moved = (rows @ basis.offsets.reshape(vertices, -1)).reshape(len(points), 3, count)
        turned = state.scale * (normals @ state.rotation)
        np.einsum("nc,nck->nk", turned, moved, out=result[:, POSE:])
    return result


def _pose_jacobian(arm: Array, normals: Array) -> Array:
    """Return the derivatives of n · q for rotation about the origin of the shape, translation and log scale."""
    return np.concatenate([np.cross(arm, normals), normals, (arm * normals).sum(1, keepdims=True)], 1)


def apply_step(
    basis: ShapeBasis, state: ShapeState, equations: NormalEquations, *, fixed_scale: bool
) -> ShapeState:
    """Minimize the linearized problem within the bounds, and return the new state."""
    unlimited = np.full(POSE, np.inf)
    low = np.concatenate([-unlimited, basis.low - state.coefficients])
    high = np.concatenate([unlimited, basis.high - state.coefficients])
    if fixed_scale:
        low[POSE - 1] = high[POSE - 1] = 0.0
    damped = equations.hessian.copy()
    pose = np.arange(POSE)  # coefficients have priors
    damped[pose, pose] += DAMPING * damped[pose, pose].max()
    step = minimize_in_bounds(damped, equations.gradient, low, high)
    excess = max(float(np.linalg.norm(step[:3])) / MAX_ROTATION, abs(float(step[6])) / MAX_LOG_SCALE, 1.0)
    step = step / excess
    turn = so3_exp_map(torch.from_numpy(step[:3])).numpy()
    return ShapeState(
        turn @ state.rotation,
        state.translation + step[3:6],
        state.log_scale + float(step[6]),
        np.clip(state.coefficients + step[POSE:], basis.low, basis.high),
    )


def minimize_in_bounds(
    hessian: Array, gradient: Array, low: Array, high: Array, iterations: int = 30
) -> Array:
    """Minimize ½ xᵀHx + gᵀx for low ≤ x ≤ high by projected Newton steps (Bertsekas 1982)."""
    x = np.clip(np.zeros_like(gradient), low, high)
    for _ in range(iterations):
        slope = hessian @ x + gradient
        held = ((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0))
        free = np.flatnonzero(~held)
        if not len(free):
            break
        target = x.copy()
        target[free] -= np.linalg.solve(hessian[np.ix_(free, free)], slope[free])
        candidate = np.clip(target, low, high)
        change, value = candidate - x, float(slope @ (candidate - x))
        for _ in range(20):  # backtracking along the projected path
            if value + 0.5 * float(change @ hessian @ change) <= 1e-4 * value:
                break
            target = x + (target - x) / 2
            candidate = np.clip(target, low, high)
            change, value = candidate - x, float(slope @ (candidate - x))
        x = x + change
        if float(np.abs(change).max()) < 1e-10:
            break
    return x


def marginal_precision(hessian: Array, kept: Indices) -> Array:
    """Return the inverse covariance of some parameters, whatever the others are (the Schur complement)."""
    others = np.setdiff1d(np.arange(len(hessian)), kept)
    across = hessian[np.ix_(others, kept)]
    marginal = hessian[np.ix_(kept, kept)] - across.T @ np.linalg.solve(
        hessian[np.ix_(others, others)], across
    )
    return np.asarray((marginal + marginal.T) / 2)


def posterior_covariance(hessian: Array) -> Array:
    """Return the covariance of the parameters: the inverse of the normal matrix."""
    diagonal = np.sqrt(np.maximum(np.diag(hessian), 1e-300))
    inverse = np.linalg.pinv(hessian / diagonal[:, None] / diagonal, rcond=1e-12, hermitian=True)
    return np.asarray(inverse / diagonal[:, None] / diagonal)
