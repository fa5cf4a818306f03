"""Barycentric interpolation: one thread per slot and channel; gradients of values are accumulated in fixed point."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums
from unrender.kernels._warp import (
    Precision,
    count_log2,
    in_units,
    launch,
    per_precision,
    record_term,
    unit_exponent,
)


def forward(
    barycentric: Tensor, values: Tensor, faces: Tensor, face_ids: Tensor, slot_ids: Tensor, image_ids: Tensor
) -> Tensor:
    mixed = values.new_empty(len(slot_ids), values.shape[-1])
    arrays = _arrays(barycentric, values, faces, face_ids, slot_ids, image_ids)
    launch(interpolate_kernels(values.dtype).mix, mixed.shape, *arrays, mixed)
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
    grad_barycentric = torch.zeros(barycentric.shape, dtype=barycentric.dtype, device=values.device)
    sums = torch.zeros(values.numel() + 1, dtype=torch.int64, device=values.device)
    sums, max_term = sums[:-1], sums[-1:]
    arrays = _arrays(barycentric, values, faces, face_ids, slot_ids, image_ids)
    kernels, bits = interpolate_kernels(values.dtype), count_log2(3 * len(slot_ids))
    grad_output = grad_output.contiguous()
    launch(kernels.mix_backward, len(slot_ids), *arrays, grad_output, grad_barycentric, max_term)
    launch(kernels.scatter, grad_output.shape, *arrays, grad_output, bits, max_term, sums)
    return grad_barycentric, from_sums(sums, max_term, bits, values.dtype).view(values.shape)


def _arrays(
    barycentric: Tensor, values: Tensor, faces: Tensor, face_ids: Tensor, slot_ids: Tensor, image_ids: Tensor
) -> list[Tensor]:
    tensors = (barycentric, values, faces.long(), face_ids.int(), slot_ids, image_ids)
    return [t.detach().contiguous() for t in tensors]


@per_precision("interpolate")
def interpolate_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3

    @types.kernel
    def mix(
        barycentric: wp.array(dtype=vec3),
        values: wp.array3d(dtype=scalar),
        faces: wp.array2d(dtype=wp.int64),
        face_ids: wp.array(dtype=wp.int32),
        slot_ids: wp.array(dtype=wp.int64),
        image_ids: wp.array(dtype=wp.int64),
        mixed: wp.array2d(dtype=scalar),
    ):
        n, channel = wp.tid()
        weights, face, image = barycentric[int(slot_ids[n])], face_ids[n], int(image_ids[n])
        total = scalar(0.0)
        for i in range(3):
            total += weights[i] * values[image, int(faces[face, i]), channel]
        mixed[n, channel] = total

    @types.kernel
    def mix_backward(
        barycentric: wp.array(dtype=vec3),
        values: wp.array3d(dtype=scalar),
        faces: wp.array2d(dtype=wp.int64),
        face_ids: wp.array(dtype=wp.int32),
        slot_ids: wp.array(dtype=wp.int64),
        image_ids: wp.array(dtype=wp.int64),
        grad_output: wp.array2d(dtype=scalar),
        gradient: wp.array(dtype=vec3),
        max_term: wp.array(dtype=wp.int64),
    ):
        """Compute the gradient of barycentrics; record the largest upstream gradient (barycentrics are at most 1)."""
        n = wp.tid()
        face, image = face_ids[n], int(image_ids[n])
        total = vec3(scalar(0.0))
        for channel in range(grad_output.shape[1]):
            grad = grad_output[n, channel]
            for i in range(3):
                total[i] += grad * values[image, int(faces[face, i]), channel]
            record_term(wp.float64(grad), max_term)
        gradient[int(slot_ids[n])] = total

    @types.kernel
    def scatter(
        barycentric: wp.array(dtype=vec3),
        values: wp.array3d(dtype=scalar),
        faces: wp.array2d(dtype=wp.int64),
        face_ids: wp.array(dtype=wp.int32),
        slot_ids: wp.array(dtype=wp.int64),
        image_ids: wp.array(dtype=wp.int64),
        grad_output: wp.array2d(dtype=scalar),
        bits: int,
        max_term: wp.array(dtype=wp.int64),
        sums: wp.array(dtype=wp.int64),
    ):
        n, channel = wp.tid()
        exponent = unit_exponent(max_term[0], bits)
        weights, face, image = barycentric[int(slot_ids[n])], face_ids[n], int(image_ids[n])
        for i in range(3):
            vertex = image * values.shape[1] + int(faces[face, i])
            term = in_units(wp.float64(weights[i] * grad_output[n, channel]), exponent)
            wp.atomic_add(sums, vertex * values.shape[2] + channel, term)

    return SimpleNamespace(mix=mix, mix_backward=mix_backward, scatter=scatter)
