"""`Pointclouds`: a batch of point clouds with normals and features, in three layouts."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register, rows_of
from unrender.compat.pytorch3d.structures._rows import PrivateLayouts, Rows
from unrender.compat.pytorch3d.structures.utils import choose, first_rows, member_of_rows
from unrender.errors import InputError
from unrender.geometry.points import PointCloud

Device = torch.device | str
Members = Sequence[Tensor] | Tensor


class Pointclouds(PrivateLayouts):
    """Point clouds of different sizes."""

    def __init__(
        self,
        points: Members,
        normals: Members | None = None,
        features: Members | None = None,
    ) -> None:
        for name, given in (("points", points), ("normals", normals), ("features", features)):
            if given is not None and not isinstance(given, Tensor | list | tuple):
                raise InputError(f"Pointclouds: `{name}` should be [N, P, C] or a list of [P, C]")
            members = [given] if isinstance(given, Tensor) else [t for t in given or [] if t is not None]
            dims = 3 if isinstance(given, Tensor) else 2
            if any(t.dim() != dims and t.numel() for t in members):
                raise InputError(f"Pointclouds: `{name}` should be [N, P, C] or a list of [P, C]")
        self._points = Rows(points)
        self._normals = _attributes(normals)
        self._features = _attributes(features)
        for name, rows in (("normals", self._normals), ("features", self._features)):
            if rows is not None and rows.counts != self._points.counts:
                raise InputError(f"Pointclouds: `{name}` should have a row for each point")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle, of this class or of PyTorch3D's."""
        if "_points" in state:
            self.__dict__.update(state)
            return
        counts = state.get("_num_points_per_cloud")
        self.__init__(*(rows_of(state, name, counts) for name in ("points", "normals", "features")))  # type: ignore[misc]

    @property
    def device(self) -> torch.device:
        """Device of the points."""
        return self._points.device

    @property
    def _N(self) -> int:  # noqa: N802
        return len(self)

    @property
    def _P(self) -> int:  # noqa: N802
        return max(self._points.counts, default=0)

    @property
    def equisized(self) -> bool:
        """Whether all clouds have the same number of points."""
        return len(set(self._points.counts)) <= 1

    @property
    def valid(self) -> Tensor:
        """Which clouds have points."""
        return torch.tensor([n > 0 for n in self._points.counts], dtype=torch.bool, device=self.device)

    def core(self) -> PointCloud:
        """Return the batch as a padded `PointCloud` with lengths."""
        lengths = None if self.equisized else self.num_points_per_cloud()
        return PointCloud(self.points_padded(), self.normals_padded(), lengths=lengths)

    def __len__(self) -> int:
        return len(self._points.counts)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Pointclouds":
        members = choose(index, len(self))
        return self._with(lambda rows: [rows.list()[i] for i in members])

    def isempty(self) -> bool:
        """Return whether no cloud has points."""
        return not any(self._points.counts)

    def points_list(self) -> list[Tensor]:
        """Return the points of each cloud."""
        return self._points.list()

    def normals_list(self) -> list[Tensor] | None:
        """Return the normals of each cloud, if there are any."""
        return None if self._normals is None else self._normals.list()

    def features_list(self) -> list[Tensor] | None:
        """Return the features of each cloud, if there are any."""
        return None if self._features is None else self._features.list()

    def points_packed(self) -> Tensor:
        """Return all points in one tensor."""
        return self._points.packed()

    def normals_packed(self) -> Tensor | None:
        """Return all normals in one tensor."""
        return None if self._normals is None else self._normals.packed()

    def features_packed(self) -> Tensor | None:
        """Return all features in one tensor."""
        return None if self._features is None else self._features.packed()

    def points_padded(self) -> Tensor:
        """Return the points of all clouds, padded with zeros."""
        return self._points.padded()

    def normals_padded(self) -> Tensor | None:
        """Return the normals of all clouds, padded with zeros."""
        return None if self._normals is None else self._normals.padded()

    def features_padded(self) -> Tensor | None:
        """Return the features of all clouds, padded with zeros."""
        return None if self._features is None else self._features.padded()

    def num_points_per_cloud(self) -> Tensor:
        """Count the points of each cloud."""
        return torch.tensor(self._points.counts, dtype=torch.int64, device=self.device)

    def cloud_to_packed_first_idx(self) -> Tensor:
        """Return the index of each cloud's first point in `points_packed`."""
        return first_rows(self.num_points_per_cloud())

    def packed_to_cloud_idx(self) -> Tensor:
        """Return the cloud index of each row of `points_packed`."""
        return member_of_rows(self.num_points_per_cloud())

    def padded_to_packed_idx(self) -> Tensor:
        """Return the indices of the rows of `points_packed` in flattened `points_padded`."""
        counts, longest = self.num_points_per_cloud(), max(self._points.counts, default=0)
        shift = torch.arange(len(self), device=self.device) * longest - first_rows(counts)
        return torch.arange(int(counts.sum()), device=self.device) + shift.repeat_interleave(counts)

    def get_cloud(self, index: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return points, normals and features of one cloud."""
        if not isinstance(index, int):
            raise InputError("Pointclouds.get_cloud: `index` should be a number")
        if not 0 <= index < len(self):
            raise InputError(f"Pointclouds.get_cloud: there are {len(self)} clouds, got {index}")
        normals, features = (None if t is None else t.list()[index] for t in (self._normals, self._features))
        return self._points.list()[index], normals, features

    def split(self, split_sizes: Sequence[int]) -> list["Pointclouds"]:
        """Split the batch into batches of the given sizes."""
        if not all(isinstance(size, int) for size in split_sizes):
            raise InputError("Pointclouds.split: sizes should be whole numbers")
        ends = torch.tensor(list(split_sizes)).cumsum(0).tolist()
        return [self[end - size : end] for end, size in zip(ends, split_sizes, strict=True)]

    def get_bounding_boxes(self) -> Tensor:
        """Return lowest and highest coordinates [N, 3, 2]."""
        return torch.stack([torch.stack([p.amin(0), p.amax(0)], -1) for p in self.points_list()])

    def inside_box(self, box: Tensor) -> Tensor:
        """Return which rows of `points_packed` are in a box [2, 3] of lowest and highest coordinates, or [N, 2, 3]."""
        boxes = box[None] if box.dim() == 2 else box
        if boxes.shape[1:] != (2, 3):
            raise InputError(
                f"Pointclouds.inside_box: Input box must be of shape [2, 3] or [N, 2, 3], got {list(box.shape)}"
            )
        if len(boxes) not in (1, len(self)):
            raise InputError(
                f"Pointclouds.inside_box: Input box dimension is {len(boxes)}, but there are {len(self)} clouds"
            )
        if bool((boxes[:, 1] < boxes[:, 0]).any()):
            raise InputError(
                "Pointclouds.inside_box: Input box is invalid: its lowest corner is above the highest"
            )
        each = boxes.expand(len(self), 2, 3)[self.packed_to_cloud_idx()]
        points = self.points_packed()
        return ((points >= each[:, 0]) & (points <= each[:, 1])).all(-1)

    def estimate_normals(
        self,
        neighborhood_size: int = 50,
        disambiguate_directions: bool = True,
        assign_to_self: bool = False,
    ) -> Tensor:
        """Estimate the normals, padded, from the nearest neighbors; with `assign_to_self`, keep them."""
        from unrender.compat.pytorch3d.ops.points_normals import estimate_pointcloud_normals

        padded = estimate_pointcloud_normals(
            self, neighborhood_size=neighborhood_size, disambiguate_directions=disambiguate_directions
        )
        if assign_to_self:
            self._normals = Rows(padded, self._points.counts)
        return padded

    def offset_(self, offsets_packed: Tensor) -> Self:
        """Move all points, by offsets in the layout of `points_packed`, or one [3] for all, in place."""
        total = sum(self._points.counts)
        if offsets_packed.shape not in ((3,), (total, 3)):
            raise InputError(
                f"Pointclouds.offset: takes [3] or [{total}, 3], got {list(offsets_packed.shape)}"
            )
        each = offsets_packed.expand(total, 3).split(self._points.counts)
        self._points = Rows([p + offset for p, offset in zip(self.points_list(), each, strict=True)])
        return self

    def offset(self, offsets_packed: Tensor) -> "Pointclouds":
        """Move all points, by offsets in the layout of `points_packed`, or one [3] for all."""
        return copy.copy(self).offset_(offsets_packed)

    def scale_(self, scale: float | Tensor) -> Self:
        """Scale all points, by one factor or one for each cloud, in place."""
        factors = list(scale) if isinstance(scale, Tensor) and scale.dim() else [scale] * len(self)
        if len(factors) != len(self):
            raise InputError(f"Pointclouds.scale: takes 1 factor or {len(self)}, got {len(factors)}")
        self._points = Rows([p * factor for p, factor in zip(self.points_list(), factors, strict=True)])
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
        size = (len(self), max(self._points.counts, default=0))

        def cut(padded: Tensor | None, old: Rows | None) -> Rows | None:
            if padded is None:
                return old
            if padded.dim() != 3 or tuple(padded.shape[:2]) != size:
                raise InputError(f"Pointclouds.update_padded: takes {[*size, 3]}, got {list(padded.shape)}")
            return Rows(padded, self._points.counts)

        other = copy.copy(self)
        other._points = cut(new_points_padded, self._points) or self._points
        other._normals = cut(new_normals_padded, self._normals)
        other._features = cut(new_features_padded, self._features)
        return other

    def extend(self, N: int) -> "Pointclouds":
        """Repeat each cloud N times, as copies."""
        if N < 1:
            raise InputError(f"Pointclouds.extend: `N` should be at least 1, got {N}")
        return self._with(lambda rows: [t.clone() for t in rows.list() for _ in range(N)])

    def subsample(self, max_points: int | Sequence[int] | Tensor) -> "Pointclouds":
        """Keep a random subset of at most a number of points, for all clouds or for each; `self` if all fit."""
        limits = [max_points] * len(self) if isinstance(max_points, int) else [int(n) for n in max_points]
        if len(limits) != len(self):
            raise InputError(f"Pointclouds.subsample: takes 1 number or {len(self)}, got {len(limits)}")
        if all(n <= limit for n, limit in zip(self._points.counts, limits, strict=True)):
            return self
        kept = [
            torch.randperm(len(p), device=p.device)[:limit]
            if len(p) > limit
            else torch.arange(len(p), device=p.device)
            for p, limit in zip(self.points_list(), limits, strict=True)
        ]
        return self._with(lambda rows: [x[chosen] for x, chosen in zip(rows.list(), kept, strict=True)])

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
        return self._with(lambda rows: [function(t) for t in rows.list()])

    def _with(self, change: Callable[[Rows], list[Tensor]]) -> "Pointclouds":
        each = (self._points, self._normals, self._features)
        points, normals, features = (None if t is None else change(t) for t in each)
        return Pointclouds(points or [], normals, features)


def _attributes(given: Members | None) -> Rows | None:
    """Return the rows of normals or features; clouds without points may have None."""
    if given is None or len(given) == 0:
        return None
    if isinstance(given, Tensor):
        return Rows(given)
    like = next((t for t in given if t is not None), torch.zeros(0))
    return Rows([like.new_zeros(0) if t is None else t for t in given])


def join_pointclouds_as_batch(pointclouds: Sequence[Pointclouds]) -> Pointclouds:
    """Concatenate batches of clouds, which should all have normals or none, and features or none."""
    if isinstance(pointclouds, Pointclouds) or not all(isinstance(p, Pointclouds) for p in pointclouds):
        raise InputError("join_pointclouds_as_batch: Wrong first argument: takes a list of Pointclouds")

    def column(name: str) -> list[Tensor] | None:
        lists = [getattr(p, name)() for p in pointclouds]
        if all(part is None for part in lists):
            return None
        if any(part is None for part in lists):
            raise InputError(f"join_pointclouds_as_batch: {name.split('_')[0]}: some set to None, others not")
        rows = [t for part in lists for t in part]
        if len({t.shape[1] for t in rows}) > 1:
            raise InputError(
                f"join_pointclouds_as_batch: clouds should have the same number of {name.split('_')[0]}"
            )
        return rows

    return Pointclouds(column("points_list") or [], column("normals_list"), column("features_list"))


def join_pointclouds_as_scene(pointclouds: Pointclouds | Sequence[Pointclouds]) -> Pointclouds:
    """Join all clouds of a batch, or of several, into one cloud."""
    batch = pointclouds if isinstance(pointclouds, Pointclouds) else join_pointclouds_as_batch(pointclouds)
    if len(batch) <= 1:
        return batch
    each = (batch.points_packed(), batch.normals_packed(), batch.features_packed())
    points, normals, features = (None if t is None else [t] for t in each)
    return Pointclouds(points or [], normals, features)


register(__name__)
__getattr__ = refuse_unknown(__name__)
