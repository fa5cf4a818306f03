"""A checkerboard."""

import torch

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesAtlas
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.transforms import Transform3d

Color = tuple[float, float, float]


def checkerboard(
    radius: int = 4,
    color1: Color = (0.0, 0.0, 0.0),
    color2: Color = (1.0, 1.0, 1.0),
    device: torch.device | str | None = None,
) -> Meshes:
    """Build a board of 2 · `radius` squares along x and y, in the plane z = 0, with an atlas of two colors."""
    if device is None:
        device = torch.device("cpu")
    if radius < 1:
        raise ValueError("radius must be > 0")
    side = torch.arange(-radius, radius + 1, dtype=torch.float32)
    y, x = torch.meshgrid(side, side, indexing="ij")
    verts = torch.stack([x, y, torch.zeros_like(x)], -1).view(-1, 3)
    verts = Transform3d().transform_points(verts)
    corner = torch.arange((2 * radius + 1) ** 2).view(2 * radius + 1, -1)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]
    faces = torch.stack([a, b, d, b, c, d], -1).view(-1, 3)
    row, column = torch.meshgrid(torch.arange(2 * radius), torch.arange(2 * radius), indexing="ij")
    dark = ((row + column) % 2 == 0).flatten().repeat_interleave(2)
    colors = torch.where(dark[:, None], torch.tensor(color1), torch.tensor(color2))
    atlas = TexturesAtlas([colors[:, None, None].to(device)])
    return Meshes([verts.to(device)], [faces.to(device)], atlas)


__getattr__ = refuse_unknown(__name__)
