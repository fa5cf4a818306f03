"""As-rigid-as-possible energy of a mesh that deforms (Sorkine and Alexa 2007).

For the edges i → j of the rest shape r and of the shape v, the energy is Σ w |(vᵢ − vⱼ) − s Rᵢ (rᵢ − rⱼ)|², over the
area, with a rotation Rᵢ for each vertex, cotangent weights, and a scale s for all. With fixed rotations and scale it is
quadratic in v.
"""

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import SuperLU, splu

from unrender.geometry.mesh import Mesh, surface_area
from unrender.tasks.mesh.gauss_newton import Matrix
from unrender.tasks.mesh.surface_matches import Array

MIN_WEIGHT, MAX_WEIGHT = 0.1, 5.0
"""Limits of the cotangent weights, which are negative or huge at bad triangles."""


class RigidEnergy:
    """The energy of the deformation from a rest shape."""

    def __init__(self, rest: Mesh) -> None:
        """Compute the weights of the edges."""
        vertices, faces = rest.vertices.double().numpy(), rest.faces.numpy()
        count = len(vertices)
        rows, columns, values = [], [], []
        for k in range(3):
            a, b, opposite = faces[:, k], faces[:, k - 2], faces[:, k - 1]
            left, right = vertices[a] - vertices[opposite], vertices[b] - vertices[opposite]
            sine = np.linalg.norm(np.cross(left, right), axis=1)
            cotangent = (left * right).sum(1) / np.maximum(sine, 1e-12)
            rows += [a, b]
            columns += [b, a]
            values += [cotangent / 2, cotangent / 2]
        pairs = (np.concatenate(rows), np.concatenate(columns))
        weights = sparse.csr_array((np.concatenate(values), pairs), (count, count)).tocoo()
        area = max(float(surface_area(rest)), 1e-12)
        self.rest = vertices
        self._start, self._end = weights.coords
        self._weights = np.clip(weights.data, MIN_WEIGHT, MAX_WEIGHT) / area
        self._edges = vertices[self._start] - vertices[self._end]
        size = len(self._weights)
        self._gather = sparse.csr_array((self._weights, (self._start, np.arange(size))), (count, size))
        self._scatter = sparse.csr_array((self._weights, (self._end, np.arange(size))), (count, size))
        self._norm = float((self._weights * (self._edges**2).sum(1)).sum())
        degree = np.bincount(self._start, self._weights, count)
        adjacency = sparse.csr_array((self._weights, (self._start, self._end)), (count, count))
        self.matrix: Matrix = (sparse.diags_array(2 * degree) - 2 * adjacency).tocsr()
        """Half the second derivative: the same for x, y and z."""

    def turned_edges(self, vertices: Array) -> Array:
        """Return s Rᵢ (rᵢ − rⱼ) for all edges, with the rotations and the scale that explain the vertices best."""
        moved = vertices[self._start] - vertices[self._end]
        products = (moved[:, :, None] * self._edges[:, None, :]).reshape(-1, 9)
        left, _, right = np.linalg.svd((self._gather @ products).reshape(-1, 3, 3))
        left[..., -1] *= np.sign(np.linalg.det(left @ right))[:, None]
        turned = ((left @ right)[self._start] @ self._edges[:, :, None])[..., 0]
        scale = (self._weights * (turned * moved).sum(1)).sum() / self._norm
        return np.asarray(scale * turned)

    def target(self, turned: Array) -> Array:
        """Return the right-hand side of `matrix` @ vertices = target, for fixed rotations and scale."""
        return np.asarray(self._gather @ turned - self._scatter @ turned)

    def strain(self, vertices: Array) -> float:
        """Return the root mean square relative change of the edges, apart from the scale."""
        moved, turned = vertices[self._start] - vertices[self._end], self.turned_edges(vertices)
        change, size = ((self._weights * (x**2).sum(1)).sum() for x in (moved - turned, turned))
        return float(np.sqrt(change / max(size, 1e-300)))


def factorize(matrix: Matrix) -> SuperLU:
    """Factorize a symmetric positive definite sparse matrix."""
    return splu(
        matrix.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
