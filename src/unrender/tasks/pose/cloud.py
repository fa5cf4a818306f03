"""The pose of a known mesh in a cloud of points, without a guess: everywhere at once, then downhill.

Lengths are in radii: the mesh fills the unit sphere about its origin, and the cloud has the same scale. A cloud may
show one side of the object, so its middle says little about where the object is, and parts of the mesh that no point
is near count neither for a pose nor against it. Poses are cloud from object.
"""

import functools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from unrender.geometry.camera import invert_rigid, rigid, transform
from unrender.geometry.mesh import Mesh, face_normals, surface_area
from unrender.geometry.rotations import random_rotations, rotation_from_quaternion
from unrender.geometry.sample import sample_points_from_mesh
from unrender.kernels.closest_on_mesh import closest_on_mesh, index_faces
from unrender.kernels.nearest import index_points, nearest
from unrender.tasks.pose.descent import Fit, descend, keep_best

Surface = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From points [..., 3] in the object's frame to their distances from its surface, of either sign, and the unit vectors
[..., 3] along which these grow."""

NUM_ROTATIONS = 1024
"""About 20° apart."""
NUM_STARTS = 256
"""Go downhill from the best so many rotations."""
CELLS, PERIOD = 24, 2.6
"""Of the grid in which all shifts are tried at once, and its size in radii."""
CELL, MARGIN = 0.04, 0.2
"""Of the grid of distances: size of a cell, and room around the mesh, in radii."""
NUM_SAMPLES = 20_000
"""Of the surface: about 0.02 radii apart."""
NUM_PAIRS = 2**15
"""Poses times points that a step compares."""
MAX_POINTS = 20_000
COARSEST, FINEST = 0.15, 1e-4
"""Scales, in radii: of the search, and of clouds that count as exact."""
LIKENESS = 3e-3
"""Radii: no mesh is like its object to more than that, so smaller distances tell no poses apart."""
CANDIDATES_APART, MOST = 0.3, 32
"""Candidates are turned by so many radians from each other; a cube has 24 poses that look the same."""


STAGES = (("search", 8, 2.5), ("coarse", 10, 2.5), ("fine", 3, 1.5))
"""Steps of each, and how many times the least cost a pose may cost to go on."""
CLOUD_STEPS = sum(steps + 1 for _, steps, _ in STAGES)
"""At most, the first included."""


def align_cloud(
    mesh: Mesh, points: Tensor, generator: torch.Generator, starts: Tensor | None = None
) -> Iterator[tuple[str, Fit]]:
    """Find the poses of a mesh that explain a cloud best; yield the stage and where it stands after every step.

    The last fit has the best pose first, then those that are about as good, as objects with symmetries have. `starts`
    are poses that replace the search.
    """
    middle = points.median(0).values
    points = _some_in_order(points - middle, generator)
    gridded = gridded_surface(mesh, generator)
    if starts is None:
        poses = search_cloud(gridded, points, NUM_STARTS, generator)
    else:
        poses = rigid(starts[:, :3, :3], starts[:, :3, 3] - middle)
    scale = COARSEST
    surfaces = (gridded, gridded, exact_surface(mesh))
    for (stage, steps, tolerance), surface in zip(STAGES, surfaces, strict=True):
        some = _thin(points, NUM_PAIRS // len(poses))
        for fit in descend(functools.partial(evaluate_cloud, surface, some, scale=scale), poses, steps):
            yield stage, _placed(fit, middle)
        worst = tolerance * float(fit.cost.min()) + max(scale / 10, LIKENESS) ** 2
        best = keep_best(fit, CANDIDATES_APART, MOST, worst)
        poses, scale = best.poses, min(scale, scale_of(surface, some, best.poses[0]))
    yield stage, _placed(best, middle)


def evaluate_cloud(surface: Surface, points: Tensor, poses: Tensor, scale: float) -> Fit:
    """Compare points with the surface of an object in many poses.

    With e the distance of a point from the surface, the cost is the mean of e² / (1 + e² / scale²): e² well below
    the scale, and constant beyond (Geman and McClure 1985). Agreement is the share of points nearer than the scale.
    """
    points_object = transform(invert_rigid(poses), points)
    distances, directions = surface(points_object)
    closeness = 1 / (1 + distances.square() / scale**2)
    weights = closeness.square()[..., None] / len(points)
    slopes = -torch.cat([torch.linalg.cross(points_object, directions), directions], -1)
    to_cloud = poses.new_zeros(len(poses), 6, 6)  # turns twists of the object's frame
    to_cloud[:, :3, :3] = to_cloud[:, 3:, 3:] = poses[:, :3, :3]
    gradient = (weights * slopes * distances[..., None]).sum(1)
    return Fit(
        poses,
        cost=(distances.square() * closeness).mean(1),
        gradient=(to_cloud @ gradient[..., None])[..., 0],
        hessian=to_cloud @ ((weights * slopes).mT @ slopes) @ to_cloud.mT,
        agreement=(distances.abs() < scale).to(points.dtype).mean(1),
    )


def scale_of(surface: Surface, points: Tensor, pose: Tensor) -> float:
    """Estimate three standard deviations of the distances of points from a surface, by their median."""
    distances, _ = surface(transform(invert_rigid(pose), points))
    return max(FINEST, 3 * 1.4826 * float(distances.abs().median()))


def exact_surface(mesh: Mesh) -> Surface:
    """Measure distances from the nearest points of the faces."""
    order, normals = index_faces(mesh.vertices, mesh.faces), face_normals(mesh)

    def measure(points: Tensor) -> tuple[Tensor, Tensor]:
        queries = points.reshape(-1, 3)
        _, face_ids, weights = closest_on_mesh(queries, mesh.vertices, mesh.faces, face_order=order)
        closest = (mesh.vertices[mesh.faces[face_ids]] * weights[..., None]).sum(-2)
        distances, directions = _split(queries - closest, normals[face_ids], FINEST / 10)
        return distances.view(points.shape[:-1]), directions.view(points.shape)

    return measure


def gridded_surface(mesh: Mesh, generator: torch.Generator) -> Surface:
    """Measure distances from the plane that is nearest to the middle of a cell of a grid, found once for all.

    Linear within a cell and, from the cells at the border of the grid, beyond.
    """
    samples = sample_points_from_mesh(mesh, NUM_SAMPLES, generator=generator)
    low, high = mesh.vertices.amin(0) - MARGIN, mesh.vertices.amax(0) + MARGIN
    size = ((high - low) / CELL).ceil().long()
    ticks = [torch.arange(int(count)).to(low) for count in size]
    middles = low + CELL * (torch.cartesian_prod(*ticks) + 0.5)
    nearby = nearest(middles, index_points(samples.points)).ids[:, 0]
    spacing = math.sqrt(float(surface_area(mesh)) / NUM_SAMPLES)
    distances, directions = _split(middles - samples.points[nearby], samples.normals[nearby], 3 * spacing)
    planes = torch.cat([directions, (distances - (directions * middles).sum(-1))[:, None]], 1)
    strides = torch.stack([size[1] * size[2], size[2], torch.ones_like(size[2])])

    def measure(points: Tensor) -> tuple[Tensor, Tensor]:
        cells = ((points - low) / CELL).long().clamp(min=torch.zeros_like(size), max=size - 1)
        plane = planes[(cells * strides).sum(-1)]
        return (points * plane[..., :3]).sum(-1) + plane[..., 3], plane[..., :3]

    return measure


def _split(offsets: Tensor, normals: Tensor, near: float) -> tuple[Tensor, Tensor]:
    """Turn offsets from a surface into distances and directions; nearby, where these are uncertain, by its normals."""
    distances = offsets.norm(dim=-1)
    is_near = distances < near
    directions = torch.where(is_near[..., None], normals, offsets / distances.clamp(min=near)[..., None])
    return torch.where(is_near, (offsets * normals).sum(-1), distances), directions


def search_cloud(surface: Surface, points: Tensor, num_starts: int, generator: torch.Generator) -> Tensor:
    """Try rotations that are spread evenly, each with all shifts on a grid, and return the best poses, best first.

    For a rotation R, the costs Σ f(Rᵀ p − u) of all shifts u are one correlation of the field f around the object with
    the number of points in each cell, by Fourier transforms. The pose is R, and u turned by it.
    """
    steps = torch.fft.fftfreq(CELLS, 1 / PERIOD).to(points)
    squared = surface(torch.cartesian_prod(steps, steps, steps))[0].square()
    field = torch.fft.rfftn((squared / (COARSEST**2 + squared)).view(CELLS, CELLS, CELLS)).conj()
    turn = random_rotations(1, generator=generator, dtype=points.dtype)
    rotations = even_rotations(NUM_ROTATIONS).to(points) @ turn
    some = _thin(points, 256)
    found = [_best_shift(field, some @ batch) for batch in rotations.split(64)]
    costs, places = (torch.cat(values) for values in zip(*found, strict=True))
    best = costs.argsort(stable=True)[:num_starts]
    shifts = steps[torch.stack(torch.unravel_index(places[best], (CELLS,) * 3), -1)]
    return rigid(rotations[best], (rotations[best] @ shifts[..., None])[..., 0])


def _best_shift(field: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least cost of every turned cloud, and the cell of the shift that it comes from."""
    cells = (points * (CELLS / PERIOD)).round().long() % CELLS
    flat = (cells * cells.new_tensor([CELLS**2, CELLS, 1])).sum(-1)
    counts = points.new_zeros(len(points), CELLS**3).scatter_add_(1, flat, points.new_ones(flat.shape))
    spectrum = torch.fft.rfftn(counts.view(-1, CELLS, CELLS, CELLS), dim=(1, 2, 3)) * field
    costs, places = torch.fft.irfftn(spectrum, s=(CELLS,) * 3, dim=(1, 2, 3)).flatten(1).min(1)
    return costs, places


def even_rotations(count: int) -> Tensor:
    """Spread rotations evenly: the super-Fibonacci spiral (Alexa 2022, algorithm 1)."""
    place = torch.arange(count, dtype=torch.float64) + 0.5
    inner, outer = (place / count).sqrt(), (1 - place / count).sqrt()
    a, b = 2 * math.pi * place / math.sqrt(2), 2 * math.pi * place / 1.533751168755204288118041
    return rotation_from_quaternion(
        torch.stack([inner * a.sin(), inner * a.cos(), outer * b.sin(), outer * b.cos()], -1)
    )


def _some_in_order(points: Tensor, generator: torch.Generator) -> Tensor:
    """Draw points, and sort them so that neighbours follow one another: they are searched faster, and thin evenly."""
    drawn = points[torch.randperm(len(points), generator=generator, device=points.device)[:MAX_POINTS]]
    order = index_points(drawn).order
    return drawn if order is None else drawn[order]


def _thin(points: Tensor, count: int) -> Tensor:
    count = min(count, len(points))
    return points[torch.arange(count, device=points.device) * len(points) // count]


def _placed(fit: Fit, middle: Tensor) -> Fit:
    poses = fit.poses.clone()
    poses[:, :3, 3] += middle
    return fit._replace(poses=poses)
