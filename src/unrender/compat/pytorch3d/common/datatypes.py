"""Devices."""

from typing import Any

import torch

from unrender.compat.pytorch3d._names import refuse_unknown

Device = str | torch.device


def make_device(device: Device) -> torch.device:
    """Return a device; "cuda" is the current one."""
    made = torch.device(device)
    if made.type == "cuda" and made.index is None:
        made = torch.device(f"cuda:{torch.cuda.current_device()}")
    return made


def get_device(x: Any, device: Device | None = None) -> torch.device:
    """Return the given device, or that of a tensor, else the CPU."""
    if device is not None:
        return make_device(device)
    return x.device if isinstance(x, torch.Tensor) else torch.device("cpu")


__getattr__ = refuse_unknown(__name__)
