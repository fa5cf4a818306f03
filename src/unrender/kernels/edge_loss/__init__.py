"""Mean squared deviation of edges from a length."""

from torch import Tensor

from unrender.kernels._autograd import differentiable
from unrender.kernels._dispatch import implementation
from unrender.kernels.edge_loss import cpu, reference


def edge_loss(vertices: Tensor, edges: Tensor, target_length: float) -> Tensor:
    """Compute the mean of (length − `target_length`)² over the edges of `[*batch vertices 3]`; see the reference.

    Differentiable in: the vertices (on a GPU, not twice).
    """
    fast = implementation("edge_loss", vertices.device)
    if fast is None or fast is cpu:
        return reference.forward(vertices, edges, target_length)
    return differentiable(fast, vertices, edges, target_length)
