"""Gauss-Newton steps for mesh losses.

A loss of the form Σ w |A v|² over vertices v has the second derivative 2 AᵀWA. Mesh losses are linearized to this form:
points are attached to the surface by barycentric coordinates, hinges and edges are linear in their vertices.
Preconditioning the gradient with that matrix makes low frequencies converge as fast as high ones.
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse
from jaxtyping import Float, Int
from torch import Tensor

from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import topology

Array = npt.NDArray[np.float64]
Matrix = sparse.csr_array
TINY = 1e-300
"""Makes 0 / 0 of zero-length edges 0."""


def interpolation_matrix(
    mesh: Mesh, face_ids: Int[Tensor, " points"], barycentrics: Float[Tensor, "points 3"]
) -> Matrix:
    """Build the matrix [points vertices] that interpolates surface points from the vertices by barycentrics."""
    rows = 3 * np.arange(len(face_ids) + 1)
    columns = mesh.faces[face_ids].numpy().reshape(-1)
    return sparse.csr_array(
        (barycentrics.double().numpy().reshape(-1), columns, rows), (len(face_ids), len(mesh.vertices))
    )


def bending_matrix(mesh: Mesh) -> Matrix:
    """Build the matrix [hinges vertices] whose product with the vertices has the length of each hinge's angle.

    Source: Bergou et al. 2006, A Quadratic Bending Model for Inextensible Surfaces, eq. 4; over the edge's length.
    """
    (face, other), (side, other_side) = np.divmod(topology(mesh.faces).hinge_sides.numpy().T, 3)
    corner = mesh.faces.numpy()
    vertex_ids = (
        corner[face, side],
        corner[face, side - 2],
        corner[face, side - 1],
        corner[other, other_side - 1],
    )
    hinges = np.stack(vertex_ids, 1)
    start, end, left, right = mesh.vertices.detach().double().numpy()[hinges.T]
    edge = end - start
    length = np.linalg.norm(edge, axis=1)

    def cotangent(a: Array, b: Array) -> Array:
        sine = np.linalg.norm(np.cross(a, b), axis=1)
        return np.asarray((a * b).sum(1) / np.maximum(sine, np.maximum(1e-3 * length**2, TINY)))

    at_start = cotangent(edge, left - start), cotangent(edge, right - start)
    at_end = cotangent(-edge, left - end), cotangent(-edge, right - end)
    weights = np.stack([sum(at_end), sum(at_start), -at_start[0] - at_end[0], -at_start[1] - at_end[1]], 1)
    weights /= np.maximum(length, 1e-12)[:, None]
    rows = 4 * np.arange(len(hinges) + 1)
    return sparse.csr_array(
        (weights.reshape(-1), hinges.reshape(-1), rows), (len(hinges), len(mesh.vertices))
    )


def newton_step(hessian: Matrix, gradient: Array, iterations: int = 60, tolerance: float = 1e-3) -> Array:
    """Solve hessian · step = −gradient by conjugate gradients with Jacobi preconditioning; 0 / 0 gives no step."""
    diagonal = hessian.diagonal()
    inverse = (1 / np.maximum(diagonal, 1e-12 * diagonal.max()))[:, None]
    step = np.zeros_like(gradient)
    residual = -gradient
    direction = inverse * residual
    energy = (residual * direction).sum(0)
    goal = tolerance**2 * energy
    for _ in range(iterations):
        if (energy <= goal).all():
            break
        image = hessian @ direction
        rate = energy / np.maximum((direction * image).sum(0), TINY)
        step += rate * direction
        residual = residual - rate * image
        scaled = inverse * residual
        energy, before = (residual * scaled).sum(0), energy
        direction = scaled + energy / np.maximum(before, TINY) * direction
    return step
