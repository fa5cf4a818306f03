"""Levenberg-Marquardt optimization of many poses at once.

A pose is updated by a twist (w, v): the rotation vector w about its own origin, then the translation v, both in camera
axes.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.geometry.camera import rigid
from unrender.geometry.rotations import so3_exp_map

MAX_ROTATION = 0.35
"""Maximum rotation per step, in radians."""
MAX_TRANSLATION = 0.2
"""Maximum translation per step, relative to the distance from the camera, or to the object's radius if larger."""
MIN_RELATIVE_DECREASE = 1e-3
"""The optimization has converged if a step lowers the cost by a smaller fraction."""


class Fit(NamedTuple):
    """The cost of poses with its derivatives."""

    poses: Tensor
    """[poses, 4, 4], camera from object; the object is a sphere of radius 1 about its origin."""
    cost: Tensor
    """[poses]: mean of weighted squared residuals; infinite for invalid poses."""
    gradient: Tensor
    """[poses, 6]: half the derivative of the cost with respect to the twist."""
    hessian: Tensor
    """[poses, 6, 6]: half the Gauss-Newton approximation of the second derivative."""
    agreement: Tensor
    """[poses], in [0, 1]: IoU of the silhouettes; for clouds, the inlier fraction."""


def select(fit: Fit, rows: Tensor) -> Fit:
    """Select poses by index."""
    return Fit(*(values[rows] for values in fit))


def keep_best(fit: Fit, min_angle: float, max_count: int, max_cost: float = math.inf) -> Fit:
    """Keep the poses of lowest cost that differ in rotation by more than `min_angle` radians, best first.

    Poses that cost more than `max_cost` are dropped, except for the best one.
    """
    order = fit.cost.nan_to_num(nan=math.inf, posinf=math.inf).argsort(stable=True)
    order = order[(fit.cost[order] <= max_cost) | (torch.arange(len(order), device=order.device) == 0)]
    return select(fit, order[select_distinct(fit.poses[order], min_angle, max_count)])


def select_distinct(poses: Tensor, min_angle: float, max_count: int) -> Tensor:
    """Select poses greedily, in order, that differ in rotation by more than an angle (non-maximum suppression)."""
    flat = poses[:, :3, :3].flatten(1).cpu()  # one transfer instead of one per iteration
    alive, kept = torch.ones(len(poses), dtype=torch.bool), list[int]()
    while len(kept) < max_count and bool(alive.any()):
        kept.append(int(alive.long().argmax()))
        alive &= flat @ flat[kept[-1]] < 1 + 2 * math.cos(min_angle)  # trace of the relative rotation
        alive[kept[-1]] = False
    return torch.tensor(kept, dtype=torch.long, device=poses.device)


def move(poses: Tensor, twists: Tensor) -> Tensor:
    """Rotate poses about their own origins, and translate them."""
    return rigid(so3_exp_map(twists[:, :3]) @ poses[:, :3, :3], poses[:, :3, 3] + twists[:, 3:])


def levenberg_marquardt(evaluate: Callable[[Tensor], Fit], poses: Tensor, steps: int) -> Iterator[Fit]:
    """Minimize the cost of every pose, each with its own damping, until all have converged."""
    fit = evaluate(poses)
    damping = torch.full_like(fit.cost, 1e-2)
    yield fit
    for _ in range(steps):
        trial = evaluate(_step(fit, damping))
        better = trial.cost < fit.cost
        gain = torch.where(better, fit.cost - trial.cost, 0) / fit.cost
        fit = Fit(
            *(torch.where(_expand_as(better, new), new, old) for new, old in zip(trial, fit, strict=True))
        )
        yield fit
        if bool((better & (gain < MIN_RELATIVE_DECREASE) | (damping > 10)).all()):
            return
        damping = torch.where(better, damping * 0.3, damping * 5).clamp(min=1e-4)


def _step(fit: Fit, damping: Tensor) -> Tensor:
    diagonal = fit.hessian.diagonal(dim1=1, dim2=2)
    added = damping[:, None] * diagonal + 1e-4 * diagonal.mean(1, keepdim=True) + 1e-12
    twist = -torch.linalg.solve(fit.hessian + torch.diag_embed(added), fit.gradient)
    reach = MAX_TRANSLATION * fit.poses[:, :3, 3].norm(dim=1).clamp(min=1)
    excess = torch.maximum(twist[:, :3].norm(dim=1) / MAX_ROTATION, twist[:, 3:].norm(dim=1) / reach)
    return move(fit.poses, twist / excess.clamp(min=1)[:, None])


def _expand_as(condition: Tensor, like: Tensor) -> Tensor:
    return condition.view(-1, *[1] * (like.dim() - 1))
