"""Barycentric interpolation, parallel over slots; the backward pass is parallel over channels."""

import numba
import torch
from torch import Tensor

from unrender.kernels._dispatch import cpu_threads

BLOCK = 4096


def forward(
    barycentric: Tensor, values: Tensor, faces: Tensor, face_ids: Tensor, slot_ids: Tensor, image_ids: Tensor
) -> Tensor:
    mixed = values.new_empty(len(slot_ids), values.shape[-1])
    tensors = (barycentric, values, faces, face_ids, slot_ids, image_ids, mixed)
    with cpu_threads(len(slot_ids)):
        _mix(*(t.detach().contiguous().numpy() for t in tensors))
    return mixed


def backward(
    barycentric: Tensor,
    values: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    slot_ids: Tensor,
    image_ids: Tensor,
    grad_output: Tensor,
) -> tuple[Tensor, Tensor]:
    gradients = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (barycentric, values)]
    tensors = (barycentric, values, faces, face_ids, slot_ids, image_ids, grad_output, *gradients)
    arrays = [t.detach().contiguous().numpy() for t in tensors]
    with cpu_threads(len(slot_ids)):
        _mix_backward(*arrays[:-1])
        _scatter(arrays[0], *arrays[2:7], arrays[-1])
    return gradients[0], gradients[1]


@numba.njit(cache=True, parallel=True)
def _mix(barycentric, values, faces, face_ids, slot_ids, image_ids, mixed):
    for block in numba.prange((len(slot_ids) + BLOCK - 1) // BLOCK):
        for n in range(block * BLOCK, min(len(slot_ids), (block + 1) * BLOCK)):
            weights, face, image = barycentric[slot_ids[n]], faces[face_ids[n]], image_ids[n]
            for channel in range(mixed.shape[1]):
                mixed[n, channel] = (
                    weights[0] * values[image, face[0], channel]
                    + weights[1] * values[image, face[1], channel]
                    + weights[2] * values[image, face[2], channel]
                )


@numba.njit(cache=True, parallel=True)
def _mix_backward(barycentric, values, faces, face_ids, slot_ids, image_ids, grad_output, gradient):
    for block in numba.prange((len(slot_ids) + BLOCK - 1) // BLOCK):
        for n in range(block * BLOCK, min(len(slot_ids), (block + 1) * BLOCK)):
            for i in range(3):
                vertex = faces[face_ids[n], i]
                for channel in range(grad_output.shape[1]):
                    gradient[slot_ids[n], i] += (
                        grad_output[n, channel] * values[image_ids[n], vertex, channel]
                    )


@numba.njit(cache=True, parallel=True)
def _scatter(barycentric, faces, face_ids, slot_ids, image_ids, grad_output, gradient):
    """Accumulate each channel in one thread, slot by slot: the order, and so every bit, is fixed."""
    for channel in numba.prange(grad_output.shape[1]):
        for n in range(len(slot_ids)):
            for i in range(3):
                weighted = barycentric[slot_ids[n], i] * grad_output[n, channel]
                gradient[image_ids[n], faces[face_ids[n], i], channel] += weighted
