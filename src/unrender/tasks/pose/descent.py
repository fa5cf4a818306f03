"""Poses that descend together: Levenberg-Marquardt on six numbers each.

A pose moves by a twist (w, v): by the rotation vector w about its own origin, then by v, both in the camera's axes.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.geometry.camera import rigid
from unrender.geometry.rotations import so3_exp_map

LARGEST_TURN = 0.35
"""In radians a step."""
LARGEST_SHIFT = 0.2
"""In distances from the camera, or in radii of the object if these are longer, a step."""
ENOUGH = 1e-3
"""Steps that lower the cost by a smaller share are the last."""


class Fit(NamedTuple):
    """How well poses explain what is seen, and which way is down."""

    poses: Tensor
    """[poses, 4, 4], camera from object; the object is a sphere of radius 1 about its origin."""
    cost: Tensor
    """[poses]: mean of weighted squared residuals; infinite for poses that cannot be."""
    gradient: Tensor
    """[poses, 6]: half the derivative of the cost by the twist."""
    hessian: Tensor
    """[poses, 6, 6]: half the second derivative, as Gauss and Newton have it."""
    agreement: Tensor
    """[poses], in [0, 1]: intersection over union of the silhouettes; for clouds, the share of inliers."""


def select(fit: Fit, rows: Tensor) -> Fit:
    """Keep some of the poses, in that order."""
    return Fit(*(values[rows] for values in fit))


def keep_best(fit: Fit, apart: float, most: int, worst: float = math.inf) -> Fit:
    """Keep the poses of least cost that are turned by more than `apart` radians from each other, best first.

    Those that cost more than `worst` are dropped, but never the best.
    """
    order = fit.cost.nan_to_num(nan=math.inf, posinf=math.inf).argsort(stable=True)
    order = order[(fit.cost[order] <= worst) | (torch.arange(len(order), device=order.device) == 0)]
    return select(fit, order[keep_apart(fit.poses[order], apart, most)])


def keep_apart(poses: Tensor, angle: float, most: int) -> Tensor:
    """List the first pose, the first that is turned by more than an angle from it, and so on."""
    flat = poses[:, :3, :3].flatten(1).cpu()  # a loop of small decisions: at once, rather than one by one
    alive, kept = torch.ones(len(poses), dtype=torch.bool), list[int]()
    while len(kept) < most and bool(alive.any()):
        kept.append(int(alive.long().argmax()))
        alive &= flat @ flat[kept[-1]] < 1 + 2 * math.cos(angle)  # trace of the rotation between two
        alive[kept[-1]] = False
    return torch.tensor(kept, dtype=torch.long, device=poses.device)


def move(poses: Tensor, twists: Tensor) -> Tensor:
    """Turn poses about their own origins and shift them."""
    return rigid(so3_exp_map(twists[:, :3]) @ poses[:, :3, :3], poses[:, :3, 3] + twists[:, 3:])


def descend(evaluate: Callable[[Tensor], Fit], poses: Tensor, steps: int) -> Iterator[Fit]:
    """Lower the cost of every pose, each with its own damping, until none gets much better."""
    fit = evaluate(poses)
    damping = torch.full_like(fit.cost, 1e-2)
    yield fit
    for _ in range(steps):
        trial = evaluate(_step(fit, damping))
        better = trial.cost < fit.cost
        gain = torch.where(better, fit.cost - trial.cost, 0) / fit.cost
        fit = Fit(*(torch.where(_as(better, new), new, old) for new, old in zip(trial, fit, strict=True)))
        yield fit
        if bool((better & (gain < ENOUGH) | (damping > 10)).all()):
            return
        damping = torch.where(better, damping * 0.3, damping * 5).clamp(min=1e-4)


def _step(fit: Fit, damping: Tensor) -> Tensor:
    diagonal = fit.hessian.diagonal(dim1=1, dim2=2)
    added = damping[:, None] * diagonal + 1e-4 * diagonal.mean(1, keepdim=True) + 1e-12
    twist = -torch.linalg.solve(fit.hessian + torch.diag_embed(added), fit.gradient)
    reach = LARGEST_SHIFT * fit.poses[:, :3, 3].norm(dim=1).clamp(min=1)
    excess = torch.maximum(twist[:, :3].norm(dim=1) / LARGEST_TURN, twist[:, 3:].norm(dim=1) / reach)
    return move(fit.poses, twist / excess.clamp(min=1)[:, None])


def _as(condition: Tensor, like: Tensor) -> Tensor:
    return condition.view(-1, *[1] * (like.dim() - 1))
