"""Camera poses from points and their images."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.utils import convert_pointclouds_to_tensor
from unrender.errors import InputError
from unrender.geometry.pnp import perspective_n_points


class EpnpSolution(NamedTuple):
    """Points in the camera's frame, the pose y = x R + T, and the errors of the images."""

    x_cam: Tensor
    R: Tensor
    T: Tensor
    err_2d: Tensor
    err_3d: Tensor


def efficient_pnp(
    x: Any, y: Tensor, weights: Tensor | None = None, skip_quadratic_eq: bool = False
) -> EpnpSolution:
    """Estimate poses from points [N, P, 3] and images [N, P, 2] of a camera with focal length 1 (Lepetit 2009)."""
    points, counts = convert_pointclouds_to_tensor(x)
    if points.shape[:2] != y.shape[:2] or points.shape[-1] != 3 or y.shape[-1] != 2:
        raise InputError("Point sets x and y have to have the same batch size, and 3 and 2 coordinates")
    valid = (torch.arange(points.shape[1], device=points.device) < counts[:, None]).to(points)
    confidence = valid if weights is None else valid * weights
    R, T = perspective_n_points(points, y, confidence)
    x_cam = points @ R.mT + T[:, None]
    total = confidence.sum(1).clamp(min=1e-9)
    image = x_cam[..., :2] / x_cam[..., 2:]
    err_2d = ((image - y).norm(dim=-1) * confidence).sum(1) / total
    rays = torch.cat([y, torch.ones_like(y[..., :1])], -1) * x_cam[..., 2:]
    err_3d = ((rays - x_cam).square().sum(-1) * confidence).sum(1) / total
    return EpnpSolution(x_cam, R.mT, T, err_2d, err_3d)


__getattr__ = refuse_unknown(__name__)
