"""Normals of vertices, from the faces around them."""

from torch import Tensor

from unrender.kernels._autograd import differentiable
from unrender.kernels._dispatch import implementation
from unrender.kernels.vertex_normals import cpu, reference


def normals_of_vertices(vertices: Tensor, faces: Tensor) -> Tensor:
    """Compute unit normals `[*batch vertices 3]` of vertices `[*batch vertices 3]`; see the reference.

    Differentiable in: the vertices (on a GPU, not twice).
    """
    fast = implementation("vertex_normals", vertices.device)
    if fast is None or fast is cpu:
        return reference.forward(vertices, faces)[0]
    return differentiable(fast, vertices, faces)
