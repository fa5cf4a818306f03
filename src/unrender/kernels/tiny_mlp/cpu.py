"""Fused small MLP, a tile of points at a time: hidden activations never leave the cache.

A tile stores PITCH points of each channel contiguously; the channels of each layer are followed by a channel of ones,
which multiplies the biases. The backward pass recomputes hidden layers. Weight gradients are summed by chunks of
points, whose number does not depend on the number of threads.
"""

from collections.abc import Sequence
from itertools import accumulate

import numba
import numpy as np
import torch
from torch import Tensor

from unrender.kernels._batch import allocate
from unrender.kernels._dispatch import cpu_threads
from unrender.kernels._llvm.blocks import COLUMNS, LEFT, RIGHT, ROWS, VECTOR_BYTES, correlate, multiply
from unrender.kernels._llvm.queue import new_queue, next_task
from unrender.kernels.tiny_mlp.activations import CODES, RELU, activate, activate_backward

PITCH = 240
"""Points per tile: five blocks of columns; 15 cache lines, as an even number causes cache set conflicts."""
CHUNKS = 64
"""Maximum number of chunks of points for which weight gradients are summed separately."""


def forward(
    inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], hidden: str, output: str
) -> Tensor:
    result = allocate(inputs, len(biases[-1]), len(inputs))
    layers = [_with_bias(*layer) for layer in zip(weights, biases, strict=True)]
    with cpu_threads(len(inputs)):
        _forward(
            *_rows(inputs), _widths(weights), _packed(layers), CODES[hidden], CODES[output], result.numpy(),
            *new_queue(),
        )  # fmt: skip
    return result.mT


def backward(
    inputs: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    hidden: str,
    output: str,
    result: Tensor,
    grad_output: Tensor,
    needs_grad: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of inputs, weights and biases for which `needs_grad` is true; `result` is of `forward`."""
    widths = _widths(weights)
    grad_inputs = allocate(inputs, inputs.shape[1] if needs_grad[0] else 0, len(inputs))
    blocks = [(-(-o // LEFT), -(-(i + 1) // RIGHT)) for o, i in (weight.shape for weight in weights)]
    ends = list(accumulate((a * b * LEFT * RIGHT for a, b in blocks), initial=0))
    tiles = -(-len(inputs) // PITCH)
    sums = np.empty((min(CHUNKS, tiles), ends[-1]), grad_inputs.numpy().dtype)
    layers = [_with_bias(*layer) for layer in zip(weights, biases, strict=True)]
    with cpu_threads(len(inputs)):
        _backward(
            *_rows(inputs), widths, _packed(layers), _packed([w.detach().mT for w in weights]), CODES[hidden],
            CODES[output], *_rows(result), *_rows(grad_output), any(needs_grad[1:]), sums, grad_inputs.numpy(),
            *new_queue(),
        )  # fmt: skip
    total = torch.from_numpy(sums.sum(0))
    gradients = [
        total[begin:end].view(a, b, LEFT, RIGHT).transpose(1, 2).reshape(a * LEFT, b * RIGHT)[:o, : i + 1]
        for begin, end, (a, b), (o, i) in zip(
            ends, ends[1:], blocks, (w.shape for w in weights), strict=False
        )
    ]
    grad_layers = [*(g[:, :-1] for g in gradients), *(g[:, -1] for g in gradients)]
    return grad_inputs.mT if needs_grad[0] else None, *grad_layers


def _widths(weights):
    return np.array([weights[0].shape[1], *(len(weight) for weight in weights)])


def _with_bias(weight, bias):
    return torch.cat([weight.detach(), bias.detach()[:, None]], 1)


def _packed(matrices):
    """Pack matrices in the layout of `multiply`: ROWS rows at a time, column by column."""
    blocks = []
    for matrix in matrices:
        padded = matrix.new_zeros(-(-len(matrix) // ROWS) * ROWS, matrix.shape[1])
        padded[: len(matrix)] = matrix
        blocks.append(padded.view(-1, ROWS, matrix.shape[1]).mT.reshape(-1))
    return torch.cat(blocks).numpy()


def _rows(values):
    """Return a matrix as a flat array, with its strides between points and between channels."""
    values = values.detach()
    if values.mT.is_contiguous():
        return values.mT.reshape(-1).numpy(), 1, len(values)
    return values.contiguous().view(-1).numpy(), values.shape[1], 1


@numba.njit(cache=True, error_model="numpy")
def _load(rows, step, pitch, begin, count, num_channels, tile):
    """Load points into the channels of a tile, padded with 0."""
    for channel in range(num_channels):
        target, start = tile[channel * PITCH : (channel + 1) * PITCH], begin * step + channel * pitch
        if step == 1:
            target[:count] = rows[start : start + count]
        else:
            for p in range(np.uint64(count)):
                target[p] = rows[np.uint64(start) + p * np.uint64(step)]
        target[count:] = 0


@numba.njit(cache=True, error_model="numpy")
def _store(tile, begin, count, rows):
    """Store the points of a tile."""
    for channel in range(len(rows)):
        rows[channel, begin : begin + count] = tile[channel * PITCH : channel * PITCH + count]


@numba.njit(cache=True, error_model="numpy")
def _multiply_all(packed, packed_at, depth, tile, tile_at, num_rows, minimum, product, product_at):
    """Multiply a tile by a packed matrix."""
    points = COLUMNS * VECTOR_BYTES // packed.itemsize
    for column in range(0, PITCH, points):
        for row in range(0, num_rows, ROWS):
            multiply(
                packed, packed_at + row * depth, tile, tile_at + column, PITCH, depth, minimum,
                product, product_at + row * PITCH + column,
            )  # fmt: skip


@numba.njit(cache=True, error_model="numpy")
def _starts(widths):
    """Return the offset of each layer in a tile, with padding, as blocks may write a few rows more."""
    starts = np.zeros(len(widths) + 1, np.int64)
    for n in range(len(widths)):
        starts[n + 1] = starts[n] + (widths[n] + 8) * PITCH
    return starts


@numba.njit(cache=True, error_model="numpy")
def _evaluate_layers(tile, starts, widths, packed, codes):
    """Evaluate the layers of a tile, as many as there are activation codes."""
    at, zero = 0, tile.dtype.type(0)
    for n in range(len(codes)):
        i, o, target = widths[n], widths[n + 1], starts[n + 1]
        tile[starts[n] + i * PITCH : starts[n] + (i + 1) * PITCH] = 1
        minimum = zero if codes[n] == RELU else tile.dtype.type(-np.inf)
        _multiply_all(packed, at, i + 1, tile, starts[n], o, minimum, tile, target)
        activate(codes[n], tile[target : target + o * PITCH])
        at += (o + ROWS - 1) // ROWS * ROWS * (i + 1)


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _forward(rows, step, pitch, widths, packed, hidden, output, result, threads, counter):
    num_points, last = result.shape[1], len(widths) - 1
    starts, codes = _starts(widths), np.full(last, hidden)
    codes[-1] = output
    for _ in numba.prange(threads):
        tile = np.zeros(starts[-1], packed.dtype)
        begin = next_task(counter) * PITCH
        while begin < num_points:
            count = min(PITCH, num_points - begin)
            _load(rows, step, pitch, begin, count, widths[0], tile)
            _evaluate_layers(tile, starts, widths, packed, codes)
            _store(tile[starts[last] :], begin, count, result)
            begin = next_task(counter) * PITCH


@numba.njit(cache=True, error_model="numpy")
def _correlate_all(gradients, num_gradients, tile, tile_at, num_channels, sums, at):
    """Accumulate the gradients of one layer's weights and biases."""
    for a in range(0, num_gradients, LEFT):
        for b in range(0, num_channels + 1, RIGHT):
            correlate(gradients, a * PITCH, tile, tile_at + b * PITCH, PITCH, PITCH, sums, at)
            at += LEFT * RIGHT


@numba.njit(cache=True, parallel=True, error_model="numpy")
def _backward(
    rows, step, pitch, widths, packed, transposed, hidden, output, result, result_step, result_pitch,
    grad_output, grad_step, grad_pitch, needs_weights, sums, grad_inputs, threads, counter,
):  # fmt: skip
    num_points, last = grad_inputs.shape[1], len(widths) - 1
    starts, codes, chunks, unbounded = (
        _starts(widths),
        np.full(last - 1, hidden),
        len(sums),
        packed.dtype.type(-np.inf),
    )
    tiles = (num_points + PITCH - 1) // PITCH
    sums_at, transposed_at = np.zeros(last + 1, np.int64), np.zeros(last + 1, np.int64)
    for n in range(last):
        i, o = widths[n], widths[n + 1]
        sums_at[n + 1] = sums_at[n] + (o + LEFT - 1) // LEFT * ((i + RIGHT) // RIGHT) * LEFT * RIGHT
        transposed_at[n + 1] = transposed_at[n] + (i + ROWS - 1) // ROWS * ROWS * o
    for _ in numba.prange(threads):
        tile = np.zeros(starts[-1], packed.dtype)
        size = (widths.max() + 8) * PITCH
        gradients, lower = np.zeros(size, packed.dtype), np.zeros(size, packed.dtype)
        chunk = next_task(counter)
        while chunk < chunks:
            sums[chunk] = 0
            for number in range(chunk * tiles // chunks, (chunk + 1) * tiles // chunks):
                begin = number * PITCH
                count = min(PITCH, num_points - begin)
                _load(rows, step, pitch, begin, count, widths[0], tile)
                _evaluate_layers(tile, starts, widths, packed, codes)
                ones = starts[last - 1] + widths[last - 1] * PITCH
                tile[ones : ones + PITCH] = 1
                _load(grad_output, grad_step, grad_pitch, begin, count, widths[last], gradients)
                if output:
                    _load(result, result_step, result_pitch, begin, count, widths[last], tile[starts[last] :])
                    activate_backward(output, tile[starts[last] :], gradients[: widths[last] * PITCH])
                for n in range(last - 1, -1, -1):
                    i, o = widths[n], widths[n + 1]
                    if needs_weights:
                        _correlate_all(gradients, o, tile, starts[n], i, sums[chunk], sums_at[n])
                    if n > 0 or len(grad_inputs):
                        _multiply_all(transposed, transposed_at[n], o, gradients, 0, i, unbounded, lower, 0)
                        gradients, lower = lower, gradients
                    if n > 0:
                        activate_backward(hidden, tile[starts[n] :], gradients[: i * PITCH])
                _store(gradients, begin, count, grad_inputs)
            chunk = next_task(counter)
