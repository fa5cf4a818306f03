"""Fit a template to a point cloud: non-rigid registration that keeps its faces and vertex order."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import describe_value
from unrender._struct import TensorStruct
from unrender.errors import InputError, ShapeError
from unrender.geometry.landmarks import Landmarks, check_landmarks
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.tasks.mesh.align_similarity import (
    AlignedShape,
    align_similarity,
    align_to_landmarks,
    extent,
    rigid_basis,
)
from unrender.tasks.mesh.deform_shape import deform_step
from unrender.tasks.mesh.linear_model_fit import (
    FINAL_SCALE,
    INLIER_DISTANCE,
    MIN_INLIERS,
    ShapeStatus,
    observed_vertices,
)
from unrender.tasks.mesh.linear_registration import ShapeState
from unrender.tasks.mesh.rigid_energy import RigidEnergy
from unrender.tasks.mesh.shape_target import ShapeTarget, prepare_target
from unrender.tasks.mesh.surface_matches import Surface, match_surface, select_points
from unrender.tasks.pose.object_model import make_model

STIFFEST = 0.3
STEPS_PER_STIFFNESS = 2
NUM_STIFFNESSES = 10
"""Stiffnesses, in geometric order from the stiffest to the final one, and steps with each."""
CANDIDATE_STEPS, CANDIDATE_POINTS, CANDIDATE_STIFFNESS = 4, 600, 0.03
"""Steps, points and stiffness of the comparison of poses."""
AMBIGUOUS_COST = 1.15
"""Costs of other poses relative to the best one, up to which the pose is ambiguous."""
COST_SCALE = 0.05
FEW_POINTS = 4000
"""Points in all but the last steps."""
WIDEST, DECAY = 0.06, 0.75
"""Scale of the robust loss at first, relative to the cloud, and the factor of its smallest value per stiffness."""
MAX_STIFF_COST = 0.1
"""Robust loss after the comparison of poses above which the template is unaligned."""
MIN_COVERED = 0.55
"""Smallest extent of the cloud relative to the template without landmarks: small patches fit in many positions."""
MAX_STRAIN = 0.3
"""Relative change of the edges above which the template is unaligned."""


@dataclasses.dataclass(frozen=True)
class FitTemplate:
    """Deform a template onto a point cloud, from stiff to soft."""

    stiffness: float = 1e-4
    """Final stiffness: details smaller than about 6 √stiffness of the size of the cloud are smoothed."""
    scale: float | None = None
    """Units of the cloud per unit of the template, where known. Default: estimated."""
    max_points: int = 20_000
    """Maximum number of points to fit; larger clouds are subsampled."""
    seed: int = 0
    """Random seed; the same seed gives the same result."""


class TemplateFit(TensorStruct):
    """A template that was deformed onto a point cloud."""

    mesh: Mesh
    """In world units, with the faces and the vertex order of the template."""
    observed: Bool[Tensor, " vertices"]
    """Which vertices have points nearby; the others are inferred."""
    world_from_template: Float[Tensor, "4 4"]
    """Similarity transform that aligns the template before the deformation."""
    scale: float
    """Units of the cloud per unit of the template."""
    strain: float
    """Root mean square relative change of the edges, with respect to the aligned template."""
    noise: float
    """Estimated standard deviation of the points about the surface, in world units."""
    inlier_fraction: float
    status: ShapeStatus
    """aligned; ambiguous: other poses fit as well; unaligned: the cloud does not show the template."""


@dataclasses.dataclass(frozen=True)
class FitTemplateStep:
    """The state of the fit after a step; step 0 is the aligned template."""

    index: int
    last_index: int
    stage: str
    """aligned, or deform."""
    rms: float
    """Robust root mean square distance of the points from the surface, in world units."""
    stiffness: float
    problem: "TemplateProblem"
    start: AlignedShape
    """The alignment, with its cost after a stiff deformation."""
    vertices: Tensor
    """In the frame of the points."""
    energy: RigidEnergy
    num_equivalent: int = 1

    @functools.cached_property
    def result(self) -> TemplateFit:
        """The fit at this step, in world units."""
        return _result(self)


class TemplateProblem(NamedTuple):
    """A template and a cloud, each in its own normalized frame."""

    mesh: Mesh
    surface: Surface
    target: ShapeTarget
    center: Tensor
    """Center of the template's frame, in units of the template."""
    radius: float
    landmarks: Landmarks | None

    def placed(self, state: ShapeState) -> Tensor:
        """Return the vertices of the template at a pose, in the frame of the points."""
        return state.vertices(rigid_basis(self.mesh))


def fit_template(
    cloud: PointCloud,
    template: Mesh,
    config: FitTemplate = FitTemplate(),
    *,
    landmarks: Landmarks | None = None,
) -> Iterator[FitTemplateStep]:
    """Deform a template onto a point cloud without a guess, in steps; the last one has the result.

    All rotations, translations and scales are searched; then the template deforms as rigidly as possible, from stiff to
    soft, until it meets the points. Faces and vertex order stay. The cloud may show one side only: the rest follows as
    rigidly as possible. If the cloud does not show the template, the status of the result is `unaligned`. Landmarks
    guide the deformation; three or more replace the search.
    Raises InputError before the first step for templates without faces, and clouds of too few points.

    Example: `*_, last = fit_template(load_cloud("scan.ply"), load_mesh("template.obj"))`, then `last.result.mesh`.
    """
    for name in ("stiffness", "scale", "max_points"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"fit_template: `{name}` should be positive and finite, got {value}")
    if config.seed < 0:
        raise InputError(f"fit_template: `seed` should be at least 0, got {config.seed}")
    if not isinstance(template, Mesh):
        raise ShapeError(f"fit_template: `template` should be a Mesh, got {describe_value(template)}")
    mesh = Mesh(template.vertices.detach().double().cpu(), template.faces.cpu())
    _, placement = make_model(mesh, None, use_color=False, task="fit_template")
    target = prepare_target(cloud, config.max_points, config.seed, "fit_template")
    normalized = mesh.replace(vertices=(mesh.vertices - placement.center) / placement.radius)
    if landmarks is not None:
        check_landmarks(landmarks, len(mesh.vertices), "fit_template")
        landmarks = target.normalized(landmarks)
    surface = Surface(normalized)
    problem = TemplateProblem(normalized, surface, target, placement.center, placement.radius, landmarks)
    return _fit(problem, config)


def _fit(problem: TemplateProblem, config: FitTemplate) -> Iterator[FitTemplateStep]:
    """Align the template, and deform it from stiff to soft."""
    start, equivalent = _align(problem, config)
    vertices = problem.placed(start.state)
    energy = RigidEnergy(problem.mesh.replace(vertices=vertices))
    last = NUM_STIFFNESSES * STEPS_PER_STIFFNESS
    few = select_points(problem.target, FEW_POINTS)
    matches = match_surface(problem.surface, vertices, few, WIDEST, WIDEST)
    rms = matches.rms * problem.target.size
    step = FitTemplateStep(0, last, "aligned", rms, STIFFEST, problem, start, vertices, energy, equivalent)
    yield step
    for index, stiffness in enumerate(np.geomspace(STIFFEST, config.stiffness, NUM_STIFFNESSES)):
        is_last = index == NUM_STIFFNESSES - 1
        some = select_points(problem.target, len(problem.target.points)) if is_last else few
        scales = (0.0, FINAL_SCALE) if is_last else (WIDEST * DECAY**index, WIDEST)
        for _ in range(STEPS_PER_STIFFNESS):
            done = deform_step(
                *(problem.surface, energy, step.vertices, some, float(stiffness), scales),
                landmarks=problem.landmarks,
                is_final=is_last,
            )
            step = dataclasses.replace(
                step,
                index=step.index + 1,
                stage="deform",
                rms=done.matches.rms * problem.target.size,
                stiffness=float(stiffness),
                vertices=done.vertices,
            )
            yield step


def _align(problem: TemplateProblem, config: FitTemplate) -> tuple[AlignedShape, int]:
    """Find the pose without a guess; return it, and the number of poses that fit about as well."""
    log_scale = (
        None if config.scale is None else math.log(config.scale * problem.radius / problem.target.size)
    )
    if problem.landmarks is not None and len(problem.landmarks.vertex_ids) >= 3:
        candidates = [align_to_landmarks(problem.mesh, problem.landmarks, log_scale)]
    else:
        generator = torch.Generator().manual_seed(config.seed)
        candidates = align_similarity(problem.mesh, problem.target, generator, log_scale)
    some = select_points(problem.target, CANDIDATE_POINTS)
    found = []
    for candidate in candidates:
        vertices = problem.placed(candidate.state)
        energy = RigidEnergy(problem.mesh.replace(vertices=vertices))
        for _ in range(CANDIDATE_STEPS):
            vertices = deform_step(
                *(problem.surface, energy, vertices, some, CANDIDATE_STIFFNESS, (COST_SCALE, COST_SCALE)),
                landmarks=problem.landmarks,
            ).vertices
        matches = match_surface(problem.surface, vertices, some, COST_SCALE)
        found.append(AlignedShape(candidate.state, matches.cost(COST_SCALE)))
    found.sort(key=lambda each: each.cost)
    return found[0], sum(each.cost <= AMBIGUOUS_COST * found[0].cost for each in found)


def _result(step: FitTemplateStep) -> TemplateFit:
    problem, target, state = step.problem, step.problem.target, step.start.state
    every = select_points(target, len(target.points))
    matches = match_surface(problem.surface, step.vertices, every, FINAL_SCALE)
    inliers = float((np.linalg.norm(matches.offsets, axis=1) < INLIER_DISTANCE).mean())
    scale = state.scale * target.size / problem.radius
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * torch.from_numpy(state.rotation)
    shift = torch.from_numpy(state.translation) * target.size + target.center
    matrix[:3, 3] = shift - matrix[:3, :3] @ problem.center
    strain = step.energy.strain(step.vertices.numpy())
    covered = MIN_COVERED if problem.landmarks is None else 0.0
    is_fitting = (
        inliers >= MIN_INLIERS
        and step.start.cost <= MAX_STIFF_COST
        and strain <= MAX_STRAIN
        and extent(target.points) >= covered * extent(step.vertices)
    )
    return TemplateFit(
        mesh=Mesh(step.vertices * target.size + target.center, problem.mesh.faces).to(target.device),
        observed=observed_vertices(matches),
        world_from_template=matrix,
        scale=scale,
        strain=strain,
        noise=matches.noise * target.size,
        inlier_fraction=inliers,
        status="unaligned" if not is_fitting else "ambiguous" if step.num_equivalent > 1 else "aligned",
    )
