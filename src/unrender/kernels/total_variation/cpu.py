"""Total variation, parallel over corners; each gathers the gradient from its neighbors, so that no writes collide."""

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._dispatch import cpu_threads

CHUNK = 4096
"""Corners per task."""


def forward(values: Tensor, neighbors: Tensor) -> Tensor:
    chunks = (len(values) + CHUNK - 1) // CHUNK
    sums, pairs = values.new_zeros(chunks), torch.zeros(chunks, dtype=torch.int64, device="cpu")
    with cpu_threads(values.numel()):
        _accumulate(
            values.detach().contiguous().numpy(), neighbors.contiguous().numpy(), sums.numpy(), pairs.numpy()
        )
    return sums.sum() / max(int(pairs.sum()), 1)


def backward(values: Tensor, neighbors: Tensor, grad_output: Tensor) -> Tensor:
    gradient = torch.empty_like(values, memory_format=torch.contiguous_format)
    pairs = max(int((neighbors[:, 1::2] >= 0).sum()), 1)
    with cpu_threads(values.numel()):
        _backward(
            values.detach().contiguous().numpy(),
            neighbors.contiguous().numpy(),
            values.new_tensor(2 * float(grad_output) / pairs).numpy()[()],
            gradient.numpy(),
        )
    return gradient


@numba.njit(cache=True, parallel=True)
def _accumulate(values, neighbors, sums, pairs):
    count, channels = values.shape
    for c in numba.prange(sums.shape[0]):
        total = np.zeros(channels, values.dtype)
        found = 0
        for i in range(c * CHUNK, min(count, (c + 1) * CHUNK)):
            for axis in range(3):
                j = neighbors[i, 2 * axis + 1]
                if j >= 0:
                    found += 1
                    for f in range(channels):
                        total[f] += (values[i, f] - values[j, f]) ** 2
        sums[c], pairs[c] = total.sum(), found


@numba.njit(cache=True, parallel=True)
def _backward(values, neighbors, scale, gradient):
    count, channels = values.shape
    for c in numba.prange((count + CHUNK - 1) // CHUNK):
        for i in range(c * CHUNK, min(count, (c + 1) * CHUNK)):
            for f in range(channels):
                gradient[i, f] = 0
            for side in range(6):
                j = neighbors[i, side]
                if j >= 0:
                    for f in range(channels):
                        gradient[i, f] += scale * (values[i, f] - values[j, f])
