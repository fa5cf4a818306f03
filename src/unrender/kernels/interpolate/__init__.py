"""Barycentric interpolation of vertex attributes."""

from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.kernels._autograd import differentiable
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
    fast = implementation("interpolate", values.device)
    if fast is None:
        return reference.forward(*arguments)
    return differentiable(fast, *arguments)
