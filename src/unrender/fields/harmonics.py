"""Spherical harmonics: smooth functions of direction, a basis for view-dependent color."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError

MAX_DEGREE = 3


@checked
def spherical_harmonics(
    directions: Float[Tensor, "*batch 3"], degree: int
) -> Float[Tensor, "*batch functions"]:
    """Return the (degree + 1)² real spherical harmonics up to `degree` (0 to 3) in unit directions.

    Order and signs are those of Plenoxels and Gaussian splatting (Sloan 2008, appendix A2).
    Differentiable in: directions.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise InputError(f"spherical_harmonics: `degree` should be 0 to {MAX_DEGREE}, got {degree}")
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, 0.28209479177387814)]
    if degree > 0:
        values += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree > 2:
        values += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(values, -1)
