"""Exponential and logarithm of SO(3); accurate at and near 0 and π, so `eps` and `cos_bound` are not needed."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.errors import InputError
from unrender.geometry import rotations
from unrender.kernels._dispatch import can_read

TRACE_TOLERANCE = 1e-2
SKEW_TOLERANCE = 1e-5
"""Tolerance of entries of matrices that should be skew-symmetric."""


def so3_exp_map(log_rot: Tensor, eps: float = 0.0001) -> Tensor:
    """Convert axis-angle [N, 3] to matrices [N, 3, 3]."""
    if log_rot.shape[-1:] != (3,):
        raise InputError(f"so3_exp_map: Input tensor shape has to be Nx3. Got {list(log_rot.shape)}")
    return rotations.so3_exp_map(log_rot)


so3_exponential_map = so3_exp_map


def so3_log_map(R: Tensor, eps: float = 0.0001, cos_bound: float = 1e-4) -> Tensor:
    """Convert matrices to axis-angle with angles in [0, π]."""
    _check("so3_log_map", R)
    return rotations.so3_log_map(R)


def so3_relative_angle(
    R1: Tensor, R2: Tensor, cos_angle: bool = False, cos_bound: float = 1e-4, eps: float = 1e-4
) -> Tensor:
    """Compute the angle between rotations, in radians, or its cosine."""
    return so3_rotation_angle(R1 @ R2.mT, eps, cos_angle, cos_bound)


def so3_rotation_angle(
    R: Tensor, eps: float = 1e-4, cos_angle: bool = False, cos_bound: float = 1e-4
) -> Tensor:
    """Compute the angle of rotations, in radians, or its cosine, (trace − 1) / 2."""
    _check("so3_rotation_angle", R)
    if cos_angle:
        return (R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return rotations.rotation_angle(torch.eye(3).to(R).expand_as(R), R)


def _check(where: str, R: Tensor) -> None:
    """Raise InputError for other matrices than rotations; on a GPU, to avoid a synchronization, by shape only."""
    if R.shape[-2:] != (3, 3):
        raise InputError(f"{where}: Input has to be a batch of 3x3 Tensors. Got {list(R.shape)}")
    if can_read(R) and R.numel():
        low, high = (float(x) for x in R.detach().diagonal(dim1=-2, dim2=-1).sum(-1).aminmax())
        if low < -1 - TRACE_TOLERANCE or high > 3 + TRACE_TOLERANCE:
            raise InputError(
                f"{where}: A matrix has trace outside valid range [-1-eps,3+eps]. Traces are {low:g} to {high:g}"
            )


def hat(v: Tensor) -> Tensor:
    """Return the skew-symmetric matrices that map w to v × w."""
    if v.shape[-1] != 3:
        raise InputError(f"hat: takes vectors [N, 3], got {list(v.shape)}")
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(*v.shape, 3)


def hat_inv(h: Tensor) -> Tensor:
    """Return the vectors [N, 3] of skew-symmetric matrices [N, 3, 3]: the inverse of `hat`."""
    if h.dim() != 3 or h.shape[1:] != (3, 3):
        raise InputError(f"hat_inv: takes [N, 3, 3], got {list(h.shape)}")
    if len(h) and float((h + h.mT).abs().max()) > SKEW_TOLERANCE:
        raise InputError("One of input matrices not skew-symmetric.")
    return torch.stack([h[:, 2, 1], h[:, 0, 2], h[:, 1, 0]], 1)


__getattr__ = refuse_unknown(__name__)
