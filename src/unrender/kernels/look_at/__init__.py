"""Poses of cameras that look at points."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender.kernels._dispatch import implementation
from unrender.kernels.look_at import reference


def look_at_pose(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """Return `camera_from_world` `[*batch 4 4]` of cameras at `eye` that look at `target`, all `[*batch 3]`.

    Differentiable in: eye, target, up (not twice).
    """
    if implementation("look_at", eye.device) is None:
        return reference.forward(eye, target, up)
    pose: Tensor = _LookAt.apply(eye, target, up)
    return pose


class _LookAt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
        fast = implementation("look_at", eye.device)
        assert fast is not None
        ctx.fast = fast
        ctx.save_for_backward(eye, target, up)
        pose: Tensor = fast.forward(eye, target, up)
        return pose

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = ctx.fast.backward(*ctx.saved_tensors, grad_output)
        return gradients
