"""Block floating point, parallel over blocks; each pass reads the gradients once, and only blocks with a gradient."""

from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import array
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels.block_floating_point.reference import BIAS, BLOCK

CHUNK = 1024
"""Blocks per task."""
EXPONENTS = np.arange(256, dtype=np.float64)
MAGNITUDE = 0x7FFFFFFF
"""All bits of a float32 but its sign."""


def exponents(gradients: Sequence[Tensor]) -> Tensor:
    found = torch.zeros(-(-gradients[0].numel() // BLOCK), dtype=torch.uint8)
    with cpu_threads(len(found)):
        for gradient in gradients:
            whole, rest = _blocks(gradient)
            _raise_exponents(whole.view(np.int32), rest.view(np.int32), found.numpy())
    return found


def forward(gradients: Sequence[Tensor], exponents: Tensor, blocks: Tensor, bits: int) -> Tensor:
    total = torch.zeros(len(blocks), BLOCK, dtype=torch.int64)
    with cpu_threads(len(blocks)):
        for gradient in gradients:
            whole, rest = _blocks(gradient)
            _add(
                whole, rest, array(exponents), array(blocks), np.exp2(bits + BIAS - EXPONENTS), total.numpy()
            )
    return total


def values(sums: Tensor, exponents: Tensor, blocks: Tensor, bits: int, count: int) -> Tensor:
    found = torch.from_numpy(np.zeros((len(exponents), BLOCK), np.float32))
    with cpu_threads(len(blocks)):
        _scatter(
            array(sums), array(exponents), array(blocks), np.exp2(EXPONENTS - (bits + BIAS)), found.numpy()
        )
    return found.flatten()[:count]


def _blocks(gradient: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole blocks, and the values that are left filled up to a block."""
    flat = array(gradient).reshape(-1)
    whole = len(flat) - len(flat) % BLOCK
    rest = np.zeros((1, BLOCK), np.float32)
    rest[0, : len(flat) - whole] = flat[whole:]
    return flat[:whole].reshape(-1, BLOCK), rest


@numba.njit(cache=True, parallel=True)
def _raise_exponents(whole, rest, found):
    count, full = found.shape[0], whole.shape[0]
    for chunk in numba.prange((count + CHUNK - 1) // CHUNK):
        for b in range(chunk * CHUNK, min(full, (chunk + 1) * CHUNK)):
            largest = np.int32(0)
            for i in range(BLOCK):
                largest = max(largest, whole[b, i] & np.int32(MAGNITUDE))
            found[b] = max(found[b], np.uint8(largest >> 23))
    if count > full:
        for i in range(BLOCK):
            found[full] = max(found[full], np.uint8((rest[0, i] & np.int32(MAGNITUDE)) >> 23))


@numba.njit(cache=True, parallel=True)
def _add(whole, rest, exponents, blocks, scales, total):
    full = whole.shape[0]
    for chunk in numba.prange((blocks.shape[0] + CHUNK - 1) // CHUNK):
        for j in range(chunk * CHUNK, min(blocks.shape[0], (chunk + 1) * CHUNK)):
            b = blocks[j]
            scale = scales[exponents[b]]
            if b < full:
                for i in range(BLOCK):
                    total[j, i] += np.int64(np.rint(whole[b, i] * scale))
            else:
                for i in range(BLOCK):
                    total[j, i] += np.int64(np.rint(rest[0, i] * scale))


@numba.njit(cache=True, parallel=True)
def _scatter(sums, exponents, blocks, scales, found):
    for chunk in numba.prange((blocks.shape[0] + CHUNK - 1) // CHUNK):
        for j in range(chunk * CHUNK, min(blocks.shape[0], (chunk + 1) * CHUNK)):
            scale = scales[exponents[blocks[j]]]
            for i in range(BLOCK):
                found[blocks[j], i] = np.float32(sums[j, i] * scale)
