"""Conversions between cameras of OpenCV and of PyTorch3D. Those of Pulsar raise an error when called."""

from typing import Any

from unrender.compat.pytorch3d._names import missing, refuse_unknown
from unrender.compat.pytorch3d.renderer.camera_conversions import (
    cameras_from_opencv_projection,
    opencv_from_cameras_projection,
)

__all__ = [
    "cameras_from_opencv_projection",
    "opencv_from_cameras_projection",
    "pulsar_from_cameras_projection",
    "pulsar_from_opencv_projection",
]


def pulsar_from_opencv_projection(*args: Any, **kwargs: Any) -> Any:
    """Raise `MissingNameError`: Pulsar is not supported."""
    raise missing(__name__, "pulsar_from_opencv_projection")


def pulsar_from_cameras_projection(*args: Any, **kwargs: Any) -> Any:
    """Raise `MissingNameError`: Pulsar is not supported."""
    raise missing(__name__, "pulsar_from_cameras_projection")


__getattr__ = refuse_unknown(__name__)
