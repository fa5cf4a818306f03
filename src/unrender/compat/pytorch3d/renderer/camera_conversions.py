"""Conversions between cameras of OpenCV and of PyTorch3D."""

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.cameras import PerspectiveCameras


def cameras_from_opencv_projection(
    R: Tensor, tvec: Tensor, camera_matrix: Tensor, image_size: Tensor
) -> PerspectiveCameras:
    """Make cameras from OpenCV's rotations, translations, and matrices in pixels; `image_size` is (height, width)."""
    width_height = image_size.to(R).flip(1)
    scale = width_height.amin(1, keepdim=True) / 2
    focal = torch.stack([camera_matrix[:, 0, 0], camera_matrix[:, 1, 1]], -1) / scale
    center = (width_height / 2 - camera_matrix[:, :2, 2]) / scale
    flip = R.new_tensor([-1, -1, 1])
    return PerspectiveCameras(
        R=R.mT * flip,
        T=tvec * flip,
        focal_length=focal,
        principal_point=center,
        image_size=image_size,
        device=R.device,
    )


def opencv_from_cameras_projection(
    cameras: PerspectiveCameras, image_size: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return OpenCV's rotations, translations and camera matrices: the inverse of `cameras_from_opencv_projection`."""
    flip = cameras.R.new_tensor([-1, -1, 1])
    width_height = image_size.to(cameras.R).flip(1)
    scale = width_height.amin(1, keepdim=True) / 2
    matrix = torch.zeros_like(cameras.R)
    matrix[:, :2, 2] = width_height / 2 - cameras.principal_point * scale
    matrix[:, [0, 1], [0, 1]] = cameras.focal_length * scale
    matrix[:, 2, 2] = 1
    return (cameras.R * flip).mT, cameras.T * flip, matrix


_cameras_from_opencv_projection = cameras_from_opencv_projection
_opencv_from_cameras_projection = opencv_from_cameras_projection


__getattr__ = refuse_unknown(__name__)
