"""Non-rigid registration: deform a mesh onto points, as rigidly as possible, from stiff to soft.

With points p attached to positions q = A v on the surface with normals n, and weights w that sum to 1, the energy is

    Σ w (n · (q − p))² + τ Σ w |q − p|² + stiffness · (as-rigid-as-possible energy)

in units of the size of the points. Details smaller than about 2π √stiffness are smoothed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from unrender.geometry.landmarks import Landmarks
from unrender.tasks.mesh.gauss_newton import Matrix
from unrender.tasks.mesh.rigid_energy import RigidEnergy, factorize
from unrender.tasks.mesh.surface_matches import (
    Array,
    Surface,
    SurfaceMatches,
    TargetPoints,
    match_surface,
)

TANGENTIAL, SIMILAR_TANGENTIAL = 0.02, 0.3
"""Weight τ of distances along the surface: small for closest points, so that the surface can slide under the points;
larger for vertices that are similar in position and normal."""
NORMAL_WEIGHT = 0.1
"""Weight of a difference of unit normals relative to one of positions."""
LANDMARK_WEIGHT, MAX_LANDMARK_WEIGHT = 30.0, 0.3
"""Weight of each landmark relative to the stiffness, and the largest total: they lead while the shape is stiff."""
ALTERNATIONS = 2
"""Solutions for the rotations, and for the vertices."""
TOLERANCE, MAX_ITERATIONS = 1e-3, 30
"""Of the conjugate gradients, which the factorization of the matrix without normals preconditions."""


class Deformation(NamedTuple):
    """A step of the deformation."""

    vertices: Tensor
    matches: SurfaceMatches
    """The matches before the step."""


def deform_step(
    surface: Surface,
    energy: RigidEnergy,
    vertices: Tensor,
    some: TargetPoints,
    stiffness: float,
    scales: tuple[float, float],
    *,
    landmarks: Landmarks | None = None,
    is_final: bool = False,
) -> Deformation:
    """Match the points, and minimize the energy over vertices and rotations in turn.

    scales: the smallest and largest scale of the robust loss. Points are matched with vertices of similar position and
    normal, which leads features to each other; in final steps, with the closest positions.
    """
    matches = match_surface(surface, vertices, some, scales[1], scales[0], 0.0 if is_final else NORMAL_WEIGHT)
    tangential = TANGENTIAL if is_final else SIMILAR_TANGENTIAL
    moved = vertices.numpy()
    total = float(matches.weights.sum())
    used = np.flatnonzero(matches.weights)
    weights = matches.weights[used] / max(total, 1e-12)
    rows, normals = matches.interpolation[used], matches.normals[used]
    points = some.tree.points.numpy()[used]
    isotropic = stiffness * energy.matrix + tangential * (rows.T @ (weights[:, None] * rows))
    along = weights * (normals * points).sum(1)
    right = rows.T @ (along[:, None] * normals + tangential * weights[:, None] * points)
    if landmarks is not None:
        ids = landmarks.vertex_ids.numpy()
        weight = min(LANDMARK_WEIGHT * stiffness, MAX_LANDMARK_WEIGHT / len(ids))
        diagonal = np.bincount(ids, minlength=len(moved)) * weight
        isotropic = isotropic + sparse.diags_array(diagonal)
        np.add.at(right, ids, weight * landmarks.points.numpy())
    preconditioner = factorize(_regularized(isotropic + rows.T @ (weights[:, None] * rows) / 3))

    def product(x: Array) -> Array:
        residuals = weights * (normals * (rows @ x)).sum(1)
        return np.asarray(isotropic @ x + rows.T @ (residuals[:, None] * normals))

    for _ in range(ALTERNATIONS):
        pull = stiffness * energy.target(energy.turned_edges(moved))
        moved = _conjugate_gradients(product, preconditioner.solve, right + pull, moved)
    return Deformation(torch.from_numpy(moved), matches)


def _regularized(matrix: Matrix) -> Matrix:
    """Add a little to the diagonal: parts without points can move freely."""
    return matrix + sparse.diags_array(1e-9 * matrix.diagonal() + 1e-14)


def _conjugate_gradients(
    product: Callable[[Array], Array], precondition: Callable[[Array], Array], right: Array, start: Array
) -> Array:
    """Solve a symmetric system for x, y and z together."""
    x = start.copy()
    residual = right - product(x)
    scaled = precondition(residual)
    direction, energy = scaled, float((residual * scaled).sum())
    goal = TOLERANCE**2 * energy
    for _ in range(MAX_ITERATIONS):
        if not energy > goal:
            break
        image = product(direction)
        rate = energy / max(float((direction * image).sum()), 1e-300)
        x, residual = x + rate * direction, residual - rate * image
        scaled = precondition(residual)
        energy, before = float((residual * scaled).sum()), energy
        direction = scaled + energy / before * direction
    return x
