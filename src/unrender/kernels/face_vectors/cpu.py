"""On a CPU, this is the reference in plain torch, which is differentiable any number of times."""

import torch
from torch import Tensor

from unrender.kernels.face_vectors import reference
from unrender.kernels.scatter_sum import scatter_sum

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(columns: Tensor, faces: Tensor, grad_output: Tensor) -> Tensor:
    a, b, c = (columns.index_select(-1, corner) for corner in faces.unbind(1))
    to_b = torch.linalg.cross(c - a, grad_output, dim=-2)
    to_c = torch.linalg.cross(grad_output, b - a, dim=-2)
    terms = torch.cat([-to_b - to_c, to_b, to_c], -1)
    return scatter_sum(terms, faces.mT.flatten(), columns.shape[-1])
