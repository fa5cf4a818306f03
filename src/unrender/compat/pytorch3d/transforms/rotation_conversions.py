"""Rotation matrices, quaternions (w first), axis-angle, Euler angles, and the 6D representation.

Matrices act on columns, as in unrender. The 6D representation is the first two rows of
the matrix; in unrender, it is the first two columns.
"""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.errors import InputError
from unrender.geometry import rotations

Device = torch.device | str | None


def quaternion_to_matrix(quaternions: Tensor) -> Tensor:
    """Convert quaternions [..., 4] to matrices [..., 3, 3]."""
    return rotations.rotation_from_quaternion(quaternions)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Convert matrices to unit quaternions with w ≥ 0.

    The largest component is a square root of the diagonal, the others are sums of entries divided by it.
    Differentiable in: the matrix, as PyTorch3D is, also in directions that leave the rotations.
    """
    if matrix.shape[-2:] != (3, 3):
        raise InputError(f"matrix_to_quaternion: takes [..., 3, 3], got {list(matrix.shape)}")
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(-2))
    squares = torch.stack([1 + a + e + i, 1 + a - e - i, 1 - a + e - i, 1 - a - e + i], -1)
    largest = squares.argmax(-1, keepdim=True)
    double = squares.gather(-1, largest).sqrt()  # twice the largest component: at least 1 for a rotation
    sums = [
        [squares[..., 0], h - f, c - g, d - b],
        [h - f, squares[..., 1], d + b, c + g],
        [c - g, d + b, squares[..., 2], f + h],
        [d - b, g + c, h + f, squares[..., 3]],
    ]
    rows = torch.stack([torch.stack(row, -1) for row in sums], -2)
    chosen = rows.gather(-2, largest[..., None].expand(*largest.shape, 4))[..., 0, :]
    return standardize_quaternion(chosen / (2 * double))


def axis_angle_to_matrix(axis_angle: Tensor, fast: bool = False) -> Tensor:
    """Convert axis-angle [..., 3] to matrices; `fast` has no effect."""
    return rotations.so3_exp_map(axis_angle)


def matrix_to_axis_angle(matrix: Tensor, fast: bool = False) -> Tensor:
    """Convert matrices to axis-angle with angles in [0, π]; `fast` has no effect."""
    return rotations.so3_log_map(matrix)


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    """Convert axis-angle to quaternions (cos θ/2, sin(θ/2) · axis)."""
    half = axis_angle.norm(dim=-1, keepdim=True) / 2
    return torch.cat([half.cos(), torch.sinc(half / torch.pi) / 2 * axis_angle], -1)


def quaternion_to_axis_angle(quaternions: Tensor) -> Tensor:
    """Convert unit quaternions to axis-angle, with angles in [0, 2π]: those above π where w < 0."""
    imaginary = quaternions[..., 1:]
    half = torch.atan2(imaginary.norm(dim=-1, keepdim=True), quaternions[..., :1])
    return imaginary * 2 / torch.sinc(half / torch.pi)


def rotation_6d_to_matrix(d6: Tensor) -> Tensor:
    """Convert the 6D representation [..., 6], two rows that need not be orthogonal, to matrices."""
    return rotations.rotation_from_6d(d6).mT.contiguous()


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """Convert matrices to the 6D representation: their first two rows."""
    return rotations.sixd_from_rotation(matrix.mT).clone()


def standardize_quaternion(quaternions: Tensor) -> Tensor:
    """Return the equivalent quaternion with w ≥ 0."""
    return torch.where(quaternions[..., :1] < 0, -quaternions, quaternions)


def quaternion_raw_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Multiply quaternions; they broadcast."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a.unbind(-1), b.unbind(-1)
    product = [
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ]
    return torch.stack(product, -1)


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Compose rotations: first b, then a; w ≥ 0."""
    return standardize_quaternion(quaternion_raw_multiply(a, b))


def quaternion_invert(quaternion: Tensor) -> Tensor:
    """Invert rotations given as unit quaternions."""
    return quaternion * quaternion.new_tensor([1, -1, -1, -1])


def quaternion_apply(quaternion: Tensor, point: Tensor) -> Tensor:
    """Rotate points [..., 3] by unit quaternions."""
    if point.shape[-1] != 3:
        raise InputError(f"quaternion_apply: points have three coordinates, got {list(point.shape)}")
    pure = torch.cat([torch.zeros_like(point[..., :1]), point], -1)
    turned = quaternion_raw_multiply(quaternion_raw_multiply(quaternion, pure), quaternion_invert(quaternion))
    return turned[..., 1:]


def euler_angles_to_matrix(euler_angles: Tensor, convention: str) -> Tensor:
    """Convert Euler angles in radians to matrices: the product of rotations about the named axes, such as "XYZ"."""
    axes = _axes(convention)
    turns = []
    for angle, axis in zip(euler_angles.unbind(-1), axes, strict=True):
        zero = torch.zeros_like(angle)
        logarithm = [zero, zero, zero]
        logarithm[axis] = angle
        turns.append(rotations.so3_exp_map(torch.stack(logarithm, -1)))
    return turns[0] @ turns[1] @ turns[2]


def matrix_to_euler_angles(matrix: Tensor, convention: str) -> Tensor:
    """Convert matrices to Euler angles: the inverse of `euler_angles_to_matrix`, with the second angle in range."""
    i, j, k = _axes(convention)
    if i == k:  # R = A_i(a) A_j(b) A_i(c): the column of axis i determines a and b, its row c
        other = 3 - i - j
        sign = 1 if (j - i) % 3 == 1 else -1
        middle = matrix[..., i, i].clamp(-1, 1).arccos()
        first = torch.atan2(matrix[..., j, i], -sign * matrix[..., other, i])
        last = torch.atan2(matrix[..., i, j], sign * matrix[..., i, other])
    else:
        sign = 1 if (j - i) % 3 == 1 else -1
        middle = (sign * matrix[..., i, k]).clamp(-1, 1).arcsin()
        first = torch.atan2(-sign * matrix[..., j, k], matrix[..., k, k])
        last = torch.atan2(-sign * matrix[..., i, j], matrix[..., i, i])
    return torch.stack([first, middle, last], -1)


def _axes(convention: str) -> tuple[int, int, int]:
    axes = ["XYZ".find(letter) for letter in convention]
    if len(axes) != 3 or -1 in axes or axes[1] in (axes[0], axes[2]):
        raise InputError(f"a convention names three axes, such as 'XYZ' or 'ZYZ', got {convention!r}")
    return axes[0], axes[1], axes[2]


def random_quaternions(n: int, dtype: torch.dtype | None = None, device: Device = None) -> Tensor:
    """Draw n rotations uniformly, as quaternions with w ≥ 0."""
    return matrix_to_quaternion(random_rotations(n, dtype, device))


def random_rotations(n: int, dtype: torch.dtype | None = None, device: Device = None) -> Tensor:
    """Draw n rotations uniformly."""
    return rotations.random_rotations(n, dtype=dtype or torch.get_default_dtype()).to(device)


def random_rotation(dtype: torch.dtype | None = None, device: Device = None) -> Tensor:
    """Draw one rotation [3, 3]."""
    return random_rotations(1, dtype, device)[0]


__getattr__ = refuse_unknown(__name__)
