"""Voxels as meshes of cubes."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.meshes import Meshes

_SIDES = (
    ((0, 0, -1), (0, 1, 4, 1, 5, 4)),
    ((0, 1, 0), (4, 5, 6, 5, 7, 6)),
    ((-1, 0, 0), (0, 4, 6, 0, 6, 2)),
    ((0, -1, 0), (0, 3, 1, 0, 2, 3)),
    ((0, 0, 1), (6, 7, 3, 6, 3, 2)),
    ((1, 0, 0), (1, 7, 5, 1, 3, 7)),
)
"""Of each side of a voxel: the step (z, y, x) to its neighbor, and the corners 4 y + 2 x + z of two triangles."""


def cubify(
    voxels: Tensor,
    thresh: float,
    *,
    feats: Tensor | None = None,
    device: torch.device | str | None = None,
    align: str = "topleft",
) -> Meshes:
    """Convert voxels [N, D, H, W] above a threshold to meshes of the squares between them and the others.

    `align` says what −1 and 1 are: "topleft" and "corner" as in PyTorch3D, or the "center" of the outermost voxels.
    `feats` [N, channels, D, H, W] become an atlas of the faces.
    """
    if align not in ("topleft", "corner", "center"):
        raise ValueError("Align mode must be one of (topleft, corner, center).")
    if voxels.dim() != 4:
        raise ValueError(f"cubify: `voxels` should be [N, D, H, W], got {list(voxels.shape)}")
    grids = voxels.to(device or voxels.device) > thresh
    verts, faces, colors = [], [], []
    for number, filled in enumerate(grids):
        points, squares, owners = _squares(filled)
        verts.append(_placed(points, filled.shape, align))
        faces.append(squares)
        if feats is not None:
            z, y, x = owners.unbind(1)
            colors.append(feats[number].to(filled.device)[:, z, y, x].mT[:, None, None])
    if feats is None:
        return Meshes(verts, faces)
    from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesAtlas

    return Meshes(verts, faces, TexturesAtlas(colors))


def _squares(filled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return used corners (z, y, x), two triangles for each open side, voxel by voxel, and their voxels."""
    corners, owners = [], []
    padded = torch.nn.functional.pad(filled, (1,) * 6)
    inner = slice(1, -1)
    for step, sides in _SIDES:
        neighbor = padded.roll([-n for n in step], (0, 1, 2))[inner, inner, inner]
        voxels = (filled & ~neighbor).nonzero()
        corner = torch.tensor(sides, device=filled.device)
        offsets = torch.stack([corner % 2, corner // 4, corner // 2 % 2], 1)
        corners.append((voxels[:, None] + offsets).reshape(-1, 3))
        owners.append(voxels.repeat_interleave(2, 0))
    depth, _, width = (side + 1 for side in filled.shape)

    def number(positions: Tensor) -> Tensor:
        z, y, x = positions.unbind(1)
        return (y * width + x) * depth + z

    used, index = torch.unique(number(torch.cat(corners)), return_inverse=True)
    z, x, y = used % depth, used // depth % width, used // (depth * width)
    owner = torch.cat(owners)
    order = number(owner).argsort(stable=True)
    return torch.stack([z, y, x], 1), index.view(-1, 3)[order], owner[order]


def _placed(corners: Tensor, shape: torch.Size, align: str) -> Tensor:
    """Return x, y and z of corners (z, y, x) in units of the grid from −1 to 1."""
    sizes = torch.tensor(shape, device=corners.device)
    if align == "corner":
        placed = corners * 2 / sizes - 1
    else:
        shift = 0.5 if align == "center" else 0.0
        placed = (corners - shift) * 2 / (sizes - 1).clamp(min=1) - 1
    return placed.flip(1)


__getattr__ = refuse_unknown(__name__)
