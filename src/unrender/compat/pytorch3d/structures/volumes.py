"""`Volumes`: grids of densities and features, channels first, posed in the world.

Local coordinates go from −1 to 1. With `align_corners`, these are the centers of the outermost voxels, else their outer
faces. In the world, the center of the grid is at −`volume_translation`, and −1 and 1 are (size − 1) · `voxel_size`
apart in both cases, so that voxels are `voxel_size` apart only with `align_corners`.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.common.datatypes import Device, make_device
from unrender.compat.pytorch3d.structures.utils import choose, list_to_padded
from unrender.compat.pytorch3d.transforms import Scale, Transform3d
from unrender.errors import InputError

Grids = Tensor | Sequence[Tensor]
Numbers = Tensor | Sequence[float] | float
Sizes = Tensor | Sequence[int] | Sequence[Sequence[int] | Tensor]


class VolumeLocator:
    """Where the voxels of grids are, in local coordinates and in the world."""

    _transform: Transform3d | None = None
    """The transform to the world, once made, unless gradients flow through it."""

    def __init__(
        self,
        batch_size: int,
        grid_sizes: Sizes,
        device: Device,
        voxel_size: Numbers = 1.0,
        volume_translation: Numbers = (0.0, 0.0, 0.0),
        align_corners: bool = True,
    ) -> None:
        sizes = _sizes(grid_sizes, batch_size)
        self._resolution: list[int] = sizes.amax(0).tolist()
        self.device = make_device(device)
        self._grid_sizes = sizes.to(self.device)
        self._voxel_size = self._rows("voxel_size", voxel_size, (1, 3))
        self._translation = self._rows("volume_translation", volume_translation, (3,))
        self._align_corners = align_corners

    def _rows(self, name: str, value: Numbers, widths: tuple[int, ...]) -> Tensor:
        rows = torch.empty(0) if value is None else torch.as_tensor(value, dtype=torch.float32)
        rows = (rows[None] if rows.dim() == 0 else rows).to(self.device)
        fits = rows.dim() == 1 or (rows.dim() == 2 and len(rows) in (1, len(self)))
        if not fits or rows.shape[-1] not in widths:
            number = "one number, 3" if 1 in widths else "3 numbers"
            raise InputError(f"Volumes: `{name}` should be {number}, or [N, 3], got {list(rows.shape)}")
        return rows.expand(len(self), 3)

    def __len__(self) -> int:
        return len(self._grid_sizes)

    def get_grid_sizes(self) -> Tensor:
        """Return depth, height and width of each volume [N, 3]."""
        return self._grid_sizes

    def get_align_corners(self) -> bool:
        """Return whether local coordinates ±1 are the centers of the outermost voxels, or their outer faces."""
        return self._align_corners

    def get_local_to_world_coords_transform(self) -> Transform3d:
        """Return x_world = x_local · (size − 1) / 2 · voxel_size − translation, with or without `align_corners`."""
        if self._transform is not None:
            return self._transform
        scale = Scale((self._grid_sizes.flip(-1) - 1) * self._voxel_size / 2, device=self.device)
        transform = scale.translate(-self._translation)
        if not transform.get_matrix().requires_grad:
            self._transform = transform
        return transform

    @property
    def _local_to_world_transform(self) -> Transform3d:
        return self.get_local_to_world_coords_transform()

    def get_world_to_local_coords_transform(self) -> Transform3d:
        """Return the inverse of `get_local_to_world_coords_transform`."""
        return self.get_local_to_world_coords_transform().inverse()

    def world_to_local_coords(self, points_3d_world: Tensor) -> Tensor:
        """Move points [N, ..., 3] from the world to local coordinates."""
        return _move(self.get_world_to_local_coords_transform(), points_3d_world)

    def local_to_world_coords(self, points_3d_local: Tensor) -> Tensor:
        """Move points [N, ..., 3] from local coordinates to the world."""
        return _move(self.get_local_to_world_coords_transform(), points_3d_local)

    def voxels_from_world(self) -> tuple[Tensor, Tensor]:
        """Return factors and shifts [N, 3]: points in our volume frame, where a voxel's center is at index + ½."""
        factors, sizes = 1 / self._voxel_size, self._grid_sizes.flip(-1)
        if not self._align_corners:
            factors = factors * (sizes / (sizes - 1))
        return factors, self._translation * factors + sizes / 2

    def get_coord_grid(self, world_coordinates: bool = True) -> Tensor:
        """Return the voxel centers [N, depth, height, width, 3]."""
        factors, shifts = self.voxels_from_world()
        d, h, w = self._resolution
        axes = [torch.arange(n, device=self.device) + 0.5 for n in (w, h, d)]
        z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        centers = torch.stack([x, y, z], -1).expand(len(self), d, h, w, 3)
        shape = (len(self), 1, 1, 1, 3)
        world = (centers - shifts.view(shape)) / factors.view(shape)
        return world if world_coordinates else self.world_to_local_coords(world)

    def clone(self) -> Self:
        """Copy all tensors."""
        return self.map(torch.clone)

    def to(self, device: Device, copy: bool = False) -> Self:
        """Move to a device."""
        if not copy and make_device(device) == self.device:
            return self
        return self.map(lambda tensor: tensor.to(device, copy=copy))

    def cpu(self) -> Self:
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self) -> Self:
        """Move to the GPU."""
        return self.to("cuda")

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to all tensors."""
        other = copy.copy(self)
        other._transform = None
        for name in ("_grid_sizes", "_voxel_size", "_translation"):
            setattr(other, name, function(getattr(self, name)))
        other.device = other._grid_sizes.device
        return other


class Volumes:
    """Volumes of one or several sizes, padded with zeros."""

    def __init__(
        self,
        densities: Grids,
        features: Grids | None = None,
        voxel_size: Numbers = 1.0,
        volume_translation: Numbers = (0.0, 0.0, 0.0),
        align_corners: bool = True,
    ) -> None:
        self._densities, sizes = _padded("densities", densities)
        device = self._densities.device
        self.locator = VolumeLocator(len(sizes), sizes, device, voxel_size, volume_translation, align_corners)
        self._features: Tensor | None = None
        if features is not None:
            self._set_features(features)

    def _set_densities(self, densities: Grids) -> None:
        """Replace the densities by others of the same sizes."""
        self._densities = self._fitting("densities", densities)

    def _set_features(self, features: Grids) -> None:
        """Replace the features; their sizes are those of the densities."""
        self._features = self._fitting("features", features)

    def _fitting(self, name: str, grids: Grids) -> Tensor:
        padded, sizes = _padded(name, grids)
        whole = isinstance(grids, Tensor) and padded.shape[-3:] == self._densities.shape[-3:]
        if len(padded) != len(self) or not (whole or torch.equal(sizes, self.get_grid_sizes().cpu())):
            expected = self.get_grid_sizes().tolist()
            raise InputError(
                f"Volumes: `{name}` should have the sizes of the volumes, {expected}, got {sizes.tolist()}"
            )
        if padded.device != self.device:
            raise InputError(f"Volumes: `{name}` should be on {self.device}, got {padded.device}")
        return padded

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.locator.device

    def __len__(self) -> int:
        return len(self._densities)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Volumes":
        indices = torch.tensor(choose(index, len(self)), device=self.device)
        return self._map(lambda tensor: tensor[indices])

    def densities(self) -> Tensor:
        """Return [N, channels, depth, height, width]."""
        return self._densities

    def features(self) -> Tensor | None:
        """Return [N, channels, depth, height, width], if there are any."""
        return self._features

    def densities_list(self) -> list[Tensor]:
        """Return the densities of each volume in its own size."""
        return self._cut(self._densities)

    def features_list(self) -> list[Tensor] | None:
        """Return the features of each volume in its own size."""
        return None if self._features is None else self._cut(self._features)

    def _cut(self, grids: Tensor) -> list[Tensor]:
        return [
            grid[:, :d, :h, :w] for grid, (d, h, w) in zip(grids, self.get_grid_sizes().tolist(), strict=True)
        ]

    def get_grid_sizes(self) -> Tensor:
        """Return depth, height and width of each volume [N, 3]."""
        return self.locator.get_grid_sizes()

    def get_align_corners(self) -> bool:
        """Return whether local coordinates ±1 are the centers of the outermost voxels, or their outer faces."""
        return self.locator.get_align_corners()

    def get_local_to_world_coords_transform(self) -> Transform3d:
        """Return the transform of `VolumeLocator` from local coordinates to the world."""
        return self.locator.get_local_to_world_coords_transform()

    def get_world_to_local_coords_transform(self) -> Transform3d:
        """Return the inverse of `get_local_to_world_coords_transform`."""
        return self.locator.get_world_to_local_coords_transform()

    def world_to_local_coords(self, points_3d_world: Tensor) -> Tensor:
        """Move points [N, ..., 3] from the world to local coordinates."""
        return self.locator.world_to_local_coords(points_3d_world)

    def local_to_world_coords(self, points_3d_local: Tensor) -> Tensor:
        """Move points [N, ..., 3] from local coordinates to the world."""
        return self.locator.local_to_world_coords(points_3d_local)

    def get_coord_grid(self, world_coordinates: bool = True) -> Tensor:
        """Return the voxel centers [N, depth, height, width, 3]."""
        return self.locator.get_coord_grid(world_coordinates)

    def update_padded(self, new_densities: Grids, new_features: Grids | None = None) -> "Volumes":
        """Return volumes at the same positions with new values; without `new_features`, they have none."""
        other = copy.copy(self)
        other._set_densities(new_densities)
        other._features = None
        if new_features is not None:
            other._set_features(new_features)
        return other

    def clone(self) -> "Volumes":
        """Copy all tensors."""
        return self._map(torch.clone)

    def to(self, device: Device, copy: bool = False) -> "Volumes":
        """Move to a device."""
        if not copy and make_device(device) == self.device:
            return self
        return self._map(lambda tensor: tensor.to(device, copy=copy))

    def cpu(self) -> "Volumes":
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self) -> "Volumes":
        """Move to the GPU."""
        return self.to("cuda")

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Volumes":
        other = copy.copy(self)
        other.locator = self.locator.map(function)
        other._densities = function(self._densities)
        other._features = None if self._features is None else function(self._features)
        return other


def _padded(name: str, grids: Grids) -> tuple[Tensor, Tensor]:
    """Return [N, channels, depth, height, width], and the sizes of the members."""
    members = [] if grids is None else list(grids)
    if not members or any(grid.dim() != 4 for grid in members):
        raise InputError(
            f"Volumes: `{name}` should be [N, channels, depth, height, width], or a list of [c, d, h, w]"
        )
    sizes = torch.tensor([list(grid.shape[1:]) for grid in members], dtype=torch.int64)
    return grids if isinstance(grids, Tensor) else list_to_padded(members), sizes


def _sizes(grid_sizes: Sizes, count: int) -> Tensor:
    """Return the sizes of all grids [count, 3]; three numbers are the size of each."""
    rows = [torch.as_tensor(size) for size in grid_sizes]
    shapes = [list(row.shape) for row in rows]
    if shapes == [[]] * 3:
        return torch.stack(rows).expand(count, 3)
    if shapes != [[3]] * count:
        raise InputError(f"VolumeLocator: `grid_sizes` should be 3 integers, or [{count}, 3]")
    return torch.stack(rows)


def _move(transform: Transform3d, points: Tensor) -> Tensor:
    return transform.transform_points(points.reshape(len(points), -1, 3)).view(points.shape)


register(__name__)
__getattr__ = refuse_unknown(__name__)
