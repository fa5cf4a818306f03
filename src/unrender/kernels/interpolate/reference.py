"""Values between the vertices, by the definition."""

from torch import Tensor


def forward(
    barycentric: Tensor, values: Tensor, faces: Tensor, face_ids: Tensor, places: Tensor, images: Tensor
) -> Tensor:
    """Mix the values at a face's corners: Σ b_i v_i for each filled slot.

    `barycentric` [slots, 3], `values` [images, vertices, channels]; `places` names the filled slots, `face_ids`
    and `images` the face and the image of each.
    """
    corners = values[images[:, None], faces[face_ids]]
    return (barycentric[places][..., None] * corners).sum(-2)
