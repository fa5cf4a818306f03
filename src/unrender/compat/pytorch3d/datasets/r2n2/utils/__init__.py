"""Cameras and voxels of the R2N2 renderings (Choy et al. 2016)."""

import math
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.datasets.utils import collate_batched_meshes
from unrender.compat.pytorch3d.ops.cubify import cubify
from unrender.compat.pytorch3d.renderer import (
    CamerasBase,
    HardPhongShader,
    MeshRasterizer,
    MeshRenderer,
    PointLights,
    RasterizationSettings,
    TexturesVertex,
)
from unrender.compat.pytorch3d.transforms import Transform3d

DEPTHS = (0.67, 0.92)
"""Least and greatest projected depth of the models of the data set."""
CUBIFY_THRESH = 0.2
_R, _T, _K = torch.eye(3)[None], torch.zeros(1, 3), torch.eye(4)[None]


class BlenderCamera(CamerasBase):
    """Cameras with the calibration of the renderings: R [N, 3, 3], T [N, 3] and K [N, 4, 4]."""

    K: Tensor
    _FIELDS = ("R", "T", "K")

    def __init__(
        self,
        R: Any = _R,
        T: Any = _T,
        K: Any = _K,
        device: Any = "cpu",
    ) -> None:
        super().__init__(device=device, R=R, T=T, K=K)

    def get_projection_transform(self, **kwargs: Any) -> Transform3d:
        """Return the transform from the camera's frame to NDC."""
        K = kwargs.get("K", self.K)
        return Transform3d(matrix=K.mT.contiguous(), device=self.device)

    def is_perspective(self) -> bool:
        """Return whether the projection is perspective: the renderings are rasterized as if it were not."""
        return False

    def in_ndc(self) -> bool:
        """Return whether the intrinsics are in NDC: yes."""
        return True


def collate_batched_R2N2(batch: Sequence[dict[str, Any]]) -> dict[str, Any] | None:  # noqa: N802
    """Merge items, and stack what has the same number of views."""
    merged = collate_batched_meshes(batch)
    for name in ("images", "R", "T", "K", "voxels"):
        values = (merged or {}).get(name)
        if merged is not None and values and all(v is not None for v in values):
            if len({v.shape for v in values}) == 1:
                merged[name] = torch.stack(values)
            else:
                print(f"Models don't have the same number of views. Now returning lists of {name}.")
    return merged


def compute_extrinsic_matrix(azimuth: float, elevation: float, distance: float) -> Tensor:
    """Return the matrix [4, 4] from the world to Blender's camera, which looks at the origin; angles in degrees."""
    around, up = math.radians(-azimuth), math.radians(-elevation)
    turn = torch.tensor(
        [[math.cos(around), math.sin(around), 0], [-math.sin(around), math.cos(around), 0], [0, 0, 1]]
    )
    tilt = torch.tensor([[math.cos(up), 0, -math.sin(up)], [0, 1, 0], [math.sin(up), 0, math.cos(up)]])
    axes = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    matrix = torch.eye(4)
    matrix[:3, :3] = axes @ tilt @ turn
    matrix[:3, 3] = -axes @ torch.tensor([distance, 0.0, 0.0])
    blender = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # loads y as z
    return matrix @ blender


def read_binvox_coords(
    f: BinaryIO, integer_division: bool = True, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return x, y and z [N, 3] of the filled voxels of a binvox file."""
    size = _read_binvox_header(f)[0]
    runs = np.frombuffer(f.read(), np.uint8).reshape(-1, 2)
    filled = np.flatnonzero(np.repeat(runs[:, 0] == 1, runs[:, 1]))
    index: Any = filled if integer_division else filled.astype(np.float64)
    columns = [filled // (size * size), index % size, index % (size * size) // size]
    return torch.from_numpy(np.stack(columns, 1)).to(dtype)


def _read_binvox_header(f: BinaryIO) -> tuple[int, tuple[float, ...], float]:
    """Return the size, translation and scale of the grid."""
    lines = [f.readline().split() for _ in range(5)]
    keywords = [(b"#binvox", 2), (b"dim", 4), (b"translate", 4), (b"scale", 2), (b"data", 1)]
    for number, (words, (keyword, count)) in enumerate(zip(lines, keywords, strict=True), 1):
        if len(words) != count or words[0] != keyword:
            raise ValueError(f"Invalid header (line {number})")
    try:
        sizes = {int(word) for word in lines[1][1:]}
        numbers = [tuple(float(word) for word in line[1:]) for line in lines[2:4]]
    except ValueError as error:
        raise ValueError("Invalid header (line 2 to 4)") from error
    if len(sizes) != 1:
        raise ValueError("Invalid header (line 2)")
    return sizes.pop(), numbers[0], numbers[1][0]


def align_bbox(src: Tensor, tgt: Tensor) -> Tensor:
    """Scale and move points [N, 3] along the axes so that their bounding box becomes that of others."""
    if src.dim() != 2 or tgt.dim() != 2:
        raise ValueError("Both src and tgt need to have dimensions of 2.")
    if src.shape[-1] != 3 or tgt.shape[-1] != 3:
        raise ValueError("Both src and tgt need to have sizes of 3 along the second dimension.")
    low, wanted = src.amin(0), tgt.amin(0)
    scale = (tgt.amax(0) - wanted) / (src.amax(0) - low)
    return scale * (src - low) + wanted


def project_verts(verts: Tensor, P: Tensor, eps: float = 1e-1) -> Tensor:
    """Transform points [N, V, 3] or [V, 3] by matrices [N, 4, 4] or [4, 4], and divide by the last coordinate."""
    moved = torch.cat([verts, torch.ones_like(verts[..., :1])], -1) @ P.mT
    last = moved[..., 3:]
    return moved[..., :3] / (torch.where(last < 0, -1, 1) * last.abs().clamp(min=eps))


def voxelize(voxel_coords: Tensor, P: Tensor, V: int) -> Tensor:
    """Return a grid [V, V, V] of 1 where points are in the frustum of a projection, with depths within `DEPTHS`."""
    x, y, z = project_verts(voxel_coords, P).unbind(1)
    z = (z - DEPTHS[0]) * 2 / (DEPTHS[1] - DEPTHS[0]) - 1
    cells = ((torch.stack([z, y, -x], 1) + 1) * 0.5 * (V - 1)).round().long()
    cells = cells[((cells >= 0) & (cells < V)).all(1)]
    voxels = torch.zeros(V, V, V, dtype=torch.uint8, device=voxel_coords.device)
    voxels[cells[:, 0], cells[:, 1], cells[:, 2]] = 1
    return voxels


def render_cubified_voxels(
    voxels: Tensor, shader_type: Any = HardPhongShader, device: Any = "cpu", **kwargs: Any
) -> Tensor:
    """Render voxels [N, D, H, W] as cubes, with the settings of a mesh renderer."""
    meshes = cubify(voxels, CUBIFY_THRESH).to(device)
    meshes.textures = TexturesVertex([torch.ones_like(v) for v in meshes.verts_list()])
    cameras = kwargs.get("cameras", BlenderCamera(device=device))
    rasterizer = MeshRasterizer(cameras, kwargs.get("raster_settings", RasterizationSettings()))
    lights = kwargs.get("lights", PointLights()).to(device)
    shader = shader_type(device=device, cameras=cameras, lights=lights)
    images: Tensor = MeshRenderer(rasterizer, shader)(meshes)
    return images


__getattr__ = refuse_unknown(__name__)
