"""Reference implementation of barycentric interpolation."""

from torch import Tensor


def forward(
    barycentric: Tensor, values: Tensor, faces: Tensor, face_ids: Tensor, slot_ids: Tensor, image_ids: Tensor
) -> Tensor:
    """Interpolate the values at the corners of faces: Σ b_i v_i for each filled slot.

    `barycentric` [slots, 3], `values` [images, vertices, channels]; `slot_ids` are the filled slots, `face_ids` and
    `image_ids` the face and the image of each.
    """
    corners = values[image_ids[:, None], faces[face_ids]]
    return (barycentric[slot_ids][..., None] * corners).sum(-2)
