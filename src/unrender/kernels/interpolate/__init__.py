"""Barycentric interpolation of vertex attributes."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender.kernels._dispatch import implementation
from unrender.kernels.interpolate import reference


@checked
def interpolate_attributes(
    barycentric: Float[Tensor, "slots 3"],
    values: Float[Tensor, "images vertices channels"],
    faces: Int[Tensor, "faces 3"],
    face_ids: Int[Tensor, " filled"],
    slot_ids: Int[Tensor, " filled"],
    image_ids: Int[Tensor, " filled"],
) -> Float[Tensor, "filled channels"]:
    """Interpolate the values at the corners of faces: Σ b_i v_i for each filled slot.

    `slot_ids` are the filled slots, `face_ids` and `image_ids` the face and the image of each.
    Differentiable in: barycentric, values (not twice).
    """
    face_ids = face_ids.int()  # as they are rasterized; PyTorch3D's are int64
    arguments = (barycentric, values, faces, face_ids, slot_ids, image_ids)
    if implementation("interpolate", values.device) is None:
        return reference.forward(*arguments)
    mixed: Tensor = _Interpolate.apply(*arguments)
    return mixed


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> Tensor:
        fast = implementation("interpolate", arguments[0].device)
        assert fast is not None
        ctx.fast = fast
        ctx.save_for_backward(*arguments)
        mixed: Tensor = fast.forward(*arguments)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.fast.backward(*ctx.saved_tensors, grad_output), None, None, None, None)
