"""Alignment of a known mesh to a point cloud: global search without initial guess, then local refinement.

Lengths are in radii of the object: the mesh fills the unit sphere about its origin, and the cloud has the same scale. A
cloud may show one side of the object only, so that its centroid says little about the position of the object; parts of
the mesh without points nearby do not affect the cost. Poses are cloud from object.
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
from unrender.tasks.pose.levenberg_marquardt import Fit, keep_best, levenberg_marquardt

DistanceField = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps points [..., 3] in the object's frame to their signed or unsigned distances from its surface, and to the unit
gradients [..., 3] of these."""

NUM_ROTATIONS = 1024
"""Rotations of the search, about 20° apart."""
NUM_STARTS = 256
"""Poses of the search that are refined."""
SHIFT_CELLS, SHIFT_PERIOD = 24, 2.6
"""Cells per side of the grid of shifts in the search, and its size in radii."""
CELL_SIZE, MARGIN = 0.04, 0.2
"""Cell size of the sampled distance field, and its margin around the mesh, in radii."""
NUM_SAMPLES = 20_000
"""Surface samples of the distance field, about 0.02 radii apart."""
NUM_PAIRS = 2**15
"""Pairs of poses and points evaluated per step."""
MAX_POINTS = 20_000
MAX_SCALE, MIN_SCALE = 0.15, 1e-4
"""Scales of the robust cost, in radii: of the search, and of noiseless clouds."""
MODEL_ERROR = 3e-3
"""Assumed deviation of the mesh from the real object, in radii; smaller residuals do not discriminate poses."""
MIN_CANDIDATE_ANGLE, MAX_CANDIDATES = 0.3, 32
"""Minimum angle between candidates in radians, and their maximum number; a cube has 24 equivalent poses."""


STAGES = (("search", 8, 2.5), ("coarse", 10, 2.5), ("fine", 3, 1.5))
"""Name, steps, and the cost relative to the best one up to which poses are kept."""
MAX_CLOUD_STEPS = sum(steps + 1 for _, steps, _ in STAGES)
"""Maximum number of steps, including the initial evaluations."""


def align_point_cloud(
    mesh: Mesh, points: Tensor, generator: torch.Generator, starts: Tensor | None = None
) -> Iterator[tuple[str, Fit]]:
    """Align a mesh to a point cloud; yield the name of the stage and the current poses after every step.

    The last fit has the best pose first, then equivalent poses, as symmetric objects have. `starts` are initial poses
    that replace the global search.
    """
    center = points.median(0).values
    points = _subsample_sorted(points - center, generator)
    gridded = sampled_distance_field(mesh, generator)
    if starts is None:
        poses = search_rigid_poses(gridded, points, NUM_STARTS, generator)
    else:
        poses = rigid(starts[:, :3, :3], starts[:, :3, 3] - center)
    scale = MAX_SCALE
    surfaces = (gridded, gridded, exact_distance_field(mesh))
    for (stage, steps, tolerance), surface in zip(STAGES, surfaces, strict=True):
        some = _subsample(points, NUM_PAIRS // len(poses))
        for fit in levenberg_marquardt(
            functools.partial(evaluate_points, surface, some, scale=scale), poses, steps
        ):
            yield stage, _shifted(fit, center)
        max_cost = tolerance * float(fit.cost.min()) + max(scale / 10, MODEL_ERROR) ** 2
        best = keep_best(fit, MIN_CANDIDATE_ANGLE, MAX_CANDIDATES, max_cost)
        poses, scale = best.poses, min(scale, robust_scale(surface, some, best.poses[0]))
    yield stage, _shifted(best, center)


def evaluate_points(surface: DistanceField, points: Tensor, poses: Tensor, scale: float) -> Fit:
    """Evaluate the cost, gradient and Hessian of many poses.

    With e the distance of a point from the surface, the cost is the mean of the robust loss e² / (1 + e² / scale²) of
    Geman and McClure (1985). The agreement is the fraction of inliers, points nearer than the scale.
    """
    points_object = transform(invert_rigid(poses), points)
    distances, directions = surface(points_object)
    closeness = 1 / (1 + distances.square() / scale**2)
    weights = closeness.square()[..., None] / len(points)
    jacobian = -torch.cat([torch.linalg.cross(points_object, directions), directions], -1)
    to_cloud = poses.new_zeros(
        len(poses), 6, 6
    )  # rotates twists from the object's frame to that of the cloud
    to_cloud[:, :3, :3] = to_cloud[:, 3:, 3:] = poses[:, :3, :3]
    gradient = (weights * jacobian * distances[..., None]).sum(1)
    return Fit(
        poses,
        cost=(distances.square() * closeness).mean(1),
        gradient=(to_cloud @ gradient[..., None])[..., 0],
        hessian=to_cloud @ ((weights * jacobian).mT @ jacobian) @ to_cloud.mT,
        agreement=(distances.abs() < scale).to(points.dtype).mean(1),
    )


def robust_scale(surface: DistanceField, points: Tensor, pose: Tensor) -> float:
    """Estimate three standard deviations of the distances of points from a surface, from their median."""
    distances, _ = surface(transform(invert_rigid(pose), points))
    return max(MIN_SCALE, 3 * 1.4826 * float(distances.abs().median()))


def exact_distance_field(mesh: Mesh) -> DistanceField:
    """Create a distance field that computes the exact distance to the mesh."""
    order, normals = index_faces(mesh.vertices, mesh.faces), face_normals(mesh)

    def measure(points: Tensor) -> tuple[Tensor, Tensor]:
        queries = points.reshape(-1, 3)
        _, face_ids, weights = closest_on_mesh(queries, mesh.vertices, mesh.faces, face_order=order)
        closest = (mesh.vertices[mesh.faces[face_ids]] * weights[..., None]).sum(-2)
        distances, directions = _split(queries - closest, normals[face_ids], MIN_SCALE / 10)
        return distances.view(points.shape[:-1]), directions.view(points.shape)

    return measure


def sampled_distance_field(mesh: Mesh, generator: torch.Generator) -> DistanceField:
    """Create a distance field that stores the tangent plane of the nearest surface point for each cell of a grid.

    It is linear within each cell; border cells extrapolate.
    """
    samples = sample_points_from_mesh(mesh, NUM_SAMPLES, generator=generator)
    low, high = mesh.vertices.amin(0) - MARGIN, mesh.vertices.amax(0) + MARGIN
    size = ((high - low) / CELL_SIZE).ceil().long()
    ticks = [torch.arange(int(count)).to(low) for count in size]
    centers = low + CELL_SIZE * (torch.cartesian_prod(*ticks) + 0.5)
    nearby = nearest(centers, index_points(samples.points)).ids[:, 0]
    spacing = math.sqrt(float(surface_area(mesh)) / NUM_SAMPLES)
    distances, directions = _split(centers - samples.points[nearby], samples.normals[nearby], 3 * spacing)
    planes = torch.cat([directions, (distances - (directions * centers).sum(-1))[:, None]], 1)
    strides = torch.stack([size[1] * size[2], size[2], torch.ones_like(size[2])])

    def measure(points: Tensor) -> tuple[Tensor, Tensor]:
        cells = ((points - low) / CELL_SIZE).long().clamp(min=torch.zeros_like(size), max=size - 1)
        plane = planes[(cells * strides).sum(-1)]
        return (points * plane[..., :3]).sum(-1) + plane[..., 3], plane[..., :3]

    return measure


def _split(offsets: Tensor, normals: Tensor, near: float) -> tuple[Tensor, Tensor]:
    """Convert offsets from a surface to distances and directions; near the surface, use its normals for stability."""
    distances = offsets.norm(dim=-1)
    is_near = distances < near
    directions = torch.where(is_near[..., None], normals, offsets / distances.clamp(min=near)[..., None])
    return torch.where(is_near, (offsets * normals).sum(-1), distances), directions


def search_rigid_poses(
    surface: DistanceField, points: Tensor, num_starts: int, generator: torch.Generator
) -> Tensor:
    """Search uniformly distributed rotations and all shifts on a grid; return the best poses, best first.

    For a rotation R, the costs Σ f(Rᵀ p − u) of all shifts u are the cross-correlation of the cost field f around the
    object with the number of points per cell, computed by FFT. The pose is (R, R u).
    """
    steps = torch.fft.fftfreq(SHIFT_CELLS, 1 / SHIFT_PERIOD).to(points)
    squared = surface(torch.cartesian_prod(steps, steps, steps))[0].square()
    field = torch.fft.rfftn((squared / (MAX_SCALE**2 + squared)).view((SHIFT_CELLS,) * 3)).conj()
    turn = random_rotations(1, generator=generator, dtype=points.dtype).to(points.device)
    rotations = super_fibonacci_rotations(NUM_ROTATIONS).to(points) @ turn
    some = _subsample(points, 256)
    found = [_best_shift(field, some @ batch) for batch in rotations.split(64)]
    costs, cells = (torch.cat(values) for values in zip(*found, strict=True))
    best = costs.argsort(stable=True)[:num_starts]
    cell = cells[best]
    xyz = (cell // SHIFT_CELLS**2, cell // SHIFT_CELLS % SHIFT_CELLS, cell % SHIFT_CELLS)
    shifts = steps[torch.stack(xyz, -1)]
    return rigid(rotations[best], (rotations[best] @ shifts[..., None])[..., 0])


def _best_shift(field: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the minimum cost of every rotated cloud over all shifts, and the cell of the best shift."""
    cells = (points * (SHIFT_CELLS / SHIFT_PERIOD)).round().long() % SHIFT_CELLS
    flat = (cells * cells.new_tensor([SHIFT_CELLS**2, SHIFT_CELLS, 1])).sum(-1)
    counts = points.new_zeros(len(points), SHIFT_CELLS**3).scatter_add_(1, flat, points.new_ones(flat.shape))
    spectrum = torch.fft.rfftn(counts.view(-1, SHIFT_CELLS, SHIFT_CELLS, SHIFT_CELLS), dim=(1, 2, 3)) * field
    costs, cells = torch.fft.irfftn(spectrum, s=(SHIFT_CELLS,) * 3, dim=(1, 2, 3)).flatten(1).min(1)
    return costs, cells


def super_fibonacci_rotations(count: int) -> Tensor:
    """Create uniformly distributed rotations on a super-Fibonacci spiral (Alexa 2022, algorithm 1)."""
    s = torch.arange(count, dtype=torch.float64) + 0.5
    inner, outer = (s / count).sqrt(), (1 - s / count).sqrt()
    a, b = 2 * math.pi * s / math.sqrt(2), 2 * math.pi * s / 1.533751168755204288118041
    return rotation_from_quaternion(
        torch.stack([inner * a.sin(), inner * a.cos(), outer * b.sin(), outer * b.cos()], -1)
    )


def _subsample_sorted(points: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a random subset in spatial order, which makes searches faster and further subsampling uniform."""
    chosen = torch.randperm(len(points), generator=generator, device=generator.device)[:MAX_POINTS]
    drawn = points[chosen.to(points.device)]
    order = index_points(drawn).order
    return drawn if order is None else drawn[order]


def _subsample(points: Tensor, count: int) -> Tensor:
    count = min(count, len(points))
    return points[torch.arange(count, device=points.device) * len(points) // count]


def _shifted(fit: Fit, center: Tensor) -> Fit:
    poses = fit.poses.clone()
    poses[:, :3, 3] += center
    return fit._replace(poses=poses)
