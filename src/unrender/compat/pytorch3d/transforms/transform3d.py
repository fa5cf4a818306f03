"""Batches of 4 × 4 matrices that act on rows: X M, composed from left to right."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.transforms.rotation_conversions import euler_angles_to_matrix
from unrender.compat.pytorch3d.transforms.se3 import se3_log_map
from unrender.errors import InputError

Device = torch.device | str
Scalar = Tensor | float | Sequence[float]


class Transform3d:
    """N matrices, and the transforms after them; `transform_points` divides by the last coordinate."""

    _transforms: Sequence["Transform3d"] = ()

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        device: Device = "cpu",
        matrix: Tensor | None = None,
    ) -> None:
        if matrix is None:
            self._matrix = torch.eye(4, dtype=dtype, device=device)[None]
        elif matrix.dim() not in (2, 3) or matrix.shape[-2:] != (4, 4):
            raise InputError(f"Transform3d: `matrix` should be [4, 4] or [N, 4, 4], got {list(matrix.shape)}")
        else:
            self._matrix = matrix.to(device).view(-1, 4, 4)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle, of this class or of PyTorch3D's."""
        self._matrix, self._transforms = state["_matrix"], state.get("_transforms", ())

    @property
    def device(self) -> torch.device:
        """Device of the matrices."""
        return self._matrix.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the matrices."""
        return self._matrix.dtype

    def __len__(self) -> int:
        return len(self.get_matrix())

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Self:
        if isinstance(index, Tensor) and index.dim() > 1:
            raise IndexError(f"Transform3d: takes an index with one axis, got {list(index.shape)}")
        index = [index] if isinstance(index, int) else index
        other = copy.copy(self)
        other._matrix, other._transforms = self.get_matrix()[index], ()
        return other

    def get_matrix(self) -> Tensor:
        """Return the matrices [N, 4, 4], with all transforms composed."""
        matrix = self._matrix
        for other in self._transforms:
            following = other.get_matrix()
            if len(following) != len(matrix) and 1 not in (len(following), len(matrix)):
                raise InputError(f"Transform3d: batches of {len(matrix)} and {len(following)} transforms")
            matrix = matrix @ following
        return matrix

    def get_se3_log(self, eps: float = 1e-4, cos_bound: float = 1e-4) -> Tensor:
        """Return the logarithms [N, 6] of rigid transforms."""
        return se3_log_map(self.get_matrix(), eps, cos_bound)

    def compose(self, *others: "Transform3d") -> "Transform3d":
        """Compose: apply this transform first, then the others."""
        for other in others:
            if not isinstance(other, Transform3d):
                raise InputError(f"Transform3d.compose: takes transforms, got {type(other).__name__}")
        composed = Transform3d(matrix=self._matrix, device=self.device)
        composed._transforms = (*self._transforms, *others)
        return composed

    def inverse(self, invert_composed: bool = False) -> "Transform3d":
        """Return the inverse transform."""
        return Transform3d(matrix=self._get_matrix_inverse(), device=self.device)

    def _get_matrix_inverse(self) -> Tensor:
        inverse: Tensor = torch.linalg.inv(self.get_matrix())
        return inverse

    def stack(self, *others: "Transform3d") -> "Transform3d":
        """Concatenate batches of transforms."""
        return Transform3d(matrix=torch.cat([t.get_matrix() for t in (self, *others)]), device=self.device)

    def transform_points(self, points: Tensor, eps: float | None = None) -> Tensor:
        """Transform [P, 3] or [N, P, 3]; batches of 1 broadcast. `eps` is the minimum magnitude of the divisor."""
        rows, matrix = _batched("transform_points", points), self.get_matrix()
        moved = rows @ matrix[:, :3] + matrix[:, 3:]
        divisor = moved[..., 3:]
        if eps is not None:
            divisor = torch.where(divisor < 0, -1.0, 1.0) * divisor.abs().clamp(min=eps)
        moved = moved[..., :3] / divisor
        return moved.reshape(points.shape) if points.dim() == 2 and len(moved) == 1 else moved

    def transform_normals(self, normals: Tensor) -> Tensor:
        """Transform normals [P, 3] or [N, P, 3]: by the inverse transpose."""
        rows = _batched("transform_normals", normals)
        moved: Tensor = rows @ torch.linalg.inv(self.get_matrix()[:, :3, :3]).mT
        return moved.reshape(normals.shape) if normals.dim() == 2 and len(moved) == 1 else moved

    def translate(self, *args: Any) -> "Transform3d":
        """Append a translation, as `Translate` does."""
        x, y, z = (*args, None, None)[:3]
        return self.compose(Translate(x, y, z, self.dtype, self.device))

    def scale(self, *args: Any) -> "Transform3d":
        """Append a scaling, as `Scale` does."""
        x, y, z = (*args, None, None)[:3]
        return self.compose(Scale(x, y, z, self.dtype, self.device))

    def rotate(self, R: Tensor, orthogonal_tol: float = 1e-5) -> "Transform3d":
        """Append a rotation, as `Rotate` does."""
        return self.compose(Rotate(R, self.dtype, self.device, orthogonal_tol))

    def rotate_axis_angle(
        self, angle: Tensor | float, axis: str = "X", degrees: bool = True
    ) -> "Transform3d":
        """Append a rotation about an axis, as `RotateAxisAngle` does."""
        return self.compose(RotateAxisAngle(angle, axis, degrees, self.dtype, self.device))

    def clone(self) -> Self:
        """Copy the matrices."""
        return self._map(lambda transform: transform._matrix.clone())

    def to(self, device: Device, copy: bool = False, dtype: torch.dtype | None = None) -> Self:
        """Move to a device, or convert the data type."""
        if not copy and torch.device(device) == self.device and dtype in (None, self.dtype):
            return self
        return self._map(lambda t: t._matrix.to(device=device, dtype=dtype or self.dtype, copy=True))

    def _map(self, change: Callable[["Transform3d"], Tensor]) -> Self:
        """Replace the matrices of this transform and of those after it."""
        other = copy.copy(self)
        other._matrix, other._transforms = change(self), tuple(t._map(change) for t in self._transforms)
        return other

    def cpu(self) -> Self:
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self) -> Self:
        """Move to the GPU."""
        return self.to("cuda")


class Translate(Transform3d):
    """Translation by x, y, z (numbers or [N]), or by rows [N, 3] or [3]."""

    def __init__(
        self,
        x: Scalar,
        y: Scalar | None = None,
        z: Scalar | None = None,
        dtype: torch.dtype = torch.float32,
        device: Device | None = None,
    ) -> None:
        shift = _rows("Translate", x, y, z, dtype, device, None)
        matrix = torch.eye(4).to(shift).expand(len(shift), 4, 4)
        super().__init__(matrix=torch.cat([matrix[:, :3], _homogeneous(shift)], 1), device=shift.device)


class Scale(Transform3d):
    """Scaling by x, y, z (numbers or [N]), by one number or [N] for all axes, or by rows [N, 3]."""

    def __init__(
        self,
        x: Scalar,
        y: Scalar | None = None,
        z: Scalar | None = None,
        dtype: torch.dtype = torch.float32,
        device: Device | None = None,
    ) -> None:
        factors = _rows("Scale", x, y, z, dtype, device, 1)
        matrix = torch.diag_embed(_homogeneous(factors)[:, 0])
        super().__init__(matrix=matrix, device=factors.device)


class Rotate(Transform3d):
    """Rotation of rows by matrices [N, 3, 3] or [3, 3]: X R."""

    def __init__(
        self,
        R: Tensor,
        dtype: torch.dtype = torch.float32,
        device: Device | None = None,
        orthogonal_tol: float = 1e-5,
    ) -> None:
        if R.shape[-2:] != (3, 3):
            raise InputError(f"Rotate: `R` should be [3, 3] or [N, 3, 3], got {list(R.shape)}")
        turn = R.to(dtype=dtype, device=device).view(-1, 3, 3)
        matrix = torch.eye(4).to(turn).repeat(len(turn), 1, 1)
        matrix[:, :3, :3] = turn
        super().__init__(matrix=matrix, device=turn.device)


class RotateAxisAngle(Rotate):
    """Rotation about the axis "X", "Y" or "Z", counter-clockwise seen from its tip."""

    def __init__(
        self,
        angle: Tensor | float,
        axis: str = "X",
        degrees: bool = True,
        dtype: torch.dtype = torch.float32,
        device: Device | None = None,
    ) -> None:
        axis = axis.upper()
        if axis not in ("X", "Y", "Z"):
            raise InputError(f"RotateAxisAngle: `axis` should be 'X', 'Y' or 'Z', got {axis!r}")
        radians = torch.as_tensor(angle, dtype=dtype, device=device)
        if radians.dim() > 1:
            raise InputError(f"RotateAxisAngle: `angle` should be a number or [N], got {list(radians.shape)}")
        radians = radians.reshape(-1)
        radians = radians * (math.pi / 180) if degrees else radians
        zero = torch.zeros_like(radians)
        angles = torch.stack([radians, zero, zero], -1)
        others = "".join(letter for letter in "XYZ" if letter != axis)
        super().__init__(euler_angles_to_matrix(angles, axis + others).mT, dtype, device)


def _batched(where: str, points: Tensor) -> Tensor:
    if points.dim() not in (2, 3) or points.shape[-1] != 3:
        raise InputError(f"Transform3d.{where}: takes [P, 3] or [N, P, 3], got {list(points.shape)}")
    return points[None] if points.dim() == 2 else points


def _homogeneous(rows: Tensor) -> Tensor:
    return torch.cat([rows, torch.ones_like(rows[:, :1])], 1)[:, None]


def _rows(
    where: str,
    x: Scalar,
    y: Scalar | None,
    z: Scalar | None,
    dtype: torch.dtype,
    device: Device | None,
    alone: int | None,
) -> Tensor:
    """Convert values for three axes to rows [N, 3]; a single one of rank `alone` is used for all axes."""
    first = torch.as_tensor(x, dtype=dtype, device=device)
    if y is None and z is None:
        if first.dim() in (1, 2) and first.shape[-1] == 3 and (first.dim() == 2 or alone is None):
            return first.view(-1, 3)
        if alone is not None and first.dim() <= 1:
            return first.reshape(-1, 1).expand(-1, 3)
        raise InputError(f"{where}: takes x, y and z, or rows [N, 3], got {list(first.shape)}")
    if y is None or z is None:
        raise InputError(f"{where}: takes x, y and z, or rows [N, 3], got two")
    each = [first, *(torch.as_tensor(t, dtype=dtype, device=first.device) for t in (y, z))]
    sizes = {t.numel() for t in each}
    if any(t.dim() > 1 for t in each) or len(sizes - {1}) > 1:
        raise InputError(f"{where}: x, y and z should be numbers or [N], got {[list(t.shape) for t in each]}")
    return torch.stack(torch.broadcast_tensors(*(t.reshape(-1) for t in each)), -1)


register(__name__)
__getattr__ = refuse_unknown(__name__)
