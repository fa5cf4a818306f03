"""Intersection over union of oriented boxes."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.ops._box_overlap import intersection_volumes

_SIDES = ((0, 1, 2, 3), (3, 2, 6, 7), (0, 1, 5, 4), (0, 3, 7, 4), (1, 2, 6, 5), (4, 5, 6, 7))

_PAIRS = 4096
"""Pairs of boxes that are clipped at once."""
_box_planes = [list(side) for side in _SIDES]
_box_triangles = [triangle for a, b, c, d in _SIDES for triangle in ([a, b, c], [a, c, d])]


def box3d_overlap(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Return the volume of the intersection and the IoU [N, M] of boxes [N, 8, 3] and [M, 8, 3].

    Corners are 0 to 3 around one side, and 4 to 7 behind them. Differentiable in: nothing, as in PyTorch3D.
    """
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        if boxes.dim() != 3 or boxes.shape[1:] != (8, 3):
            raise ValueError(f"Each box in the batch must be of shape (8, 3), got {name} {list(boxes.shape)}")
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        _check(name, boxes, eps)
    first, second = boxes1.detach().double(), boxes2.detach().double()
    volumes = first.new_zeros(len(first), len(second))
    (low, high), (low2, high2) = ((boxes.amin(1), boxes.amax(1)) for boxes in (first, second))
    near = ((low[:, None] <= high2) & (high[:, None] >= low2)).all(2)
    for pairs in near.nonzero().split(_PAIRS):
        i, j = pairs.unbind(1)
        volumes[i, j] = intersection_volumes(first[i], second[j])
    own, own2 = (intersection_volumes(boxes, boxes) for boxes in (first, second))
    return volumes.to(boxes1), (volumes / (own[:, None] + own2 - volumes)).to(boxes1)


def _check(name: str, boxes: Tensor, eps: float) -> None:
    """Raise ValueError for sides that are not flat, or have no area."""
    sides = boxes.detach()[:, torch.tensor(_SIDES, device=boxes.device)]
    first, second, third = (sides[:, :, k] - sides[:, :, 0] for k in (1, 2, 3))
    normal = torch.linalg.cross(first, second)
    if bool((normal.norm(dim=-1) < eps).any()):
        raise ValueError(f"Planes have zero areas ({name})")
    unit = torch.nn.functional.normalize(normal, dim=-1)
    if bool(((unit * third).sum(-1).abs() > eps).any()):
        raise ValueError(f"Plane vertices are not coplanar ({name})")


__getattr__ = refuse_unknown(__name__)
