"""Sums of gradients over the shards of a step: the same bits for any number of workers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.kernels.block_floating_point import (
    BLOCK,
    NOT_FINITE,
    block_exponents,
    block_sums,
    block_values,
)
from unrender.workers import Workers

SMALL = 1 << 16
"""Tensors with fewer values are exchanged together."""
USED_BITS = 62
"""Of a 64-bit integer, for the magnitude of a sum. With 32 bits, small gradients are lost that Adam scales up."""


class ShardValues(NamedTuple):
    """Numbers that each shard of a step has measured, by shard."""

    values: Float[Tensor, "shards values"]
    is_finite: Tensor
    """Whether these numbers, and all gradients, are finite: 0-d bool."""


class GradientSums:
    """Gradients of the shards of one step, and their sum over all shards of all workers.

    A sum of floating-point numbers depends on their order, which the number of workers changes. Here, gradients are
    added as 64-bit integers, which add up to the same in any order, with one exponent for each block of values: that of
    the largest magnitude in any shard. Of those magnitudes, a million shards leave 42 bits: gradients down to 2^−18 of
    them lose nothing. Only blocks with a gradient are exchanged.
    """

    def __init__(self, parameters: Sequence[Tensor], num_shards: int, num_values: int) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._gradients: list[list[Tensor]] = [[] for _ in self._parameters]
        device = self._parameters[0].device
        self._values = torch.full((num_shards, num_values), -math.inf, dtype=torch.float64, device=device)
        self._bits = USED_BITS - math.ceil(math.log2(num_shards))

    def add(self, shard: int, values: Sequence[Tensor | float]) -> None:
        """Take the gradients of the parameters, and what else the shard has measured."""
        for parameter, gradients in zip(self._parameters, self._gradients, strict=True):
            if parameter.grad is not None:
                gradients.append(parameter.grad.float())
                parameter.grad = None
        self._values[shard] = torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in values]).to(
            self._values
        )

    def finish(self, workers: Workers) -> ShardValues:
        """Set the gradient of each parameter to its sum over all shards; return what the shards have measured."""
        values = self._values.nan_to_num(nan=math.inf, posinf=math.inf)
        workers.maximum(values)
        exponents = self._exponents(workers)
        is_finite = values.isfinite().all() & torch.stack([(e < NOT_FINITE).all() for e in exponents]).all()
        if bool(is_finite):
            self._set_gradients(exponents, workers)
        return ShardValues(values, is_finite)

    def _exponents(self, workers: Workers) -> Sequence[Tensor]:
        """Return the exponents of each parameter, over all shards."""
        found = [
            block_exponents(gradients)
            if gradients
            else parameter.new_zeros(-(-parameter.numel() // BLOCK), dtype=torch.uint8)
            for parameter, gradients in zip(self._parameters, self._gradients, strict=True)
        ]
        joined = torch.cat(found)
        workers.maximum(joined)
        by_parameter: Sequence[Tensor] = joined.split([len(own) for own in found])
        return by_parameter

    def _set_gradients(self, exponents: Sequence[Tensor], workers: Workers) -> None:
        chosen = [own.nonzero()[:, 0] for own in exponents]
        sums = [
            block_sums(gradients, own, blocks, self._bits)
            for gradients, own, blocks in zip(self._gradients, exponents, chosen, strict=True)
        ]
        _add_together(sums, workers)
        for parameter, total, own, blocks in zip(self._parameters, sums, exponents, chosen, strict=True):
            gradient = block_values(total, own, blocks, self._bits, parameter.numel())
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype)


def _add_together(sums: Sequence[Tensor], workers: Workers) -> None:
    """Replace integers by their sums over workers: the small tensors in one exchange."""
    if workers.count == 1:
        return
    small = [total for total in sums if total.numel() < SMALL]
    joined = torch.cat([total.flatten() for total in small])
    workers.add(joined)
    for total, found in zip(small, joined.split([total.numel() for total in small]), strict=True):
        total.copy_(found.view_as(total))
    for total in sums:
        if total.numel() >= SMALL:
            workers.add(total)
