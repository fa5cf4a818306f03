"""On a CPU, this is the reference in plain torch, which is differentiable any number of times."""

from torch import Tensor

from unrender.kernels._autograd import differentiate
from unrender.kernels.normal_consistency import reference

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(
    vertices: Tensor, faces: Tensor, hinge_faces: Tensor, hinge_signs: Tensor, grad_output: Tensor
) -> Tensor | None:
    return differentiate(forward, (vertices, faces, hinge_faces, hinge_signs), grad_output)[0]
