"""Alignment of two batches of corresponding cameras by a similarity transform of the world."""

from typing import Literal

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.points_alignment import corresponding_points_alignment
from unrender.compat.pytorch3d.renderer.cameras import CamerasBase


def corresponding_cameras_alignment(
    cameras_src: CamerasBase,
    cameras_tgt: CamerasBase,
    estimate_scale: bool = True,
    mode: Literal["extrinsics", "centers"] = "extrinsics",
    eps: float = 1e-9,
) -> CamerasBase:
    """Return the source cameras, moved to the targets: by their rotations and translations, or by their centers."""
    if len(cameras_src) != len(cameras_tgt):
        raise ValueError("cameras_src and cameras_tgt have to contain the same number of cameras!")
    if mode == "centers":
        turn, shift, scale = _by_centers(cameras_src, cameras_tgt, estimate_scale, eps)
    elif mode == "extrinsics":
        turn, shift, scale = _by_extrinsics(cameras_src, cameras_tgt, estimate_scale, eps)
    else:
        raise ValueError("mode has to be one of (centers, extrinsics)")
    moved = cameras_src.clone()
    moved.R = turn @ cameras_src.R
    moved.T = (shift @ cameras_src.R)[:, 0] + scale * cameras_src.T
    return moved


def _by_centers(
    source: CamerasBase, target: CamerasBase, estimate_scale: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Align the centers, y = s x R + T: cameras get R' = Rᵀ R, and T' = s T − T Rᵀ R."""
    centers, wanted = (cameras.get_camera_center()[None] for cameras in (source, target))
    found = corresponding_points_alignment(centers, wanted, None, estimate_scale, eps=eps)
    turn = found.R[0].mT
    return turn, -found.T[0][None, None] @ turn, found.s[0]


def _by_extrinsics(
    source: CamerasBase, target: CamerasBase, estimate_scale: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the rotation of all rotations, then the shift and scale of all translations, in the least-squares sense."""
    u, _, v = torch.linalg.svd((target.R @ source.R.mT).mean(0))
    turn = u @ v
    a, b = ((source.R @ cameras.T[..., None])[..., 0] for cameras in (source, target))
    mean_a, mean_b = a.mean(0, keepdim=True), b.mean(0, keepdim=True)
    scale = torch.ones((), device=a.device)
    if estimate_scale and len(a) > 1:
        centered = a - mean_a
        scale = (centered * (b - mean_b)).mean() / centered.square().mean().clamp(min=eps)
    return turn, (mean_b - scale * mean_a)[:, None], scale


__getattr__ = refuse_unknown(__name__)
