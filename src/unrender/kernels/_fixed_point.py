"""Fixed-point sums over colliding writes: the largest term of a tensor, and conversion of the sums (see `_warp`)."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, from_units, launch, per_precision, unit_exponent


def max_magnitude(terms: Tensor) -> Tensor:
    """Return the magnitude of the largest term [1], in the format of `record_term`; NaN is the largest."""
    if terms.numel() == 0:
        return torch.zeros(1, dtype=torch.int64, device=terms.device)
    return terms.abs().amax().double().view(torch.int64).view(1)


def from_sums(sums: Tensor, max_term: Tensor, count_log2: int, dtype: torch.dtype) -> Tensor:
    """Convert sums in fixed point, of terms up to `max_term`, to floating point."""
    total = torch.empty(sums.shape, dtype=dtype, device=sums.device)
    launch(_kernels(dtype).finish, sums.numel(), sums, max_term, count_log2, total)
    return total


@per_precision("fixed_point")
def _kernels(precision: Precision) -> SimpleNamespace:
    scalar = precision.scalar

    @precision.kernel
    def finish(
        sums: wp.array(dtype=wp.int64),
        max_term: wp.array(dtype=wp.int64),
        bits: int,
        total: wp.array(dtype=scalar),
    ):
        i = wp.tid()
        total[i] = scalar(from_units(sums[i], max_term[0], unit_exponent(max_term[0], bits)))

    return SimpleNamespace(finish=finish)
