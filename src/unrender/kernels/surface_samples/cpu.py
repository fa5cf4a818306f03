"""On a CPU, this is the reference in plain torch, which is differentiable any number of times."""

import torch
from torch import Tensor

from unrender.kernels._autograd import differentiate
from unrender.kernels.normalize import normalize
from unrender.kernels.surface_samples import reference

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(
    vertices: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    grad_points: Tensor | None,
    grad_normals: Tensor | None,
) -> Tensor | None:
    def interpolate(positions: Tensor) -> tuple[Tensor, Tensor]:
        ids = faces.long()[face_ids].flatten(-2)[..., None].expand(*face_ids.shape[:-1], -1, 3)
        a, b, c = positions.gather(-2, ids).unflatten(-2, (-1, 3)).unbind(-2)
        weights = barycentric[..., None]
        points = weights[..., 0, :] * a + weights[..., 1, :] * b + weights[..., 2, :] * c
        return points, normalize(torch.linalg.cross(b - a, c - a).mT).mT

    return differentiate(interpolate, (vertices,), grad_points, grad_normals)[0]
