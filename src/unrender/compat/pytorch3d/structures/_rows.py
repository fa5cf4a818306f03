"""Rows of tensors in three layouts, each built once: list, padded and packed."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.structures.utils import list_to_padded

LAYOUTS = ("_list", "_packed", "_padded", "_idx", "_per_mesh", "_per_cloud")
"""Ends of the names of layouts."""


class PrivateLayouts:
    """Read `_verts_packed`, and any other private name of a layout, as `verts_packed()`: some scripts do.

    Layouts are built when they are read, so `_compute_packed()` and the like have nothing to do.
    """

    _INTERNAL_TENSORS: ClassVar[tuple[str, ...]] = ()

    def _ignore(self, refresh: bool = False) -> None:
        pass

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            public = name[1:]
            if name.startswith("_compute_"):
                return self._ignore
            if (
                name.startswith("_")
                and public.endswith(LAYOUTS)
                and callable(getattr(type(self), public, None))
            ):
                return getattr(self, public)()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Rows:
    """The rows of each member of a batch.

    A layout that was handed out is handed out again. If it then has become a leaf that requires a gradient, the other
    layouts are computed from it.
    """

    def __init__(self, given: Sequence[Tensor] | Tensor, counts: Sequence[int] | None = None) -> None:
        self._list = [] if isinstance(given, Tensor) else _with_columns(given)
        self._padded = given if isinstance(given, Tensor) else None
        self._packed: Tensor | None = None
        if isinstance(given, Tensor):
            self.counts = [given.shape[1]] * len(given) if counts is None else list(counts)
            self._list = [rows[:n] for rows, n in zip(given, self.counts, strict=True)]
        else:
            self.counts = [len(rows) for rows in self._list]

    @property
    def device(self) -> torch.device:
        """Device of the rows."""
        if self._padded is not None:
            return self._padded.device
        return self._list[0].device if self._list else torch.device("cpu")

    def list(self) -> list[Tensor]:
        """Return the rows of each member."""
        if _is_source(self._packed):
            assert self._packed is not None
            return list(self._packed.split(self.counts))
        if _is_source(self._padded):
            assert self._padded is not None
            return [rows[:n] for rows, n in zip(self._padded, self.counts, strict=True)]
        return self._list

    def packed(self) -> Tensor:
        """Return all rows in one tensor."""
        if self._packed is None or _is_source(self._padded) or self._lacks_gradient(self._packed):
            rows = self.list()
            self._packed = rows[0] if len(rows) == 1 else torch.cat(rows) if rows else self._nothing(1)
        return self._packed

    def padded(self) -> Tensor:
        """Return the rows of all members, padded with zeros."""
        if self._padded is None or _is_source(self._packed) or self._lacks_gradient(self._padded):
            rows = self.list()
            self._padded = list_to_padded(rows) if rows else self._nothing(2)
        return self._padded

    def map(self, function: Callable[[Tensor], Tensor]) -> "Rows":
        """Apply a function to all members; repeated members stay the same tensors."""
        kept: dict[int, Tensor] = {}
        return Rows([kept.setdefault(id(rows), function(rows)) for rows in self.list()])

    def _nothing(self, batch_axes: int) -> Tensor:
        columns = 3 if self._padded is None or self._padded.dim() < 3 else self._padded.shape[-1]
        return torch.zeros(*[0] * batch_axes, columns, device=self.device)

    def _lacks_gradient(self, built: Tensor) -> bool:
        """Return whether a layout was built without a graph that is wanted now."""
        wanted = torch.is_grad_enabled() and not built.requires_grad
        return wanted and any(rows.requires_grad for rows in self._list)


register(__name__)


def _with_columns(members: Sequence[Tensor]) -> list[Tensor]:
    """Give empty members [0] the columns of the others."""
    columns = next((rows.shape[1] for rows in members if rows.dim() == 2), 3)
    return [rows.reshape(0, columns) if rows.dim() == 1 else rows for rows in members]


def _is_source(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.is_leaf and tensor.requires_grad
