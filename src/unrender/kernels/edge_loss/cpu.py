"""On a CPU, torch's operations serve, and are differentiable any number of times."""

from torch import Tensor

from unrender.kernels._autograd import differentiate
from unrender.kernels.edge_loss import reference

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(vertices: Tensor, edges: Tensor, target_length: float, cotangent: Tensor) -> Tensor | None:
    return differentiate(forward, (vertices, edges, target_length), cotangent)[0]
