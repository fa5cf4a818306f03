"""Sums of gradients over the shards of a step: the same bits for any number of workers."""

import itertools
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
        if workers.count == 1:
            of_each = zip(self._gradients, exponents, chosen, strict=True)
            values: Sequence[Tensor] = [
                self._decoded(block_sums(*of, self._bits), of[1][of[2]]) for of in of_each
            ]
        else:
            values = self._shared_sums(exponents, chosen, workers)
        for parameter, gradients, blocks, found in zip(
            self._parameters, self._gradients, chosen, values, strict=True
        ):
            # in the memory of a gradient: the pages of a new tensor would take longer than all the rest
            target = gradients[0].contiguous() if gradients else parameter.new_zeros(parameter.shape).float()
            _set_blocks(target.view(-1), blocks, found)
            parameter.grad = target.view_as(parameter).to(parameter.dtype)

    def _shared_sums(
        self, exponents: Sequence[Tensor], chosen: Sequence[Tensor], workers: Workers
    ) -> Sequence[Tensor]:
        """Return the sums over all shards in the chosen blocks of each parameter; each worker computes a part."""
        lengths = [len(blocks) for blocks in chosen]
        scales = torch.cat([own[blocks] for own, blocks in zip(exponents, chosen, strict=True)])
        ends = [len(scales) * (rank + 1) // workers.count for rank in range(workers.count)]
        counts = [end - begin for begin, end in itertools.pairwise([0, *ends])]
        part = slice(ends[workers.rank] - counts[workers.rank], ends[workers.rank])
        own = scales[part]
        if len(self._values) == workers.count:  # the gradient of one shard is half as large as a sum
            sent = torch.empty(len(scales), BLOCK, device=scales.device)
            for gradients, blocks, target in zip(self._gradients, chosen, sent.split(lengths), strict=True):
                _copy_blocks(gradients, blocks, target)
            rows = torch.arange(len(own), device=own.device)
            total = block_sums(list(workers.exchange(sent, counts)), own, rows, self._bits)
        else:
            found = zip(self._gradients, exponents, chosen, strict=True)
            total = workers.exchange(torch.cat([block_sums(*of, self._bits) for of in found]), counts).sum(0)
        values = torch.empty(len(scales), BLOCK, device=scales.device)
        values[part] = self._decoded(total, own)
        workers.share_parts(values, ends)
        by_parameter: Sequence[Tensor] = values.split(lengths)
        return by_parameter

    def _decoded(self, sums: Tensor, exponents: Tensor) -> Float[Tensor, "chosen 16"]:
        """Return the values that sums stand for, with the exponent of each block."""
        rows = torch.arange(len(sums), device=sums.device)
        return block_values(sums, exponents, rows, self._bits, sums.numel()).view(-1, BLOCK)


def _copy_blocks(gradients: Sequence[Tensor], chosen: Tensor, target: Tensor) -> None:
    """Copy the chosen blocks of the only gradient of a parameter, if it has one."""
    if not gradients:
        target.zero_()
        return
    whole, rest = _cut(gradients[0].flatten())
    if _has_rest(chosen, whole):
        target[-1].zero_()[: len(rest)] = rest
        chosen, target = chosen[:-1], target[:-1]
    torch.index_select(whole, 0, chosen, out=target)


def _set_blocks(target: Tensor, chosen: Tensor, values: Tensor) -> None:
    """Set the chosen blocks to values, and the others to 0."""
    if len(chosen) * BLOCK < len(target):
        target.zero_()
    whole, rest = _cut(target)
    if _has_rest(chosen, whole):
        rest.copy_(values[-1, : len(rest)])
        chosen, values = chosen[:-1], values[:-1]
    whole[chosen] = values


def _cut(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Return views of the whole blocks, and of the values that are left."""
    count = len(flat) - len(flat) % BLOCK
    return flat[:count].view(-1, BLOCK), flat[count:]


def _has_rest(chosen: Tensor, whole: Tensor) -> bool:
    return len(chosen) > 0 and int(chosen[-1]) == len(whole)
