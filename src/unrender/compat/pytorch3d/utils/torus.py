"""The torus."""

import math

import torch

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.meshes import Meshes


def torus(r: float, R: float, sides: int, rings: int, device: torch.device | str | None = None) -> Meshes:
    """Build a torus around the z axis: a tube of radius `r` of `sides` around a circle of radius `R` of `rings`."""
    for name, count in (("sides", sides), ("rings", rings)):
        if not count > 0:
            raise ValueError(f"torus: `{name}` should be positive, got {count}")
    around, along = (torch.arange(n, dtype=torch.float64) * (2 * math.pi / n) for n in (rings, sides))
    distance = R + r * along.cos()
    columns = [distance * around.cos()[:, None], distance * around.sin()[:, None], r * along.sin()]
    vertices = torch.stack(torch.broadcast_tensors(*columns), -1).view(-1, 3).float()
    last = torch.arange(rings * sides).view(rings, sides)
    a = last.roll((1, 1), (0, 1))  # PyTorch3D starts with the faces that close the rings
    b, c, d = last.roll(1, 1), last, last.roll(1, 0)
    faces = torch.stack([a, b, c, c, d, a], -1).view(-1, 3)
    return Meshes([vertices.to(device or "cpu")], [faces.to(device or "cpu")])


__getattr__ = refuse_unknown(__name__)
