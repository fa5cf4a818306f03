"""On a CPU, this is the reference in plain torch; its autograd graph is built in the backward pass, if needed."""

import torch
from torch import Tensor

from unrender.kernels.look_at import reference


def forward(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    return reference.forward(eye.contiguous(), target.contiguous(), up.contiguous())


def backward(eye: Tensor, target: Tensor, up: Tensor, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [t.detach().requires_grad_() for t in (eye, target, up)]
    with torch.enable_grad():
        pose = forward(inputs[0], inputs[1], inputs[2])
    to_eye, to_target, to_up = torch.autograd.grad(pose, inputs, grad_output)
    return to_eye, to_target, to_up
