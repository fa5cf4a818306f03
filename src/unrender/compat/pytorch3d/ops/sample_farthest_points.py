"""Farthest point sampling of batches of clouds."""

import random

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops.utils import masked_gather
from unrender.errors import InputError
from unrender.geometry.neighbor_search import farthest_points


def sample_farthest_points(
    points: Tensor,
    lengths: Tensor | None = None,
    K: int | list[int] | Tensor = 50,
    random_start_point: bool = False,
) -> tuple[Tensor, Tensor]:
    """Select K points of each cloud [N, P, D] that cover it, and their indices; −1 and zeros where there are fewer."""
    count, size = points.shape[:2]
    sizes = [size] * count if lengths is None else lengths.tolist()
    if len(sizes) != count or max(sizes, default=0) > size:
        raise InputError(
            "sample_farthest_points: points and lengths must have the same batch size: `lengths` should be "
            f"[{count}], at most {size} each, got {sizes}"
        )
    wanted = [K] * count if isinstance(K, int) else [int(k) for k in K]
    if len(wanted) != count:
        raise InputError(
            "sample_farthest_points: K and points must have the same batch size: `K` should be a number, or "
            f"{count}, got {len(wanted)}"
        )
    ids = torch.full((count, max(wanted, default=0)), -1, dtype=torch.int64, device=points.device)
    for row, cloud, n, k in zip(ids, points, sizes, wanted, strict=True):
        start = random.randrange(n) if random_start_point and n else 0
        chosen = farthest_points(cloud[:n], k, start=start)
        row[: len(chosen)] = chosen
    return masked_gather(points, ids), ids


sample_farthest_points_naive = sample_farthest_points


__getattr__ = refuse_unknown(__name__)
