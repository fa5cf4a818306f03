"""`Pointclouds`: a batch of point clouds with normals and features, in three layouts."""

import copy
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.structures.utils import choose, first_rows, list_to_padded, member_of_rows
from unrender.errors import InputError
from unrender.geometry.points import PointCloud

Device = torch.device | str
Rows = Sequence[Tensor] | Tensor


class Pointclouds:
    """Point clouds of different sizes."""

    def __init__(self, points: Rows, normals: Rows | None = None, features: Rows | None = None) -> None:
        self._points = list(points)
        self._normals = None if normals is None else list(normals)
        self._features = None if features is None else list(features)
        sizes = [len(p) for p in self._points]
        for name, given in (("normals", self._normals), ("features", self._features)):
            if given is not None and [len(t) for t in given] != sizes:
                raise InputError(f"Pointclouds: `{name}` should have a row for each point")

    @property
    def device(self) -> torch.device:
        """Device of the points."""
        return self._points[0].device if self._points else torch.device("cpu")

    @property
    def equisized(self) -> bool:
        """Whether all clouds have the same number of points."""
        return len({len(p) for p in self._points}) <= 1

    def core(self) -> PointCloud:
        """Return the batch as a padded `PointCloud` with lengths."""
        lengths = None if self.equisized else self.num_points_per_cloud()
        return PointCloud(self.points_padded(), self.normals_padded(), lengths=lengths)

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Pointclouds":
        members = choose(index, len(self))
        return Pointclouds(
            [self._points[i] for i in members],
            None if self._normals is None else [self._normals[i] for i in members],
            None if self._features is None else [self._features[i] for i in members],
        )

    def isempty(self) -> bool:
        """Return whether no cloud has points."""
        return all(len(p) == 0 for p in self._points)

    def points_list(self) -> list[Tensor]:
        """Return the points of each cloud."""
        return self._points

    def normals_list(self) -> list[Tensor] | None:
        """Return the normals of each cloud, if there are any."""
        return self._normals

    def features_list(self) -> list[Tensor] | None:
        """Return the features of each cloud, if there are any."""
        return self._features

    def points_packed(self) -> Tensor:
        """Return all points in one tensor."""
        return torch.cat(self._points) if self._points else torch.zeros(0, 3)

    def normals_packed(self) -> Tensor | None:
        """Return all normals in one tensor."""
        return None if self._normals is None else torch.cat(self._normals)

    def features_packed(self) -> Tensor | None:
        """Return all features in one tensor."""
        return None if self._features is None else torch.cat(self._features)

    def points_padded(self) -> Tensor:
        """Return the points of all clouds, padded with zeros."""
        return list_to_padded(self._points) if self._points else torch.zeros(0, 0, 3)

    def normals_padded(self) -> Tensor | None:
        """Return the normals of all clouds, padded with zeros."""
        return None if self._normals is None else list_to_padded(self._normals)

    def features_padded(self) -> Tensor | None:
        """Return the features of all clouds, padded with zeros."""
        return None if self._features is None else list_to_padded(self._features)

    def num_points_per_cloud(self) -> Tensor:
        """Count the points of each cloud."""
        return torch.tensor([len(p) for p in self._points], dtype=torch.int64, device=self.device)

    def cloud_to_packed_first_idx(self) -> Tensor:
        """Return the index of each cloud's first point in `points_packed`."""
        return first_rows(self.num_points_per_cloud())

    def packed_to_cloud_idx(self) -> Tensor:
        """Return the cloud index of each row of `points_packed`."""
        return member_of_rows(self.num_points_per_cloud())

    def get_cloud(self, index: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return points, normals and features of one cloud."""
        normals, features = (None if t is None else t[index] for t in (self._normals, self._features))
        return self._points[index], normals, features

    def get_bounding_boxes(self) -> Tensor:
        """Return lowest and highest coordinates [N, 3, 2]."""
        return torch.stack([torch.stack([p.amin(0), p.amax(0)], -1) for p in self._points])

    def offset_(self, offsets_packed: Tensor) -> Self:
        """Move all points, by offsets in the layout of `points_packed`, or one [3] for all, in place."""
        rows = offsets_packed.expand(sum(len(p) for p in self._points), 3)
        each = rows.split([len(p) for p in self._points])
        self._points = [p + offset for p, offset in zip(self._points, each, strict=True)]
        return self

    def offset(self, offsets_packed: Tensor) -> "Pointclouds":
        """Move all points, by offsets in the layout of `points_packed`, or one [3] for all."""
        return copy.copy(self).offset_(offsets_packed)

    def scale_(self, scale: float | Tensor) -> Self:
        """Scale all points, by one factor or one for each cloud, in place."""
        factors = list(scale) if isinstance(scale, Tensor) and scale.dim() else [scale] * len(self)
        if len(factors) != len(self):
            raise InputError(f"Pointclouds.scale: takes 1 factor or {len(self)}, got {len(factors)}")
        self._points = [p * factor for p, factor in zip(self._points, factors, strict=True)]
        return self

    def scale(self, scale: float | Tensor) -> "Pointclouds":
        """Scale all points, by one factor or one for each cloud."""
        return copy.copy(self).scale_(scale)

    def update_padded(
        self,
        new_points_padded: Tensor,
        new_normals_padded: Tensor | None = None,
        new_features_padded: Tensor | None = None,
    ) -> "Pointclouds":
        """Return clouds of the same sizes with new values; normals and features are kept unless given."""

        def cut(padded: Tensor | None, old: list[Tensor] | None) -> list[Tensor] | None:
            if padded is None:
                return old
            return [row[: len(p)] for row, p in zip(padded, self._points, strict=True)]

        points = cut(new_points_padded, self._points)
        return Pointclouds(
            points or [], cut(new_normals_padded, self._normals), cut(new_features_padded, self._features)
        )

    def extend(self, N: int) -> "Pointclouds":
        """Repeat each cloud N times; the copies share memory."""
        if N < 1:
            raise InputError(f"Pointclouds.extend: `N` should be at least 1, got {N}")
        return self[[i for i in range(len(self)) for _ in range(N)]]

    def subsample(self, max_points: int | Sequence[int]) -> "Pointclouds":
        """Keep a random subset of at most a number of points, for all clouds or for each."""
        limits = [max_points] * len(self) if isinstance(max_points, int) else list(max_points)
        if len(limits) != len(self):
            raise InputError(f"Pointclouds.subsample: takes 1 number or {len(self)}, got {len(limits)}")
        kept = [
            torch.randperm(len(p), device=p.device)[:limit] if len(p) > limit else torch.arange(len(p))
            for p, limit in zip(self._points, limits, strict=True)
        ]
        each = (self._points, self._normals, self._features)
        points, normals, features = (
            None if t is None else [x[rows] for x, rows in zip(t, kept, strict=True)] for t in each
        )
        return Pointclouds(points or [], normals, features)

    def clone(self) -> "Pointclouds":
        """Copy all tensors."""
        return self._map(torch.clone)

    def detach(self) -> "Pointclouds":
        """Detach all tensors from the autograd graph."""
        return self._map(torch.detach)

    def to(self, device: Device, copy: bool = False) -> "Pointclouds":
        """Move to a device."""
        if not copy and torch.device(device) == self.device:
            return self
        return self._map(lambda tensor: tensor.to(device))

    def cpu(self) -> "Pointclouds":
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self) -> "Pointclouds":
        """Move to the GPU."""
        return self.to("cuda")

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Pointclouds":
        each = (self._points, self._normals, self._features)
        points, normals, features = (None if t is None else [function(x) for x in t] for t in each)
        return Pointclouds(points or [], normals, features)


__getattr__ = refuse_unknown(__name__)
