"""Poses and batches of cameras."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.cameras import CamerasBase
from unrender.compat.pytorch3d.transforms import Transform3d


def camera_to_eye_at_up(world_to_view_transform: Transform3d) -> tuple[Tensor, Tensor, Tensor]:
    """Return eye, target and up direction [N, 3] of cameras, as `look_at_view_transform` takes them."""
    to_world = world_to_view_transform.inverse().get_matrix()
    eye = to_world[:, 3, :3]
    return eye, eye + to_world[:, 2, :3], to_world[:, 1, :3]


def rotate_on_spot(R: Tensor, T: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Turn cameras by rotations in their own frames, without moving them."""
    R, T, rotation = (t[None] if t.dim() == axes else t for t, axes in ((R, 2), (T, 1), (rotation, 2)))
    if R.shape[1:] != (3, 3):
        raise ValueError("Invalid R")
    if T.shape[1:] != (3,):
        raise ValueError("Invalid T")
    if rotation.shape[1:] != (3, 3):
        raise ValueError("Invalid rotation")
    turned = R @ rotation.mT
    return turned, (turned.mT @ (R @ T[..., None]))[..., 0]


def join_cameras_as_batch(cameras_list: Sequence[CamerasBase]) -> CamerasBase:
    """Concatenate batches of cameras of one kind."""
    first = cameras_list[0]
    if not all(isinstance(one, CamerasBase) for one in cameras_list):
        raise ValueError("cameras in cameras_list must inherit from CamerasBase")
    if not all(type(one) is type(first) for one in cameras_list):
        raise ValueError("All cameras must be of the same type")
    if not all(one.device == first.device for one in cameras_list):
        raise ValueError("All cameras in the batch must be on the same device")
    settings: dict[str, Any] = {"device": first.device}
    for name in first._FIELDS:
        values = [getattr(one, name) for one in cameras_list]
        if all(value is None for value in values):
            continue
        if any(value is None for value in values):
            raise ValueError(f"Attribute {name} is inconsistently present")
        if name in first._SHARED_FIELDS:
            if any(value != values[0] for value in values):
                raise ValueError(f"Attribute {name} is not constant across inputs")
            settings[name.removeprefix("_")] = values[0]
        else:
            settings[name] = torch.cat(values)
    return type(first)(**settings)


__getattr__ = refuse_unknown(__name__)
