"""Shape primitives, and conversions of cameras."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.utils.camera_conversions import (
    cameras_from_opencv_projection,
    opencv_from_cameras_projection,
    pulsar_from_cameras_projection,
    pulsar_from_opencv_projection,
)
from unrender.compat.pytorch3d.utils.checkerboard import checkerboard
from unrender.compat.pytorch3d.utils.ico_sphere import ico_sphere
from unrender.compat.pytorch3d.utils.torus import torus

__all__ = [
    "cameras_from_opencv_projection",
    "checkerboard",
    "ico_sphere",
    "opencv_from_cameras_projection",
    "pulsar_from_cameras_projection",
    "pulsar_from_opencv_projection",
    "torus",
]

__getattr__ = refuse_unknown(__name__)
