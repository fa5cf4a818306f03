"""Winding numbers of oriented points: consistent normals for a point cloud, and the solid that it bounds.

The winding number of a closed surface is 1 inside and 0 outside. With the area vectors aᵢ nᵢ of points pᵢ, it is
w(q) = Σ aᵢ nᵢ · (pᵢ − q) / 4π (|pᵢ − q|² + ε²)^(3/2), smoothed over the width ε.
Sources: Barill et al. 2018, Fast Winding Numbers for Soups and Clouds, eq. 5; Lin et al. 2024, Fast and Globally
Consistent Normal Orientation based on the Winding Number Normal Consistency.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.geometry.columns import ordered_sum
from unrender.geometry.level_set import Array, extract_level_set
from unrender.geometry.mesh import Mesh
from unrender.geometry.shapes import ico_sphere
from unrender.kernels.nearest import PointIndex, index_points, nearest
from unrender.kernels.potential import potential

ITERATIONS = 25
FIRST_WIDTH, LAST_WIDTH = 2.5, 0.7
"""Width of the first and the last iteration, relative to the spacing of the points."""
MAX_ORIENTED = 50_000
"""Maximum number of points to solve for; the field of a random sample of them orients the others."""
TUNNEL_TOLERANCE, HANDLE_TOLERANCE = 0.6, 0.3
"""Tunnels and handles are false if the winding number there differs from the level by less, relative to the contrast.

In a gap of the points on a thin plate it falls by half; in a true hole it falls to 0. Thin handles have low contrast.
"""
CHUNK = 250_000
"""Number of positions evaluated at once, which bounds the memory."""
LEVEL_NEIGHBORS = 16
"""Number of points whose winding numbers define the level of the surface around them."""


@checked
def winding_number_normals(
    points: Float[Tensor, "points 3"], areas: Float[Tensor, " points"], spacing: float, *, width: float
) -> Float[Tensor, "points 3"]:
    """Estimate normals that point out of the solid, of any genus, which the points bound.

    Alternates a gradient step towards a winding number of 1/2 at all points with normals down the gradient of the
    winding number. Normals near sharp edges and thin parts do not mix both sides, as those of planes through neighbors
    do. Areas and `spacing` describe the sampling; the result is smoothed over `width`.
    """
    everywhere = index_points(points.detach().float())
    count = min(len(points), MAX_ORIENTED)
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:count].sort().values
    chosen = chosen.to(points.device)
    sample = everywhere if count == len(points) else index_points(everywhere.points[chosen])
    spacing *= math.sqrt(len(points) / count)
    vectors = torch.zeros_like(sample.points)
    for softening in np.linspace(FIRST_WIDTH, LAST_WIDTH, ITERATIONS) * spacing:
        vectors = _more_consistent(sample, vectors, vectors.new_full((count,), float(softening)))
    weights = (areas[chosen] * (len(points) / count)).to(vectors)[:, None]
    softening = vectors.new_full((count,), max(width, LAST_WIDTH * spacing))
    smoothed = potential(everywhere, sample, dipoles=_unit(vectors) * weights, softening=softening)
    return _unit(smoothed.gradients).to(points)


@checked
def smooth_normals(
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    areas: Float[Tensor, " points"],
    *,
    width: float,
) -> Float[Tensor, "points 3"]:
    """Return the directions in which the winding number of oriented points falls, smoothed over `width`."""
    index = index_points(points.detach().float())
    vectors = (normals * areas[:, None]).detach().to(index.points)
    softening = vectors.new_full((len(points),), width)
    return _unit(potential(index, index, dipoles=vectors, softening=softening).gradients).to(points)


def _more_consistent(points: PointIndex, vectors: Tensor, softening: Tensor) -> Tensor:
    """Improve area vectors: a step of steepest descent on Σ (w − 1/2)², then normals down the gradient of w."""
    error = 0.5 + potential(points, points, dipoles=vectors, softening=softening).values
    descent = -potential(points, points, charges=error, softening=softening).gradients
    change = potential(points, points, dipoles=descent, softening=softening).values
    squared = [ordered_sum(t.double().square().flatten()) for t in (descent, change)]
    vectors = vectors + squared[0] / squared[1].clamp_min(1e-30) * descent
    down = potential(points, points, dipoles=vectors, softening=softening).gradients
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return _unit(down) * lengths


@checked
def winding_number_surface(
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    areas: Float[Tensor, " points"],
    *,
    width: float,
    cell: float,
    reach: float,
) -> Mesh:
    """Extract the closed surface at the level of the winding number at the points, on a grid with the spacing `cell`.

    The level is that of the nearest points, or the mean over all points far away from them: opposite sides of a part as
    thin as `width` partly cancel, and lower the winding number at their points as much as between them. Tunnels and
    handles that the points do not support are removed, as between sparse points of a thin part.
    The solid is clipped to a distance of `reach` from the points' convex hull (approximated by 162 half-spaces), as it
    is unconstrained beyond incomplete point clouds.
    """
    sources = index_points(points.detach().float())
    vectors = (normals * areas[:, None]).detach().to(sources.points)
    softening = vectors.new_full((len(points),), width)

    def winding(queries: PointIndex) -> Tensor:
        return -potential(queries, sources, dipoles=vectors, softening=softening).values

    at_points = winding(sources)
    mean = float(np.average(at_points.cpu().numpy(), weights=areas.detach().cpu().numpy()))
    directions = ico_sphere(2).vertices.to(vectors)
    support = (sources.points @ directions.T).amax(0)

    def inside(positions: Array) -> Array:
        chunks = [part(positions[i : i + CHUNK]) for i in range(0, len(positions), CHUNK)]
        return np.concatenate(chunks)

    def part(positions: Array) -> Array:
        queries = index_points(torch.from_numpy(positions).to(vectors))
        squared, ids = nearest(queries, sources, min(LEVEL_NEIGHBORS, len(points)))
        weights = (-squared / (2 * width**2)).softmax(1)
        is_near = (-squared[:, 0] / (8 * width**2)).exp()
        level = mean + is_near * ((weights * at_points[ids]).sum(1) - mean)
        clipped = (reach - (queries.points @ directions.T - support).amax(1)) / (2 * width)
        return torch.minimum(winding(queries) - level, torch.maximum(clipped, -level.abs())).cpu().numpy()

    return extract_level_set(
        inside,
        points,
        cell,
        margin=reach,
        tunnel_tolerance=TUNNEL_TOLERANCE,
        handle_tolerance=HANDLE_TOLERANCE,
    )


def _unit(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / lengths.clamp_min(1e-30)
