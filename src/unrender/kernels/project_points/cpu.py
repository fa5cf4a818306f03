"""On a CPU, this is the reference in plain torch; its autograd graph is built in the backward pass, if needed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unrender.kernels.project_points import reference

__all__ = ["backward", "forward"]
forward = reference.forward


def backward(
    points: Tensor,
    camera_from_world: Tensor,
    focal: Tensor,
    center: Tensor,
    perspective: bool,
    grad_output: Tensor,
    needs_grad: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    inputs = tuple(t.detach() for t in (points, camera_from_world, focal, center))
    for tensor, is_wanted in zip(inputs, needs_grad, strict=True):
        tensor.requires_grad_(is_wanted)
    with torch.enable_grad():
        projected = forward(inputs[0], inputs[1], inputs[2], inputs[3], perspective)
    found = iter(torch.autograd.grad(projected, [t for t in inputs if t.requires_grad], grad_output))
    return tuple(next(found) if is_wanted else None for is_wanted in needs_grad)
