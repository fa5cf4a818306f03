"""How pictures of a moving surface change, by the definition."""

import torch
from torch import Tensor

EDGE = 0.05
"""Neighbouring pixels whose depths differ by a larger share of the nearer one see two surfaces."""


def forward(
    images: Tensor,
    slopes: Tensor,
    depth: Tensor,
    residual: Tensor,
    weight: Tensor,
    rays: Tensor,
    pivot: Tensor,
    with_depth: bool,
) -> tuple[Tensor, Tensor]:
    """Return Σ J e and Σ w J Jᵀ over pixels and channels, where dI = J · (w, v) = −∇I · u + slope · w.

    u is how the twist moves the surface in the image, in pixels: a point P at depth z by w × (P − pivot) + v. Of two
    neighbouring pixels of one surface each has half the difference in I, at an edge the nearer one has all.
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
    jacobian[:, :, :3] += slopes.movedim(-1, 2)
    if with_depth:
        jacobian[:, -1] += moved_z
    rows = (jacobian * (depth > 0)[:, None, None]).transpose(1, 2).flatten(2)
    return (rows @ residual.flatten(1)[..., None])[..., 0], (rows * weight.flatten(1)[:, None]) @ rows.mT


def differences(images: Tensor, near: Tensor) -> Tensor:
    """Differentiate along the last axis, without the half of a difference that belongs to a pixel behind an edge."""
    left, right = near[..., :-1], near[..., 1:]
    edge = (left - right).abs() > EDGE * torch.minimum(left, right)
    share = torch.where(edge, (left < right).to(images), 0.5)
    jump = images[..., 1:] - images[..., :-1]
    slope = torch.zeros_like(images)
    slope[..., :-1] += share * jump
    slope[..., 1:] += (1 - share) * jump
    return slope
