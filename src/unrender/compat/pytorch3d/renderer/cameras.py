"""Cameras, and the earlier names of some."""

import warnings
from typing import Any

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.renderer._cameras import (
    _R,  # noqa: F401
    _T,  # noqa: F401
    CamerasBase,
    FoVOrthographicCameras,
    FoVPerspectiveCameras,
    OrthographicCameras,
    PerspectiveCameras,
    camera_position_from_spherical_angles,
    get_ndc_to_screen_transform,
    get_screen_to_ndc_transform,
    get_world_to_view_transform,
    look_at_rotation,
    look_at_view_transform,
)
from unrender.compat.pytorch3d.transforms import Transform3d

__all__ = [
    "CamerasBase",
    "FoVOrthographicCameras",
    "FoVPerspectiveCameras",
    "OpenGLOrthographicCameras",
    "OpenGLPerspectiveCameras",
    "OrthographicCameras",
    "PerspectiveCameras",
    "SfMOrthographicCameras",
    "SfMPerspectiveCameras",
    "camera_position_from_spherical_angles",
    "get_ndc_to_screen_transform",
    "get_screen_to_ndc_transform",
    "get_world_to_view_transform",
    "look_at_rotation",
    "look_at_view_transform",
    "try_get_projection_transform",
]


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is deprecated; use {new} instead", PendingDeprecationWarning, stacklevel=3)


def OpenGLPerspectiveCameras(*args: Any, **kwargs: Any) -> FoVPerspectiveCameras:  # noqa: N802
    """Make `FoVPerspectiveCameras`: an earlier name."""
    _warn("OpenGLPerspectiveCameras", "FoVPerspectiveCameras")
    return FoVPerspectiveCameras(*args, **kwargs)


def OpenGLOrthographicCameras(*args: Any, **kwargs: Any) -> FoVOrthographicCameras:  # noqa: N802
    """Make `FoVOrthographicCameras`: an earlier name, with `top`, `bottom`, `left` and `right` for the box."""
    _warn("OpenGLOrthographicCameras", "FoVOrthographicCameras")
    names = {"top": "max_y", "bottom": "min_y", "right": "max_x", "left": "min_x"}
    return FoVOrthographicCameras(*args, **{names.get(name, name): value for name, value in kwargs.items()})


def SfMPerspectiveCameras(*args: Any, **kwargs: Any) -> PerspectiveCameras:  # noqa: N802
    """Make `PerspectiveCameras`: an earlier name."""
    _warn("SfMPerspectiveCameras", "PerspectiveCameras")
    return PerspectiveCameras(*args, **kwargs)


def SfMOrthographicCameras(*args: Any, **kwargs: Any) -> OrthographicCameras:  # noqa: N802
    """Make `OrthographicCameras`: an earlier name."""
    _warn("SfMOrthographicCameras", "OrthographicCameras")
    return OrthographicCameras(*args, **kwargs)


def try_get_projection_transform(cameras: CamerasBase, cameras_kwargs: dict[str, Any]) -> Transform3d | None:
    """Return the transform from the camera's frame to NDC, or None for cameras that have none."""
    try:
        return cameras.get_projection_transform(**cameras_kwargs)
    except NotImplementedError:
        return None


register(__name__)
__getattr__ = refuse_unknown(__name__)
