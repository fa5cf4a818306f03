"""The result of the fit of a linear shape model, and the normalized problem that it comes from."""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import describe_value
from unrender._struct import TensorStruct
from unrender.errors import ShapeError
from unrender.geometry.landmarks import Landmarks
from unrender.geometry.linear_shape_model import (
    LinearShapeModel,
    coefficient_bounds,
    linear_shape_offsets,
)
from unrender.geometry.mesh import Mesh
from unrender.tasks.mesh.align_similarity import extent
from unrender.tasks.mesh.linear_registration import ShapeBasis, ShapeState
from unrender.tasks.mesh.shape_target import ShapeTarget
from unrender.tasks.mesh.surface_matches import Array, Surface, SurfaceMatches, match_surface, select_points
from unrender.tasks.pose.object_model import make_model

ShapeStatus = Literal["aligned", "ambiguous", "unaligned"]
EXPRESSION_STD = 0.5
"""Standard deviation of the prior of expression coefficients in [0, 1]; its mean is 0."""
MIN_INLIERS = 0.6
"""Fraction of the points near the surface below which the shape is unaligned."""
INLIER_DISTANCE = 0.02
"""Distance from the surface up to which a point is an inlier, relative to the cloud."""
MIN_EXTENT = 0.3
"""Smallest extent of the cloud relative to the shape: any small patch fits somewhere."""
GIVEN_SCALE_STD = 1e-6
"""Standard deviation of a scale that is given, relative to it."""
MAX_IDENTITY = 2.5
"""Root mean square of the identity coefficients above which the cloud shows another kind of shape."""
FINAL_SCALE = 0.02
"""Largest scale of the robust loss in the last steps, relative to the cloud."""


class LinearModelFit(TensorStruct):
    """The fit of a linear shape model, with its uncertainty and status."""

    mesh: Mesh
    """The fitted mesh in world units, with the faces and the vertex order of the model."""
    identity: Float[Tensor, " identities"]
    expression: Float[Tensor, " expressions"]
    identity_std: Float[Tensor, " identities"]
    """Posterior standard deviations of the identity coefficients."""
    expression_std: Float[Tensor, " expressions"]
    """Posterior standard deviations of the expression coefficients."""
    world_from_model: Float[Tensor, "4 4"]
    """Similarity transform from the model to the cloud."""
    scale: float
    """Units of the cloud per unit of the model."""
    scale_std: float
    """Posterior standard deviation of the scale, relative to it."""
    observed: Bool[Tensor, " vertices"]
    """Which vertices have points nearby; the others are inferred."""
    noise: float
    """Estimated standard deviation of the points about the surface, in world units."""
    inlier_fraction: float
    status: ShapeStatus
    """aligned; ambiguous: other poses fit as well; unaligned: the cloud does not show the shape."""


class Deviations(NamedTuple):
    """Posterior standard deviations."""

    scale: float
    coefficients: Array


class LinearProblem(NamedTuple):
    """A model and a cloud, each in its own normalized frame."""

    model: LinearShapeModel
    basis: ShapeBasis
    surface: Surface
    target: ShapeTarget
    center: Array
    """Center of the model's frame, in units of the model."""
    radius: float
    """Units of the model per unit of its frame."""
    landmarks: Landmarks | None = None
    """In the frame of the target."""

    @property
    def mean(self) -> Mesh:
        """The mean shape in the frame of the model."""
        return Mesh(torch.from_numpy(self.basis.mean), self.surface.faces)

    def world_from_model(self, state: ShapeState) -> Tensor:
        """Return the similarity transform from the model to the cloud."""
        linear = state.scale * self.target.size / self.radius * state.rotation
        shift = state.translation * self.target.size + self.target.center.numpy() - linear @ self.center
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = linear, shift
        return torch.from_numpy(matrix)

    def to_world(self, vertices: Tensor) -> Tensor:
        """Convert positions to world units."""
        return vertices * self.target.size + self.target.center

    def log_scale(self, scale: float | None) -> float | None:
        """Convert a scale from model to world to that of the normalized frames."""
        return None if scale is None else math.log(scale * self.radius / self.target.size)


def linear_problem(
    model: LinearShapeModel,
    target: ShapeTarget,
    scale: float | None,
    prior_weight: float,
    task: str,
) -> LinearProblem:
    """Normalize a model to the unit sphere, with its priors; scale: units of the cloud per unit, where given."""
    if not isinstance(model, LinearShapeModel):
        raise ShapeError(f"{task}: `model` should be a LinearShapeModel, got {describe_value(model)}")
    model = model.detach().to(torch.float64).to("cpu")
    mean = Mesh(model.mean, model.faces)
    _, placement = make_model(mean, None, use_color=False, task=task)
    offsets = linear_shape_offsets(model).permute(1, 2, 0).contiguous() / placement.radius
    low, high = (bound.numpy() for bound in coefficient_bounds(model))
    deviations = np.ones(model.num_coefficients)
    if model.expression_std is None:
        deviations[len(model.identity) :] = EXPRESSION_STD
    precision = np.diag(np.append(0.0, prior_weight / deviations**2))
    means = np.zeros(len(precision))
    if scale is not None:
        precision[0, 0], means[0] = GIVEN_SCALE_STD**-2, math.log(scale * placement.radius / target.size)
    vertices = (model.mean - placement.center) / placement.radius
    basis = ShapeBasis(vertices.numpy(), offsets.numpy(), means, precision, low, high)
    surface = Surface(mean.replace(vertices=vertices))
    return LinearProblem(model, basis, surface, target, placement.center.numpy(), placement.radius)


def linear_model_fit(
    problem: LinearProblem,
    state: ShapeState,
    deviations: Deviations,
    num_equivalent: int = 1,
    vertices: Tensor | None = None,
) -> LinearModelFit:
    """Convert a state to world units, measure it, and say whether it fits. vertices: free ones, in the target's frame.

    The state has all coefficients of the model.
    """
    model, device = problem.model, problem.target.device
    count = len(model.identity)
    vertices = state.vertices(problem.basis) if vertices is None else vertices
    every = select_points(problem.target, len(problem.target.points))
    matches = match_surface(problem.surface, vertices, every, FINAL_SCALE)
    inliers = float((np.linalg.norm(matches.offsets, axis=1) < INLIER_DISTANCE).mean())
    covered = extent(problem.target.points) / extent(vertices)
    coefficients, std = torch.from_numpy(state.coefficients), torch.from_numpy(deviations.coefficients)
    return LinearModelFit(
        mesh=Mesh(problem.to_world(vertices), problem.surface.faces).to(device),
        identity=coefficients[:count],
        expression=coefficients[count:],
        identity_std=std[:count],
        expression_std=std[count:],
        world_from_model=problem.world_from_model(state),
        scale=state.scale * problem.target.size / problem.radius,
        scale_std=deviations.scale,
        observed=observed_vertices(matches),
        noise=matches.noise * problem.target.size,
        inlier_fraction=inliers,
        status=_status(inliers, covered, state.coefficients[:count], num_equivalent),
    )


def observed_vertices(matches: SurfaceMatches) -> Tensor:
    """Say which vertices have a point with weight on an adjacent face."""
    used = np.flatnonzero(matches.weights > 0.1)
    return torch.from_numpy((matches.interpolation[used].T @ np.ones(len(used))) > 0)


def _status(inliers: float, covered: float, identity: Array, num_equivalent: int) -> ShapeStatus:
    size = math.sqrt(float((identity**2).mean())) if len(identity) else 0.0
    if inliers < MIN_INLIERS or covered < MIN_EXTENT or size > MAX_IDENTITY:
        return "unaligned"
    return "ambiguous" if num_equivalent > 1 else "aligned"
