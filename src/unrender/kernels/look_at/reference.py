"""Reference implementation of looking at a point."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

PARALLEL = 1e-6
"""Sine of the angle between the view and `up` below which another direction is taken for up."""


def forward(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """Return camera_from_world [*batch 4 4] of a camera at `eye` that looks at `target`: rows right, down, forward.

    forward ∝ target − eye, right ∝ forward × up, down = forward × right; the translation is −R eye.
    """
    view = normalize(target - eye, dim=-1)
    up = normalize(up, dim=-1)
    parallel = torch.linalg.cross(view, up).norm(dim=-1, keepdim=True) < PARALLEL
    up = torch.where(parallel, up.roll(1, -1), up)  # looking along `up`: any other direction will do
    right = normalize(torch.linalg.cross(view, up), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(view, right), view], -2)
    top = torch.cat([rotation, -(rotation @ eye[..., None])], -1)
    bottom = top.new_zeros(*top.shape[:-2], 1, 4)
    bottom[..., 3] = 1
    return torch.cat([top, bottom], -2)
