"""Sampling of feature maps at vertices."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.errors import InputError


def vert_align(
    feats: Tensor | Sequence[Tensor],
    verts: Any,
    return_packed: bool = False,
    interp_mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = True,
) -> Tensor:
    """Sample feature maps [N, C, H, W] at x and y in [−1, 1] of vertices: [N, V, C], or packed."""
    if isinstance(verts, Tensor):
        if verts.dim() != 3:
            raise InputError(f"vert_align: `verts` should be [N, V, 3], got {list(verts.shape)}")
        grid, chosen = verts, None
    elif hasattr(verts, "verts_padded"):
        grid, chosen = verts.verts_padded(), verts.verts_padded_to_packed_idx()
    elif hasattr(verts, "points_padded"):
        grid, chosen = verts.points_padded(), verts.padded_to_packed_idx()
    else:
        raise InputError("vert_align: `verts` should be a tensor, Meshes or Pointclouds")
    maps = [feats] if isinstance(feats, Tensor) else list(feats)
    if any(one.dim() != 4 or len(one) != len(grid) for one in maps):
        raise InputError(f"vert_align: `feats` should be [{len(grid)}, C, H, W], or a list")
    sampled = [
        grid_sample(one, grid[:, None, :, :2], interp_mode, padding_mode, align_corners=align_corners)[
            :, :, 0
        ].mT
        for one in maps
    ]
    found = torch.cat(sampled, 2)
    if not return_packed:
        return found
    return found.flatten(0, 1) if chosen is None else found.flatten(0, 1)[chosen]


__getattr__ = refuse_unknown(__name__)
