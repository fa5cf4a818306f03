"""Reference implementation of the area vectors of faces."""

import torch
from torch import Tensor


def forward(columns: Tensor, faces: Tensor) -> Tensor:
    """Return (b − a) × (c − a) of faces (a, b, c), from vertices [*batch 3 vertices], as [*batch 3 faces]."""
    a, b, c = (columns.index_select(-1, corner) for corner in faces.unbind(1))
    (ux, uy, uz), (vx, vy, vz) = (b - a).unbind(-2), (c - a).unbind(-2)
    return torch.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], -2)
