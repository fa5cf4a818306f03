"""Interpolation of face attributes."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.kernels.interpolate import interpolate_attributes


def interpolate_face_attributes(
    pix_to_face: Tensor, barycentric_coords: Tensor, face_attributes: Tensor
) -> Tensor:
    """Interpolate attributes [faces, 3, D] of each pixel's face; [N, H, W, K, D], 0 in empty slots."""
    channels = face_attributes.shape[-1]
    covered = (pix_to_face.flatten() >= 0).nonzero()[:, 0]
    face_ids = pix_to_face.flatten()[covered]
    corners = torch.arange(face_attributes.shape[0] * 3, device=face_attributes.device).view(-1, 3)
    mixed = interpolate_attributes(
        barycentric_coords.reshape(-1, 3),
        face_attributes.reshape(1, -1, channels),
        corners,
        face_ids,
        covered,
        torch.zeros_like(covered),
    )
    rows = mixed.new_zeros(pix_to_face.numel(), channels)
    return rows.index_copy(0, covered, mixed).view(*pix_to_face.shape, channels)


interpolate_face_attributes_python = interpolate_face_attributes

__getattr__ = refuse_unknown(__name__)
