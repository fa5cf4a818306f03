"""Exponential and logarithm of SE(3). Matrices act on rows: the translation is their last row."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.transforms.so3 import hat
from unrender.errors import InputError
from unrender.geometry.rotations import so3_exp_map, so3_log_map
from unrender.kernels._dispatch import can_read

SMALL = 1e-4
"""Below this squared angle the series are exact to rounding."""


def se3_exp_map(log_transform: Tensor, eps: float = 1e-4) -> Tensor:
    """Convert [N, 6], translation before rotation, to matrices [N, 4, 4]; `eps` has no effect."""
    if log_transform.dim() != 2 or log_transform.shape[1] != 6:
        raise InputError(f"se3_exp_map: takes [N, 6], got {list(log_transform.shape)}")
    shift, turn = log_transform.split(3, -1)
    translation = (_left_jacobian(turn) @ shift[..., None])[..., 0]
    top = torch.cat([so3_exp_map(turn).mT, torch.zeros_like(turn)[..., None]], -1)
    bottom = torch.cat([translation, torch.ones_like(translation[..., :1])], -1)
    return torch.cat([top, bottom[..., None, :]], -2)


def se3_log_map(transform: Tensor, eps: float = 1e-4, cos_bound: float = 1e-4) -> Tensor:
    """Convert matrices [N, 4, 4] to [N, 6]: the inverse of `se3_exp_map`."""
    if transform.dim() != 3 or transform.shape[1:] != (4, 4):
        raise InputError(f"se3_log_map: takes [N, 4, 4], got {list(transform.shape)}")
    if can_read(transform) and bool((transform.detach()[:, :3, 3].abs() > 1e-4).any()):
        raise InputError("se3_log_map: all elements of `transform[:, :3, 3]` should be 0")
    turn = so3_log_map(transform[..., :3, :3].mT)
    shift = torch.linalg.solve(_left_jacobian(turn), transform[..., 3, :3, None])[..., 0]
    return torch.cat([shift, turn], -1)


def _left_jacobian(turn: Tensor) -> Tensor:
    """I + (1 − cos θ) / θ² · K + (θ − sin θ) / θ³ · K², with K = hat(turn)."""
    squared = turn.square().sum(-1)[..., None, None]
    small = squared < SMALL
    safe = torch.where(small, 1, squared)
    angle = safe.sqrt()
    first = torch.where(small, 0.5 - squared / 24 + squared**2 / 720, (1 - angle.cos()) / safe)
    second = torch.where(
        small, 1 / 6 - squared / 120 + squared**2 / 5040, (angle - angle.sin()) / (safe * angle)
    )
    cross = hat(turn)
    return torch.eye(3).to(turn) + first * cross + second * (cross @ cross)


__getattr__ = refuse_unknown(__name__)
