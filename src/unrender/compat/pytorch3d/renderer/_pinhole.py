"""Cameras as focal length and principal point, which take fewer operations than matrices."""

from typing import Any

import torch
from torch import Tensor

from unrender.compat.pytorch3d.renderer.cameras import (
    CamerasBase,
    FoVPerspectiveCameras,
    OrthographicCameras,
    PerspectiveCameras,
)

Intrinsics = tuple[Tensor, Tensor]


def pinhole(cameras: CamerasBase, settings: dict[str, Any]) -> Intrinsics | None:
    """Return focal length and principal point [N or 1, 2] in NDC, or None where a matrix is needed."""
    if settings.keys() & {"K", "fov", "aspect_ratio", "degrees", "focal_length", "principal_point"}:
        return None
    if isinstance(cameras, PerspectiveCameras | OrthographicCameras):
        is_given = cameras.K is None and cameras.in_ndc()
        return (cameras.focal_length, cameras.principal_point) if is_given else None
    if isinstance(cameras, FoVPerspectiveCameras) and cameras.K is None:
        return _from_field_of_view(cameras)
    return None


def _from_field_of_view(cameras: FoVPerspectiveCameras) -> Intrinsics:
    """Compute the focal length; kept in the camera until its field of view changes."""
    fov, aspect = cameras.fov, cameras.aspect_ratio
    given = (fov, fov._version, aspect, aspect._version, cameras.degrees)
    kept: tuple[Any, Intrinsics] | None = cameras.__dict__.get("_intrinsics")
    if kept is not None and all(a is b for a, b in zip(kept[0], given, strict=True)):
        return kept[1]
    tangent = ((torch.deg2rad(fov) if cameras.degrees else fov) / 2).tan()
    focal = torch.stack([1 / (tangent * aspect), 1 / tangent], -1)
    intrinsics = focal, torch.zeros_like(focal)
    if not focal.requires_grad:
        object.__setattr__(cameras, "_intrinsics", (given, intrinsics))
    return intrinsics
