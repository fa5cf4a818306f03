"""Devices: the earlier name of `datatypes`."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.common.datatypes import Device, get_device, make_device

__all__ = ["Device", "get_device", "make_device"]


__getattr__ = refuse_unknown(__name__)
