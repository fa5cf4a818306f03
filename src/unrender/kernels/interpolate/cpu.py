"""Values between the vertices; slots are spread over the threads, channels on the way back."""

import numba
import torch
from torch import Tensor

from unrender.kernels._dispatch import cpu_threads

BLOCK = 4096


def forward(
    barycentric: Tensor, values: Tensor, faces: Tensor, face_ids: Tensor, places: Tensor, images: Tensor
) -> Tensor:
    mixed = values.new_empty(len(places), values.shape[-1])
    tensors = (barycentric, values, faces, face_ids, places, images, mixed)
    with cpu_threads(len(places)):
        _mix(*(t.detach().contiguous().numpy() for t in tensors))
    return mixed


def backward(
    barycentric: Tensor,
    values: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    places: Tensor,
    images: Tensor,
    cotangent: Tensor,
) -> tuple[Tensor, Tensor]:
    gradients = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (barycentric, values)]
    tensors = (barycentric, values, faces, face_ids, places, images, cotangent, *gradients)
    arrays = [t.detach().contiguous().numpy() for t in tensors]
    with cpu_threads(len(places)):
        _mix_backward(*arrays[:-1])
        _scatter(arrays[0], *arrays[2:7], arrays[-1])
    return gradients[0], gradients[1]


@numba.njit(cache=True, parallel=True)
def _mix(barycentric, values, faces, face_ids, places, images, mixed):
    for block in numba.prange((len(places) + BLOCK - 1) // BLOCK):
        for n in range(block * BLOCK, min(len(places), (block + 1) * BLOCK)):
            weights, face, image = barycentric[places[n]], faces[face_ids[n]], images[n]
            for channel in range(mixed.shape[1]):
                mixed[n, channel] = (
                    weights[0] * values[image, face[0], channel]
                    + weights[1] * values[image, face[1], channel]
                    + weights[2] * values[image, face[2], channel]
                )


@numba.njit(cache=True, parallel=True)
def _mix_backward(barycentric, values, faces, face_ids, places, images, cotangent, gradient):
    for block in numba.prange((len(places) + BLOCK - 1) // BLOCK):
        for n in range(block * BLOCK, min(len(places), (block + 1) * BLOCK)):
            for i in range(3):
                vertex = faces[face_ids[n], i]
                for channel in range(cotangent.shape[1]):
                    gradient[places[n], i] += cotangent[n, channel] * values[images[n], vertex, channel]


@numba.njit(cache=True, parallel=True)
def _scatter(barycentric, faces, face_ids, places, images, cotangent, gradient):
    """Add up each channel in one thread, one slot after another: the order, and so every bit, is fixed."""
    for channel in numba.prange(cotangent.shape[1]):
        for n in range(len(places)):
            for i in range(3):
                share = barycentric[places[n], i] * cotangent[n, channel]
                gradient[images[n], faces[face_ids[n], i], channel] += share
