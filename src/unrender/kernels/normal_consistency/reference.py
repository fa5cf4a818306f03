"""Reference implementation of normal consistency."""

from torch import Tensor

from unrender.kernels._columns import as_columns, dot, mean
from unrender.kernels.face_vectors import face_vectors
from unrender.kernels.normalize import normalize
from unrender.kernels.scatter_sum import gather_columns


def forward(vertices: Tensor, faces: Tensor, hinge_faces: Tensor, hinge_signs: Tensor) -> Tensor:
    """Return the mean of 1 − s n_a · n_b over hinges [hinges, 2] and batch, of the unit normals n of faces [faces, 3].

    `hinge_signs` s are 1 where both faces have consistent winding, else −1. Normals of degenerate faces are zero.
    """
    normals = normalize(face_vectors(as_columns(vertices), faces))
    one, two = hinge_faces.unbind(1)
    return mean(1 - hinge_signs * dot(gather_columns(normals, one), gather_columns(normals, two)))
