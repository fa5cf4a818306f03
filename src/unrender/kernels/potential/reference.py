"""Reference implementation of the potential of charges and dipoles: brute force."""

import math

import torch
from torch import Tensor


def forward(
    queries: Tensor, points: Tensor, charges: Tensor, dipoles: Tensor, softening: Tensor, opening: float
) -> tuple[Tensor, Tensor]:
    """Sum φ(q) = Σ (c / r + m · d / r³) / 4π with d = q − p and r² = |d|² + s²; return φ and ∇φ.

    Charges c, dipoles m and softening lengths s belong to the points p. The sum is exact whatever the
    `opening` of the tree code. Differentiable in: everything but the opening.
    """
    chunks = queries.split(max(1, 2**20 // max(1, len(points))))
    sums = [_sum(chunk, points, charges, dipoles, softening) for chunk in chunks]
    values, gradients = zip(*sums, strict=True)
    return torch.cat(values), torch.cat(gradients)


def _sum(
    queries: Tensor, points: Tensor, charges: Tensor, dipoles: Tensor, softening: Tensor
) -> tuple[Tensor, Tensor]:
    offset = queries[:, None] - points
    inverse = (offset.square().sum(-1) + softening**2).rsqrt()
    inverse = torch.where(inverse.isfinite(), inverse, 0)  # a point without softening does not act on itself
    along = (offset * dipoles).sum(-1)
    values = charges * inverse + along * inverse**3
    radial = charges * inverse**3 + 3 * along * inverse**5
    gradients = dipoles * inverse[..., None] ** 3 - radial[..., None] * offset
    return values.sum(1) / (4 * math.pi), gradients.sum(1) / (4 * math.pi)
