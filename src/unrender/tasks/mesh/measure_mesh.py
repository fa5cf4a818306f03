"""Quality metrics of a mesh fitted to a point cloud."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.geometry.mesh import Mesh, surface_area
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.topology import genus, is_manifold, is_watertight
from unrender.kernels.closest_on_mesh import closest_on_mesh
from unrender.kernels.nearest import index_points, nearest

NUM_SAMPLES = 100_000
MAX_MEASURED = 1_000_000
"""Maximum number of points to measure with; of larger clouds, a random sample is used."""
F_SCORE_SPACINGS = 2.0
"""Threshold of the F-score in mean distances between neighboring points: random points leave gaps of that size."""


@checked
def measure_mesh(
    mesh: Mesh,
    points: Float[Tensor, "points 3"],
    *,
    observed_within: float | None = None,
    held_out: Float[Tensor, "held_out 3"] | None = None,
    reference: Mesh | None = None,
) -> dict[str, float | int | bool | None]:
    """Measure a mesh against the points it was fitted to, held-out points, and a reference surface, where given.

    Distances are in world units. cloud_to_mesh: distance from points to the surface. f_score: harmonic mean of
    precision and recall at `f_score_distance`, twice the mean distance between neighboring points on the surface
    (Knapitsch et al. 2017). observed_fraction: the fraction of the surface closer to a point than `observed_within`
    (default: 1% of the diagonal of the points' bounding box); the rest was filled in. Of more than a million points, a
    random sample is measured: `num_points_measured`.
    """
    mesh, num_points = mesh.to(torch.float64), len(points)
    diagonal = float((points.amax(0) - points.amin(0)).double().norm())
    points = _sampled(points)
    surface = _sample(mesh)
    to_mesh = distances_to_mesh(points, mesh)
    to_cloud = nearest(surface, index_points(points)).distances[:, 0].sqrt()
    area = float(surface_area(mesh))
    threshold = F_SCORE_SPACINGS * math.sqrt(area / len(points))
    recall, precision = (float((d <= threshold).double().mean()) for d in (to_mesh, to_cloud))
    radius = 0.01 * diagonal if observed_within is None else observed_within
    closed = is_watertight(mesh)
    metrics: dict[str, float | int | bool | None] = {
        "cloud_to_mesh_mean": float(to_mesh.mean()),
        "cloud_to_mesh_p95": float(np.quantile(to_mesh.cpu().numpy(), 0.95)),
        "diagonal": diagonal,
        "f_score_distance": threshold,
        "f_score": 2 * recall * precision / max(recall + precision, 1e-12),
        "observed_fraction": float((to_cloud <= radius).double().mean()),
        "surface_area": area,
        "watertight": closed,
        "genus": genus(mesh) if closed and is_manifold(mesh) else None,
        "num_vertices": mesh.vertices.shape[-2],
        "num_faces": len(mesh.faces),
        "num_points": num_points,
        "num_points_measured": len(points),
    }
    if held_out is not None:
        metrics["holdout_to_mesh_mean"] = float(distances_to_mesh(_sampled(held_out), mesh).mean())
    if reference is not None:
        reference = reference.to(torch.float64)
        metrics["mesh_to_reference_mean"] = float(distances_to_mesh(surface, reference).mean())
        metrics["reference_to_mesh_mean"] = float(distances_to_mesh(_sample(reference), mesh).mean())
    return metrics


def random_ids(count: int, max_count: int) -> Int[Tensor, " sample"]:
    """Return the indices of a random sample, always the same, or all of them if they are not more than `max_count`."""
    if count <= max_count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:max_count].sort().values


def _sampled(points: Tensor) -> Tensor:
    if len(points) > MAX_MEASURED:
        points = points[random_ids(len(points), MAX_MEASURED).to(points.device)]
    return points.double()


def distances_to_mesh(points: Float[Tensor, "points 3"], mesh: Mesh) -> Float[Tensor, " points"]:
    """Compute the distance of each point to the surface, in world units."""
    return closest_on_mesh(index_points(points), mesh.vertices, mesh.faces).squared_distances.sqrt()


def _sample(mesh: Mesh) -> Tensor:
    return sample_points_from_mesh(mesh, NUM_SAMPLES, generator=torch.Generator().manual_seed(0)).points
