"""On a CPU, torch's operations serve, and are differentiable any number of times."""

from torch import Tensor

from unrender.kernels._autograd import differentiate
from unrender.kernels.normal_consistency import reference

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(
    vertices: Tensor, faces: Tensor, hinge_faces: Tensor, hinge_signs: Tensor, cotangent: Tensor
) -> Tensor | None:
    return differentiate(forward, (vertices, faces, hinge_faces, hinge_signs), cotangent)[0]
