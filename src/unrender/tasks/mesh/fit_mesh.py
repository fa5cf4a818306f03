"""Surface reconstruction: fit a closed mesh to a point cloud."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from unrender._checked import describe_value
from unrender.errors import InputError, ShapeError
from unrender.geometry.mesh import Mesh, surface_area
from unrender.geometry.points import PointCloud
from unrender.geometry.remesh import remesh_isotropic
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.topology import topology
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.kernels.nearest import PointIndex, index_points, nearest
from unrender.losses.regularize import mesh_normal_consistency
from unrender.tasks.mesh.checkpoints import FitState, MeshCheckpoints, Trial
from unrender.tasks.mesh.gauss_newton import Array, Matrix, bending_matrix, interpolation_matrix, newton_step
from unrender.tasks.mesh.initial_mesh import initial_mesh
from unrender.tasks.mesh.prepare_cloud import PreparedCloud, Reduction, prepare_cloud
from unrender.tasks.mesh.trim_mesh import trim_unsupported

Start = Literal["auto", "solid", "shell", "hull", "sphere"]
NEAR_STARTS = ("auto", "solid", "shell")
"""Initial shapes that follow the points: coarse meshes would lose their thin parts."""
SMOOTHNESS = tuple(float(s) for s in np.geomspace(1e-6, 1e-11, 11))
"""Candidates for the smoothness weight, stiff to flexible."""
VERTEX_AREA = 3**0.5 / 2
"""Area per vertex of a mesh of equilateral triangles with edges of length 1."""
MAX_BENDING_GRADIENT = 10.0
"""Maximum gradient of the bending energy at a vertex, over the mean edge length."""
MAX_EDGE_LENGTH = 0.2
"""Maximum edge length relative to the diagonal; longer edges cannot represent a solid."""


@dataclasses.dataclass(frozen=True)
class FitMesh:
    """Fit a closed mesh, or an open one, to a point cloud.

    Minimizes the squared distance between points and surface (Huber loss beyond three standard deviations) plus
    `smoothness` times the sum of 1 − cos of the angles between adjacent faces. The fit proceeds coarse to fine, if the
    initial shape is far from the points, and stiff to flexible, until the likelihood of validation points decreases.
    """

    start: Start = "auto"
    """Initial shape: the solid by winding numbers (any genus), a thin shell around the points (any genus),
    their convex hull, or a sphere (genus 0). auto: the solid, or the shell if most of the solid is unobserved."""
    edge_length: float | None = None
    """Edge length of the result in world units. Default: the mean distance between neighboring points, at most 1% of
    the diagonal of the bounding box."""
    open: bool = False
    """Trim the surface where there are no points: for terrain, sheets, and scans from one side. The result has a
    boundary."""
    max_vertices: int = 50_000
    """Maximum number of vertices with the default edge length."""
    smoothness: float | None = None
    """Weight of normal consistency, from 1e-11 for exact points to 1e-6 for very noisy points. Default: selected by
    validation."""
    steps: int = 150
    """Maximum number of steps."""
    holdout: float = 0.0
    """Fraction of the points held out from the fit to measure its error."""
    max_points: int = 200_000
    """Maximum number of points to fit; larger clouds are reduced."""
    reduction: Reduction = "average"
    """How clouds of more than `max_points` are reduced: to the means of the points in voxels, which averages noise, or
    to a random sample."""
    seed: int = 0
    """Random seed; the same seed gives the same mesh."""


@dataclasses.dataclass(frozen=True)
class FitMeshStep:
    """The state of the fit after a step; step 0 is the initial shape."""

    index: int
    last_index: int
    """Index of the last possible step; the fit may end before."""
    stage: str
    """start, coarse, fine, or final, which includes the validation points."""
    mesh: Mesh
    """The mesh in the frame of the prepared cloud."""
    losses: dict[str, float]
    """total, chamfer (in squared diagonals), normal_consistency (Σ 1 − cos over all adjacent faces), and, before the
    final stage, validation: the mean distance (in diagonals) of the validation points."""
    smoothness: float
    cloud: PreparedCloud
    is_open: bool = False
    """Whether the result is trimmed where there are no points."""

    @functools.cached_property
    def surface(self) -> Mesh:
        """The mesh, trimmed if it is open, in the frame of the prepared cloud."""
        return trim_unsupported(self.mesh, self.cloud) if self.is_open else self.mesh

    @property
    def result(self) -> Mesh:
        """The surface of this step in world units."""
        return self.cloud.to_world(self.surface)


def fit_mesh(
    cloud: PointCloud,
    config: FitMesh = FitMesh(),
    *,
    checkpoints: Path | None = None,
    resume: Path | None = None,
) -> Iterator[FitMeshStep]:
    """Fit a closed mesh to a point cloud, in steps; every step has a usable mesh, the last one is the final result.

    The mesh is watertight unless `open`, in world units and float64, and does not depend on the number of threads.
    Raises InputError before the first step for a cloud that has no closed surface: too few points, or all of them
    coincident, collinear or coplanar.

    With `checkpoints`, a folder, all that is needed to resume is saved there at every stage, every 15 seconds and when
    the iterator is closed early. `resume` is such a folder: the fit continues from there and ends with the same mesh as
    if it had never stopped.

    Example: `*_, last = fit_mesh(load_cloud("scan.ply"))`, then `save_mesh(last.result, "mesh.ply")`.
    """
    _check(config)
    if not isinstance(cloud, PointCloud):
        raise ShapeError(f"fit_mesh: `cloud` should be a PointCloud, got {describe_value(cloud)}")
    prepared = prepare_cloud(cloud, config.holdout, config.max_points, config.seed, config.reduction)
    saved = MeshCheckpoints(checkpoints, prepared, dataclasses.asdict(config))
    if resume is not None:
        state = saved.read(resume)
    else:
        start = initial_mesh(prepared, config.start, is_open=config.open)
        random = torch.Generator().manual_seed(config.seed).get_state()
        is_near = config.start in NEAR_STARTS
        smoothness = _expected_smoothness(prepared) if is_near else SMOOTHNESS[0]
        state = FitState(float(surface_area(start)), start, smoothness, random)
    plan = _plan(prepared, state.start_area, config)
    saved.check_space(state.start_area / plan[-1].edge_length ** 2 / VERTEX_AREA)
    return _fit(prepared, state, plan, config, saved)


def _check(config: FitMesh) -> None:
    for name in ("edge_length", "smoothness", "max_vertices", "max_points"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"fit_mesh: `{name}` should be positive and finite, got {value}")
    for name in ("steps", "seed"):
        if getattr(config, name) < 0:
            raise InputError(f"fit_mesh: `{name}` should be at least 0, got {getattr(config, name)}")
    for name, choices in (("start", get_args(Start)), ("reduction", get_args(Reduction))):
        if getattr(config, name) not in choices:
            raise InputError(
                f"fit_mesh: `{name}` should be one of {', '.join(choices)}, got {getattr(config, name)!r}"
            )
    if not 0 <= config.holdout < 1:
        raise InputError(f"fit_mesh: `holdout` should be a fraction, 0 ≤ holdout < 1, got {config.holdout}")


class Stage(NamedTuple):
    """A part of the fit with one edge length."""

    name: str
    edge_length: float
    num_samples: int
    """Number of surface samples attracted to the points, needed for initial shapes far away from them."""


def _plan(cloud: PreparedCloud, area: float, config: FitMesh) -> list[Stage]:
    """Plan one stage, or from distant initial shapes a coarse-to-fine schedule that halves the edge length."""
    shortest = math.sqrt(area / (VERTEX_AREA * config.max_vertices))
    length = (
        max(min(cloud.spacing, 0.01), shortest)
        if config.edge_length is None
        else config.edge_length / cloud.diagonal
    )
    if length > MAX_EDGE_LENGTH:
        raise InputError(
            f"fit_mesh: an edge length of {length * cloud.diagonal:.3g} is too long for a cloud of size "
            f"{cloud.diagonal:.3g}; `edge_length` should be at most {MAX_EDGE_LENGTH * cloud.diagonal:.3g} "
            f"(and at least {shortest * cloud.diagonal:.3g} with `max_vertices` = {config.max_vertices})"
        )
    if length < shortest / 4:
        raise InputError(
            f"fit_mesh: an edge length of {config.edge_length} would give about "
            f"{area / length**2 / VERTEX_AREA:.0f} vertices; increase `max_vertices`, or set `edge_length` to at least "
            f"{shortest * cloud.diagonal:.3g}"
        )
    if config.start in NEAR_STARTS:
        return [Stage("fine", length, 0)]
    samples = min(10_000, len(cloud.points))
    return [
        Stage("coarse", 8 * length, samples),
        Stage("coarse", 4 * length, samples),
        Stage("coarse", 2 * length, 0),
        Stage("fine", length, 0),
    ]


def _fit(
    cloud: PreparedCloud, state: FitState, plan: list[Stage], config: FitMesh, saved: MeshCheckpoints
) -> Iterator[FitMeshStep]:
    """Yield the state that the fit starts from, and its steps; save checkpoints."""
    last = min(config.steps, 3 * len(_candidates(math.inf, cloud, config)) * len(plan) + 6)
    name = "start" if state.index == 0 else "final" if state.final_steps else plan[0].name
    first = FitMeshStep(state.index, last, name, state.mesh, {}, state.smoothness, cloud, config.open)
    yield dataclasses.replace(first, last_index=max(last, state.index))
    steps = itertools.chain(
        _fit_stages(cloud, state, plan, config, saved), _fit_everything(cloud, state, config)
    )
    try:
        for step in itertools.islice(steps, max(0, last - state.index)):
            yield dataclasses.replace(step, last_index=last, is_open=config.open)
    except GeneratorExit:  # closed between two steps; a step that fails is not saved
        saved.save(state)
        raise
    saved.save(state)


def _fit_stages(
    cloud: PreparedCloud, state: FitState, plan: list[Stage], config: FitMesh, saved: MeshCheckpoints
) -> Iterator[FitMeshStep]:
    """Fit coarse to fine, and in each stage stiff to flexible; `state` follows after each smoothness weight."""
    validation = _weighted_points(cloud, cloud.validation)
    training = _weighted_points(cloud, ~cloud.validation)
    generator = torch.Generator()
    generator.set_state(state.random)
    for stage in plan[state.stage :]:
        mesh = state.mesh if state.trials else remesh_isotropic(state.mesh, stage.edge_length)
        for candidate in _candidates(state.smoothness, cloud, config)[len(state.trials) :]:
            if config.smoothness is None and _is_past_minimum(state.trials):
                break
            for count in range(1, 4):  # after that, the next candidate improves more than another step
                mesh, losses = _gauss_newton_step(
                    mesh, training, stage.num_samples, cloud.spacing, candidate, generator
                )
                losses["validation"] = _mean_distance(validation, mesh)
                index = state.index + count
                yield FitMeshStep(index, index, stage.name, mesh, losses, candidate, cloud)
            # points with noise e around a surface of area A have the density exp(−|distance| / e) / (2 e A)
            score = losses["validation"] * float(surface_area(mesh))
            state.trials.append(Trial(score, candidate, mesh))
            state.mesh, state.index, state.random = mesh, index, generator.get_state()
            saved.save(state, is_stage_end=False)
        best = state.best() if config.smoothness is None else state.trials[-1]
        state.smoothness, state.mesh = best.smoothness, best.mesh
        state.stage, state.trials = state.stage + 1, []
        saved.save(state)


def _fit_everything(cloud: PreparedCloud, state: FitState, config: FitMesh) -> Iterator[FitMeshStep]:
    """Fit to all points, with the selected smoothness."""
    points, generator = _weighted_points(cloud), torch.Generator()
    for _ in range(6 - state.final_steps):
        state.mesh, losses = _gauss_newton_step(
            state.mesh, points, 0, cloud.spacing, state.smoothness, generator
        )
        state.index, state.final_steps = state.index + 1, state.final_steps + 1
        yield FitMeshStep(state.index, state.index, "final", state.mesh, losses, state.smoothness, cloud)


class WeightedPoints(NamedTuple):
    """Points to fit, and the weight of each in the mean over all of them."""

    tree: PointIndex
    weights: Array


def _weighted_points(cloud: PreparedCloud, where: Tensor | None = None) -> WeightedPoints:
    points, weights = cloud.points, cloud.weights
    if where is not None:
        points, weights = points[where], weights[where]
    return WeightedPoints(index_points(points.to(cloud.device)), weights.numpy())


def _is_past_minimum(trials: list[Trial]) -> bool:
    """Say whether the score increased twice."""
    return len(trials) > 2 and trials[-1].score > trials[-2].score > trials[-3].score


def _expected_smoothness(cloud: PreparedCloud) -> float:
    """Estimate the best smoothness weight: the one that balances attraction at a wavelength that averages the noise."""
    return _balance(1.5 * cloud.spacing + 20 * cloud.noise, cloud)


def _balance(wavelength: float, cloud: PreparedCloud) -> float:
    """Return the smoothness weight for which bending and attraction balance at a wavelength: 2π (weight · area)^¼."""
    return float((wavelength / (2 * math.pi)) ** 4 / float(cloud.local.areas.sum()))


def _candidates(previous: float, cloud: PreparedCloud, config: FitMesh) -> list[float]:
    """List the smoothness weights to try: the given one, or decreasing ones from somewhat above the previous result.

    Those that balance attraction at less than 1.5 times the point spacing are not tried: the points cannot resolve it.
    """
    if config.smoothness is not None:
        return [config.smoothness] * 3
    lowest = _balance(1.5 * cloud.spacing, cloud)
    return [s for s in SMOOTHNESS if lowest <= s < 20 * previous] or [SMOOTHNESS[0]]


def _gauss_newton_step(
    mesh: Mesh,
    points: WeightedPoints,
    num_samples: int,
    spacing: float,
    smoothness: float,
    generator: torch.Generator,
) -> tuple[Mesh, dict[str, float]]:
    """Take one Gauss-Newton step on chamfer + smoothness · normal consistency, with backtracking line search.

    With fixed correspondences, the distances are an upper bound of the closest-point distances: a step that lowers them
    lowers the chamfer distance.
    """
    pairs = [_points_to_surface(mesh, points, spacing)]
    if num_samples:
        pairs.append(_surface_to_points(mesh, points.tree, spacing, num_samples, generator))
    vertices = mesh.vertices.clone().requires_grad_()
    bend = _bending_energy(mesh.replace(vertices=vertices))
    (bend_gradient,) = torch.autograd.grad(bend, vertices)
    chamfer = _chamfer(mesh, pairs)
    hinges = bending_matrix(mesh)
    gradient, hessian = smoothness * _limited(bend_gradient, mesh).numpy(), smoothness * (hinges.T @ hinges)
    for pair in pairs:
        gradient = gradient + 2 * (pair.interpolation.T @ (pair.weights * pair.offsets(mesh)))
        hessian = hessian + 2 * (pair.interpolation.T @ (pair.weights * pair.interpolation))
    total = chamfer + smoothness * bend.item()
    losses = {"total": total, "chamfer": chamfer, "normal_consistency": bend.item()}
    step = torch.from_numpy(newton_step(hessian.tocsr(), gradient))
    for _ in range(5):
        moved = mesh.replace(vertices=mesh.vertices + step)
        if _chamfer(moved, pairs) + smoothness * _bending_energy(moved).item() <= total:
            return moved, losses
        step = step / 2
    return mesh, losses


def _bending_energy(mesh: Mesh) -> Tensor:
    """Sum 1 − cos over all pairs of adjacent faces, which unlike the mean does not depend on the face size."""
    return mesh_normal_consistency(mesh) * len(topology(mesh.faces).hinge_sides)


def _limited(gradients: Tensor, mesh: Mesh) -> Tensor:
    """Limit the bending gradients of vertices, which are unbounded at faces without area, and would stop all others."""
    edge_length = math.sqrt(float(surface_area(mesh)) / (VERTEX_AREA * len(mesh.vertices)))
    lengths: Tensor = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
    return gradients * (MAX_BENDING_GRADIENT / (edge_length * lengths).clamp_min(MAX_BENDING_GRADIENT))


class _Pairs(NamedTuple):
    """Correspondences of surface positions (rows of `interpolation`) and points; the weights sum to 1."""

    interpolation: Matrix
    points: Array
    weights: Array

    def offsets(self, mesh: Mesh) -> Array:
        return np.asarray(self.interpolation @ mesh.vertices.numpy() - self.points)


def _chamfer(mesh: Mesh, pairs: list[_Pairs]) -> float:
    return sum(float((pair.weights * pair.offsets(mesh) ** 2).sum()) for pair in pairs)


def _points_to_surface(mesh: Mesh, points: WeightedPoints, spacing: float) -> _Pairs:
    surface, at = mesh.to(points.tree.points.device), points.tree
    squared, face_ids, barycentrics = (t.cpu() for t in closest_on_mesh(at, surface.vertices, surface.faces))
    interpolation = interpolation_matrix(mesh, face_ids, barycentrics)
    weights = _huber_weights(squared, spacing, points.weights)
    return _Pairs(interpolation, at.points.cpu().numpy(), weights)


def _surface_to_points(
    mesh: Mesh, points: PointIndex, spacing: float, num_samples: int, generator: torch.Generator
) -> _Pairs:
    samples = sample_points_from_mesh(mesh, num_samples, generator=generator)
    squared, ids = (t.cpu() for t in nearest(samples.points.to(points.points.device), points))
    interpolation = interpolation_matrix(mesh, samples.face_ids, samples.barycentric)
    return _Pairs(
        interpolation, points.points.cpu()[ids[:, 0]].numpy(), _huber_weights(squared[:, 0], spacing)
    )


def _huber_weights(squared: Tensor, spacing: float, counts: Array | float = 1.0) -> Array:
    """Compute Huber weights with a threshold of three standard deviations, at least half the spacing, times counts."""
    distances = squared.sqrt().numpy()
    scale = max(spacing / 2, 3 * 1.4826 * float(np.median(distances)))
    weights = counts * scale / np.maximum(distances, scale)
    return np.asarray(weights / weights.sum())[:, None]


def _mean_distance(points: WeightedPoints, mesh: Mesh) -> float:
    surface = mesh.to(points.tree.points.device)
    found = closest_on_mesh(points.tree, surface.vertices, surface.faces)
    return float(np.average(found.squared_distances.sqrt().cpu().numpy(), weights=points.weights))
