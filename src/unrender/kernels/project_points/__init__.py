"""Projection of points into images, in homogeneous coordinates."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.project_points import cpu, reference


def project_points(
    points: Tensor, camera_from_world: Tensor, focal: Tensor, center: Tensor, perspective: bool
) -> Tensor:
    """Project points `[... points 3]` by cameras `[... 4 4]`, `[... 2]`, `[... 2]` to (x·w, y·w, w, depth).

    Leading axes broadcast.
    Differentiable in: points and cameras (not twice).
    """
    arguments = (points, camera_from_world, focal, center, perspective)
    if implementation("project_points", points.device) is None:
        return reference.forward(*arguments)
    projected: Tensor = _Project.apply(*arguments)
    return projected


def near_plane(projected: Tensor) -> Tensor:
    """Return a depth in front of which nothing is rendered, from that of the farthest projected point.

    Not differentiable.
    """
    fast = implementation("project_points", projected.device)
    if fast is None or fast is cpu:
        return reference.near_plane(projected.detach())
    near: Tensor = fast.near_plane(projected)
    return near


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points: Tensor, camera_from_world: Tensor, focal: Tensor, center: Tensor, perspective: bool
    ) -> Tensor:
        fast = implementation("project_points", points.device)
        assert fast is not None
        ctx.fast, ctx.perspective = fast, perspective
        ctx.save_for_backward(points, camera_from_world, focal, center)
        projected: Tensor = fast.forward(points, camera_from_world, focal, center, perspective)
        return projected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        needs_grad = ctx.needs_input_grad[:4]
        gradients = ctx.fast.backward(*ctx.saved_tensors, ctx.perspective, grad_output, needs_grad)
        return (*gradients, None)
