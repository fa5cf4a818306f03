"""Mesh losses, averaged over a batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.geometry.mesh import Mesh


def mean_over_meshes(meshes: Meshes, loss: Callable[[Mesh], Tensor]) -> Tensor:
    """Average over the meshes; those without faces count as 0."""
    losses = [loss(mesh) for mesh in meshes.core() if len(mesh.faces)]
    if not losses:
        return torch.zeros(1, device=meshes.device, requires_grad=True)
    return losses[0] if len(meshes) == 1 else torch.stack(losses).sum() / len(meshes)
