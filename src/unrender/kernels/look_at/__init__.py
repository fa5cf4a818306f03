"""Poses of cameras that look at points."""

from torch import Tensor

from unrender.kernels._autograd import differentiable
from unrender.kernels._dispatch import implementation
from unrender.kernels.look_at import reference


def look_at_pose(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """Return `camera_from_world` `[*batch 4 4]` of cameras at `eye` that look at `target`, all `[*batch 3]`.

    Differentiable in: eye, target, up (not twice).
    """
    fast = implementation("look_at", eye.device)
    if fast is None:
        return reference.forward(eye, target, up)
    return differentiable(fast, eye, target, up)
