"""Mean distance of vertices from the mean of their neighbors."""

from torch import Tensor

from unrender.kernels._autograd import differentiable
from unrender.kernels._dispatch import implementation
from unrender.kernels.uniform_laplacian import cpu, reference


def uniform_laplacian_loss(vertices: Tensor, edges: Tensor) -> Tensor:
    """Compute the mean of |mean_j v_j − v_i| over the vertices i of `[*batch vertices 3]`; see the reference.

    Differentiable in: the vertices (on a GPU, not twice).
    """
    fast = implementation("uniform_laplacian", vertices.device)
    if fast is None or fast is cpu:
        return reference.forward(vertices, edges)[0]
    return differentiable(fast, vertices, edges)
