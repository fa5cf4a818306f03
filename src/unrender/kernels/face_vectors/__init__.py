"""Area vectors of the faces of meshes."""

from torch import Tensor

from unrender.kernels._autograd import differentiable
from unrender.kernels._dispatch import implementation
from unrender.kernels.face_vectors import reference


def face_vectors(columns: Tensor, faces: Tensor) -> Tensor:
    """Compute face normals `[*batch 3 faces]` of length twice the face area, from vertices `[*batch 3 vertices]`.

    Differentiable in: the vertices (not twice).
    """
    fast = implementation("face_vectors", columns.device)
    if fast is None:
        return reference.forward(columns, faces)
    return differentiable(fast, columns, faces)
