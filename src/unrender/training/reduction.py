"""Sums of gradients over the shards of a step: the same bits for any number of workers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.workers import Workers

ROWS_AT_ONCE = 1 << 16
"""Parameters with more rows exchange those with a gradient only."""
USED_BITS = 62
"""Of a 64-bit integer, for the magnitude of a sum."""


class ShardValues(NamedTuple):
    """Numbers that each shard of a step has measured, by shard."""

    values: Float[Tensor, "shards values"]
    is_finite: Tensor
    """Whether these numbers, and all gradients, are finite: 0-d bool."""


class GradientSums:
    """Gradients of the shards of one step, and their sum over all shards of all workers.

    A sum of floating-point numbers depends on their order, which the number of workers changes. Here, each gradient is
    rounded to a multiple of a power of two, by the largest magnitude of its parameter in any shard, so that sums over
    all shards fit into 64-bit integers, which add up to the same in any order. A million shards leave 42 bits for that
    magnitude: gradients down to 2^−18 of it lose nothing.
    """

    def __init__(self, parameters: Sequence[Tensor], num_shards: int, num_values: int) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._gradients: list[list[Tensor]] = [[] for _ in self._parameters]
        device = self._parameters[0].device
        self._values = torch.full((num_shards, num_values), -math.inf, dtype=torch.float64, device=device)
        self._bits = USED_BITS - max(1, math.ceil(math.log2(num_shards)))

    def add(self, shard: int, values: Sequence[Tensor | float]) -> None:
        """Take the gradients of the parameters, and what else the shard has measured."""
        for parameter, gradients in zip(self._parameters, self._gradients, strict=True):
            if parameter.grad is not None:
                gradients.append(parameter.grad)
                parameter.grad = None
        self._values[shard] = torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in values]).to(
            self._values
        )

    def finish(self, workers: Workers) -> ShardValues:
        """Set the gradient of each parameter to its sum over all shards; return what the shards have measured."""
        largest = torch.stack([self._largest(gradients) for gradients in self._gradients])
        shared = torch.cat([largest, self._values.nan_to_num(nan=math.inf, posinf=math.inf).flatten()])
        workers.maximum(shared)
        is_finite = shared.isfinite().all()
        largest, values = shared[: len(largest)], shared[len(largest) :].view_as(self._values)
        exponents = torch.frexp(largest.nan_to_num(posinf=1.0)).exponent.tolist()
        rows = [
            self._rows(parameter, gradients, workers)
            for parameter, gradients in zip(self._parameters, self._gradients, strict=True)
        ]
        sums = [self._sum(k, rows[k], self._bits - exponent) for k, exponent in enumerate(exponents)]
        _add_together(sums, workers)
        for parameter, own_rows, total, exponent in zip(self._parameters, rows, sums, exponents, strict=True):
            gradient = total.double().mul_(2.0 ** (exponent - self._bits)).to(parameter.dtype)
            if own_rows is not None:
                gradient = torch.zeros_like(parameter).index_copy_(0, own_rows, gradient)
            parameter.grad = gradient
        return ShardValues(values, is_finite)

    def _largest(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the largest magnitude; infinite if a gradient is not finite."""
        if not gradients:
            return self._values.new_zeros(())
        found = torch.stack([gradient.abs().amax().double() for gradient in gradients]).amax()
        return found.nan_to_num(nan=math.inf, posinf=math.inf)

    def _sum(self, number: int, rows: Tensor | None, shift: int) -> Tensor:
        """Return the sum of a parameter's gradients over this worker's shards, in units of 2^−shift."""
        parameter = self._parameters[number]
        total = torch.zeros_like(parameter if rows is None else parameter[rows], dtype=torch.int64)
        for gradient in self._gradients[number]:
            part = gradient if rows is None else gradient[rows]
            total += part.double().mul_(2.0**shift).round_().long()
        return total

    @staticmethod
    def _rows(parameter: Tensor, gradients: Sequence[Tensor], workers: Workers) -> Tensor | None:
        """Return the rows in which any shard has a gradient; None for parameters of few rows."""
        if workers.count == 1 or parameter.dim() == 0 or len(parameter) < ROWS_AT_ONCE:
            return None
        used = parameter.new_zeros(len(parameter), dtype=torch.uint8)
        for gradient in gradients:
            used |= (gradient != 0).reshape(len(used), -1).any(1)
        workers.maximum(used)
        return used.nonzero()[:, 0]


def _add_together(sums: Sequence[Tensor], workers: Workers) -> None:
    """Replace integers by their sums over workers: the small tensors in one exchange."""
    if workers.count == 1:
        return
    small = [total for total in sums if total.numel() < ROWS_AT_ONCE]
    joined = torch.cat([total.flatten() for total in small])
    workers.add(joined)
    for total, found in zip(small, joined.split([total.numel() for total in small]), strict=True):
        total.copy_(found.view_as(total))
    for total in sums:
        if total.numel() >= ROWS_AT_ONCE:
            workers.add(total)
