"""Conversions between rotation representations.

Matrices act on column vectors, y = R x. The logarithm is the rotation axis times the angle in radians. Quaternions are
(w, x, y, z). The 6D representation holds the first two columns of the matrix, one after the other.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.geometry.columns import cross, dot, norm, normalize

SMALL_SQUARED_ANGLE = 1e-4
"""Below this, four terms of the Taylor series are exact to rounding in double precision."""


@checked
def so3_exp_map(logarithm: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Convert axis-angle vectors of any length to rotation matrices (the exponential map of SO(3)).

    Computed through the quaternion (cos θ/2, sin(θ/2)/θ · logarithm), which is accurate near 0 and π.
    Differentiable in: `logarithm`, also at zero.
    """
    squared = logarithm.square().sum(-1, keepdim=True)
    small = squared < SMALL_SQUARED_ANGLE
    angle = torch.where(small, 1, squared).sqrt()
    cosine = torch.where(small, 1 - squared / 8 + squared**2 / 384 - squared**3 / 46080, (angle / 2).cos())
    sine = torch.where(
        small, 0.5 - squared / 48 + squared**2 / 3840 - squared**3 / 645120, (angle / 2).sin() / angle
    )
    return rotation_from_quaternion(torch.cat([cosine, sine * logarithm], -1))


@checked
def so3_log_map(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Convert rotation matrices to axis-angle vectors, with angles in [0, π] (the logarithm of SO(3)).

    2 atan2(|v|, w) / |v| · v for the quaternion (w, v), which is accurate near 0 and π.
    Differentiable in: `rotation`, also at the identity; the axis is discontinuous at π.
    """
    quaternion = quaternion_from_rotation(rotation)
    w, v = quaternion[..., :1], quaternion[..., 1:]
    squared = v.square().sum(-1, keepdim=True)
    small = squared < SMALL_SQUARED_ANGLE
    sine = torch.where(small, 1, squared).sqrt()
    series = 2 + squared / 3 + squared**2 * (3 / 20) + squared**3 * (5 / 56)  # 2 arcsin(sine) / sine
    return torch.where(small, series, 2 * torch.atan2(sine, w) / sine) * v


@checked
def rotation_from_quaternion(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Convert quaternions of any length to rotation matrices; the zero quaternion gives the identity.

    Differentiable in: `quaternion`.
    """
    squared = quaternion.square().sum(-1, keepdim=True)
    positive = squared > 0
    scaled = quaternion * torch.where(positive, 2 / torch.where(positive, squared, 1), 0)
    w, x, y, z = quaternion.unbind(-1)
    _, sx, sy, sz = scaled.unbind(-1)
    entries = [
        *[1 - y * sy - z * sz, x * sy - w * sz, x * sz + w * sy],
        *[x * sy + w * sz, 1 - x * sx - z * sz, y * sz - w * sx],
        *[x * sz - w * sy, y * sz + w * sx, 1 - x * sx - y * sy],
    ]
    return torch.stack(entries, -1).reshape(*quaternion.shape[:-1], 3, 3)


@checked
def quaternion_from_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Convert rotation matrices to unit quaternions with w ≥ 0.

    The entries of R determine 4 q qᵀ; q is its normalized row with the largest diagonal entry.
    Differentiable in: `rotation`; discontinuous in sign at an angle of π.
    """
    a, b, c, d, e, f, g, h, i = rotation.flatten(-2).unbind(-1)
    entries = [
        *[1 + a + e + i, h - f, c - g, d - b],
        *[h - f, 1 + a - e - i, b + d, c + g],
        *[c - g, b + d, 1 - a + e - i, f + h],
        *[d - b, c + g, f + h, 1 - a - e + i],
    ]
    outer = torch.stack(entries, -1).reshape(*rotation.shape[:-2], 4, 4)
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = outer.take_along_dim(best[..., None, None], -2)
    quaternion = normalize(row.mT).squeeze(-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


@checked
def rotation_from_6d(six: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Convert the 6D representation to rotation matrices by Gram-Schmidt; use it to optimize rotations.

    The representation is continuous. Collinear vectors give no rotation but columns of zeros.
    Differentiable in: `six`.
    Source: Zhou et al. 2019, eq. 15.
    """
    a, b = six[..., :3, None], six[..., 3:, None]
    x = normalize(a)
    y = normalize(b - dot(x, b).unsqueeze(-2) * x)
    return torch.cat([x, y, cross(x, y)], -1)


@checked
def sixd_from_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """Convert rotation matrices to the 6D representation: their first two columns.

    Differentiable in: `rotation`. Source: Zhou et al. 2019, eq. 14.
    """
    return rotation.mT[..., :2, :].flatten(-2)


def random_rotations(
    count: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "count 3 3"]:
    """Draw uniformly distributed rotation matrices, by normalizing Gaussian quaternions.

    They are created on the generator's device.
    """
    device = None if generator is None else generator.device
    return rotation_from_quaternion(torch.randn(count, 4, generator=generator, dtype=dtype, device=device))


@checked
def rotation_angle(a: Float[Tensor, "*batch 3 3"], b: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Compute the geodesic distance between rotations: the angle of aᵀ b, in [0, π] radians.

    atan2(|skew|, (trace − 1) / 2) of aᵀ b, which is accurate near 0 and π.
    Differentiable in: `a` and `b` (gradient zero at 0 and π).
    """
    relative = a.mT @ b
    skew = (relative - relative.mT) / 2
    sine = norm(torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1).unsqueeze(-1)).squeeze(
        -1
    )
    return torch.atan2(sine, (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2)
