"""On a CPU, this is the reference in plain torch, which is differentiable any number of times."""

from torch import Tensor

from unrender.kernels._autograd import differentiate
from unrender.kernels.edge_loss import reference

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(vertices: Tensor, edges: Tensor, target_length: float, grad_output: Tensor) -> Tensor | None:
    return differentiate(forward, (vertices, edges, target_length), grad_output)[0]
