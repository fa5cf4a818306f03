"""Reference implementation of the normal equations of image alignment."""

import torch
from torch import Tensor

MAX_DEPTH_STEP = 0.05
"""Neighboring pixels belong to different surfaces if their depths differ by more than this fraction of the nearer."""


def forward(
    images: Tensor,
    shading_gradients: Tensor,
    depth: Tensor,
    residual: Tensor,
    weight: Tensor,
    rays: Tensor,
    pivot: Tensor,
    with_depth: bool,
) -> tuple[Tensor, Tensor]:
    """Compute Σ J e and Σ w J Jᵀ over pixels and channels, where dI = J · (w, v) = −∇I · u + s · w.

    s is the shading gradient, u the optical flow in pixels of a surface point P that moves by w × (P − pivot) + v. The
    difference in I between two neighboring pixels is divided equally if they belong to one surface; at an occlusion
    boundary the nearer one gets all of it.
    """
    x, y, focal_x, focal_y = rays.unbind(-1)
    px, py, pz = (
        x * depth - pivot[:, 0, None, None],
        y * depth - pivot[:, 1, None, None],
        depth - pivot[:, 2, None, None],
    )
    zero, one = torch.zeros_like(depth), torch.ones_like(depth)
    moved_x = torch.stack([zero, pz, -py, one, zero, zero], 1)
    moved_y = torch.stack([-pz, zero, px, zero, one, zero], 1)
    moved_z = torch.stack([py, -px, zero, zero, zero, one], 1)
    inverse = torch.where(depth > 0, 1 / depth, 0)[:, None]
    u_x = focal_x * inverse * (moved_x - x * moved_z)
    u_y = focal_y * inverse * (moved_y - y * moved_z)
    near = torch.where(depth > 0, depth, torch.inf)[:, None]
    by_x, by_y = differences(images, near), differences(images.mT, near.mT).mT
    jacobian = -(by_x[:, :, None] * u_x[:, None] + by_y[:, :, None] * u_y[:, None])
    jacobian[:, :, :3] += shading_gradients.movedim(-1, 2)
    if with_depth:
        jacobian[:, -1] += moved_z
    rows = (jacobian * (depth > 0)[:, None, None]).transpose(1, 2).flatten(2)
    return (rows @ residual.flatten(1)[..., None])[..., 0], (rows * weight.flatten(1)[:, None]) @ rows.mT


def differences(images: Tensor, near: Tensor) -> Tensor:
    """Differentiate along the last axis; at occlusion boundaries the difference belongs to the nearer pixel."""
    left, right = near[..., :-1], near[..., 1:]
    is_boundary = (left - right).abs() > MAX_DEPTH_STEP * torch.minimum(left, right)
    left_fraction = torch.where(is_boundary, (left < right).to(images), 0.5)
    step = images[..., 1:] - images[..., :-1]
    derivative = torch.zeros_like(images)
    derivative[..., :-1] += left_fraction * step
    derivative[..., 1:] += (1 - left_fraction) * step
    return derivative
