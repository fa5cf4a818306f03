"""Mesh from points: deform a closed mesh until it matches a cloud."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
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
from unrender.tasks.mesh.gauss_newton import Array, Matrix, attachments, bending, newton_step
from unrender.tasks.mesh.initial_mesh import start_mesh
from unrender.tasks.mesh.prepare_cloud import PreparedCloud, prepare_cloud

Start = Literal["auto", "solid", "shell", "hull", "sphere"]
SMOOTHNESS = tuple(float(s) for s in np.geomspace(1e-6, 1e-11, 11))
"""What is tried, stiff to flexible, where the config leaves it open."""
VERTEX_AREA = 3**0.5 / 2
"""Of a mesh of equilateral triangles with edges of length 1."""
LONGEST_EDGE = 0.2
"""In diagonals: longer edges make no solid."""


@dataclasses.dataclass(frozen=True)
class FitMesh:
    """Deform a closed mesh until it matches a point cloud.

    Descends on the squared distance between points and surface (linear beyond three standard deviations) plus
    `smoothness` times the sum of 1 − cos over all hinges: coarse to fine, stiff to flexible, until points that were
    kept back for the purpose become less likely.
    """

    start: Start = "auto"
    """Where to begin: the solid that has the points on its skin (any genus), a thin shell around them (any genus),
    their convex hull or a sphere (no holes). auto: the solid, or the shell where most of the solid would be guessed."""
    edge_length: float | None = None
    """Length of the result's edges in world units. By default the mean distance between neighbouring points, at most
    1 % of the diagonal of the cloud's box."""
    max_vertices: int = 50_000
    """Lengthen the default edges where the mesh would have more vertices than this."""
    smoothness: float | None = None
    """Weight of normal consistency, 1e-11 for exact points to 1e-6 for very noisy ones. By default found by trial."""
    steps: int = 150
    """Stop after so many steps, wherever the fit stands."""
    holdout: float = 0.0
    """Share of the points that the fit never sees, so that its error can be measured on them."""
    max_points: int = 200_000
    """Fit a random subset of so many points where there are more. Errors are measured on all."""
    seed: int = 0
    """Seed of every random choice: the same seed gives the same mesh."""


@dataclasses.dataclass(frozen=True)
class FitMeshStep:
    """Where the fit stands after a step; step 0 is the start shape."""

    index: int
    last_index: int
    """No step comes after this one; the fit may well end before."""
    stage: str
    """start, coarse, fine, or final: with all points, those kept back included."""
    mesh: Mesh
    """In the frame of the prepared cloud."""
    losses: dict[str, float]
    """total, chamfer (in squared diagonals), normal_consistency (Σ 1 − cos over all hinges), and, before the final
    stage, unseen: the mean distance (in diagonals) of the points kept back."""
    smoothness: float
    cloud: PreparedCloud

    @property
    def result(self) -> Mesh:
        """The mesh of this step in world units."""
        return self.cloud.to_world(self.mesh)


def fit_mesh(cloud: PointCloud, config: FitMesh = FitMesh()) -> Iterator[FitMeshStep]:
    """Deform a closed mesh until it matches a cloud; every step has a usable mesh, the last one the result.

    The mesh is watertight, in world units and float64, and the same for any number of threads. Raises InputError
    before the first step for a cloud without a surface: too few points, all in one place, on a line, in a plane.
    """
    _check(config)
    if not isinstance(cloud, PointCloud):
        raise ShapeError(f"fit_mesh: `cloud` should be a PointCloud, got {describe_value(cloud)}")
    prepared = prepare_cloud(cloud, config.holdout, config.max_points, config.seed)
    start = start_mesh(prepared, config.start)
    steps = _fit(prepared, start, _plan(prepared, start, config), config)
    return itertools.islice(steps, config.steps + 1)


def _check(config: FitMesh) -> None:
    for name in ("edge_length", "smoothness", "max_vertices", "max_points"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"fit_mesh: `{name}` should be above 0, got {value}")
    for name in ("steps", "seed"):
        if getattr(config, name) < 0:
            raise InputError(f"fit_mesh: `{name}` should be 0 or more, got {getattr(config, name)}")
    if config.start not in get_args(Start):
        raise InputError(
            f"fit_mesh: `start` should be one of {', '.join(get_args(Start))}, got {config.start!r}"
        )
    if not 0 <= config.holdout < 1:
        raise InputError(
            f"fit_mesh: `holdout` is a share of the points, 0 ≤ holdout < 1, got {config.holdout}"
        )


class _Stage(NamedTuple):
    name: str
    edge_length: float
    num_samples: int
    """How many places of the surface are drawn to the points too: needed where it starts far away from them."""


def _plan(cloud: PreparedCloud, start: Mesh, config: FitMesh) -> list[_Stage]:
    """Halve the edges from stage to stage; a start far away has a longer way, and half of it in both directions."""
    area = float(surface_area(start))
    least = math.sqrt(area / (VERTEX_AREA * config.max_vertices))
    length = (
        max(min(cloud.spacing, 0.01), least)
        if config.edge_length is None
        else config.edge_length / cloud.diagonal
    )
    if length > LONGEST_EDGE:
        raise InputError(
            f"fit_mesh: edges of {length * cloud.diagonal:.3g} are too long for a cloud of size {cloud.diagonal:.3g}; "
            f"the longest possible `edge_length` is {LONGEST_EDGE * cloud.diagonal:.3g} "
            f"(the shortest that {config.max_vertices} `max_vertices` allow is {least * cloud.diagonal:.3g})"
        )
    if length < least / 4:
        raise InputError(
            f"fit_mesh: edges of {config.edge_length} would make about {area / length**2 / VERTEX_AREA:.0f} vertices; "
            f"allow more `max_vertices`, or an `edge_length` of {least * cloud.diagonal:.3g} or more"
        )
    if config.start in ("auto", "solid", "shell"):
        return [_Stage("coarse", 2 * length, 0), _Stage("fine", length, 0)]
    samples = min(10_000, len(cloud.points))
    return [
        _Stage("coarse", 8 * length, samples),
        _Stage("coarse", 4 * length, samples),
        _Stage("coarse", 2 * length, 0),
        _Stage("fine", length, 0),
    ]


def _fit(cloud: PreparedCloud, mesh: Mesh, plan: list[_Stage], config: FitMesh) -> Iterator[FitMeshStep]:
    generator = torch.Generator().manual_seed(config.seed)
    unseen = cloud.points[cloud.kept_back]
    seen, everything = index_points(cloud.points[~cloud.kept_back]), index_points(cloud.points)
    index = itertools.count()
    last = min(config.steps, 3 * len(_candidates(math.inf, cloud, config)) * len(plan) + 6)
    smoothness = SMOOTHNESS[0]
    yield FitMeshStep(next(index), last, "start", mesh, {}, smoothness, cloud)
    for stage in plan:
        mesh = remesh_isotropic(mesh, stage.edge_length)
        trials: list[tuple[float, float, Mesh]] = []
        for candidate in _candidates(smoothness, cloud, config):
            for _ in range(3):  # then the next smoothness changes more than one more step would
                mesh, losses = _descend(mesh, seen, stage.num_samples, cloud.spacing, candidate, generator)
                losses["unseen"] = _mean_distance(unseen, mesh)
                yield FitMeshStep(next(index), last, stage.name, mesh, losses, candidate, cloud)
            # points with noise e around a surface of area A have the density exp(−|distance| / e) / (2 e A)
            trials.append((losses["unseen"] * float(surface_area(mesh)), candidate, mesh))
            if (
                config.smoothness is None
                and len(trials) > 2
                and trials[-1][0] > trials[-2][0] > trials[-3][0]
            ):
                break
        best = min(trials, key=lambda trial: trial[0]) if config.smoothness is None else trials[-1]
        _, smoothness, mesh = best
    for _ in range(6):
        mesh, losses = _descend(mesh, everything, 0, cloud.spacing, smoothness, generator)
        yield FitMeshStep(next(index), last, "final", mesh, losses, smoothness, cloud)


def _candidates(before: float, cloud: PreparedCloud, config: FitMesh) -> list[float]:
    """List the smoothness to try: the one asked for, or downwards from somewhat above the one found before.

    Bending and attraction are in balance for waves of length 2π (smoothness · area)^¼: shorter waves than one and a
    half spacings are not tried, for no point could tell whether they are there.
    """
    if config.smoothness is not None:
        return [config.smoothness] * 3
    area = float(cloud.local.areas.sum())
    least = (1.5 * cloud.spacing / (2 * math.pi)) ** 4 / area
    return [s for s in SMOOTHNESS if least <= s < 20 * before] or [SMOOTHNESS[0]]


def _descend(
    mesh: Mesh,
    points: PointIndex,
    num_samples: int,
    spacing: float,
    smoothness: float,
    generator: torch.Generator,
) -> tuple[Mesh, dict[str, float]]:
    """Take one Gauss-Newton step on chamfer + smoothness · normal consistency, halved until both together fall.

    Held to the places where they are now, the pairs are nowhere closer than the points are to the surface:
    a step that lowers their distance lowers the chamfer distance.
    """
    pairs = [_points_to_surface(mesh, points, spacing)]
    if num_samples:
        pairs.append(_surface_to_points(mesh, points, spacing, num_samples, generator))
    vertices = mesh.vertices.clone().requires_grad_()
    bend = _bend(mesh.replace(vertices=vertices))
    (bend_gradient,) = torch.autograd.grad(bend, vertices)
    chamfer = _chamfer(mesh, pairs)
    hinges = bending(mesh)
    gradient, hessian = smoothness * bend_gradient.numpy(), smoothness * (hinges.T @ hinges)
    for pair in pairs:
        gradient = gradient + 2 * (pair.hold.T @ (pair.weights * pair.offsets(mesh)))
        hessian = hessian + 2 * (pair.hold.T @ (pair.weights * pair.hold))
    total = chamfer + smoothness * bend.item()
    losses = {"total": total, "chamfer": chamfer, "normal_consistency": bend.item()}
    step = torch.from_numpy(newton_step(hessian.tocsr(), gradient))
    for _ in range(5):
        moved = mesh.replace(vertices=mesh.vertices + step)
        if _chamfer(moved, pairs) + smoothness * _bend(moved).item() <= total:
            return moved, losses
        step = step / 2
    return mesh, losses


def _bend(mesh: Mesh) -> Tensor:
    """Sum 1 − cos over all hinges: unlike their mean, the same for any size of the faces."""
    return mesh_normal_consistency(mesh) * len(topology(mesh.faces).hinge_sides)


class _Pairs(NamedTuple):
    """Places on the surface (rows of `hold`), each with the point that it belongs to; the weights sum to 1."""

    hold: Matrix
    points: Array
    weights: Array

    def offsets(self, mesh: Mesh) -> Array:
        return np.asarray(self.hold @ mesh.vertices.numpy() - self.points)


def _chamfer(mesh: Mesh, pairs: list[_Pairs]) -> float:
    return sum(float((pair.weights * pair.offsets(mesh) ** 2).sum()) for pair in pairs)


def _points_to_surface(mesh: Mesh, points: PointIndex, spacing: float) -> _Pairs:
    squared, face_ids, barycentrics = closest_on_mesh(points, mesh.vertices, mesh.faces)
    hold = attachments(mesh, face_ids, barycentrics)
    return _Pairs(hold, points.points.numpy(), _huber_weights(squared, spacing))


def _surface_to_points(
    mesh: Mesh, points: PointIndex, spacing: float, num_samples: int, generator: torch.Generator
) -> _Pairs:
    samples = sample_points_from_mesh(mesh, num_samples, generator=generator)
    squared, ids = nearest(samples.points, points)
    hold = attachments(mesh, samples.face_ids, samples.barycentric)
    return _Pairs(hold, points.points[ids[:, 0]].numpy(), _huber_weights(squared[:, 0], spacing))


def _huber_weights(squared: Tensor, spacing: float) -> Array:
    """Weigh distances so that beyond three standard deviations, at least half the spacing, the pull stays constant."""
    distances = squared.sqrt().numpy()
    scale = max(spacing / 2, 3 * 1.4826 * float(np.median(distances)))
    weights = scale / np.maximum(distances, scale)
    return np.asarray(weights / weights.sum())[:, None]


def _mean_distance(points: Tensor, mesh: Mesh) -> float:
    return float(closest_on_mesh(points, mesh.vertices, mesh.faces).squared_distances.sqrt().numpy().mean())
