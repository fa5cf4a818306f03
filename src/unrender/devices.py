"""The device that computes: what this machine has, and what `auto` means on it."""

import functools
import importlib.util
import os
from typing import NamedTuple

import torch

from unrender.errors import InputError

INSTALL_WARP = "pip install 'unrender[gpu]'"


class Gpu(NamedTuple):
    """A GPU that torch reports."""

    name: str
    memory: int
    """In bytes."""


class Hardware(NamedTuple):
    """What decides on which device the library computes."""

    gpus: tuple[Gpu, ...]
    """NVIDIA GPUs, in the order of cuda:0, cuda:1, …"""
    warp: str | None
    """Version of NVIDIA Warp; None if it is not installed."""
    others: tuple[str, ...] = ()
    """GPUs of other makers that torch can use: the reference implementations run on them."""
    cuda_build: bool = True
    """Whether torch was built for NVIDIA GPUs."""

    def automatic(self) -> tuple[torch.device, str]:
        """Return the device that `auto` stands for, and the reason."""
        if self.gpus and self.warp:
            index = _local_rank() % len(self.gpus)
            return torch.device("cuda", index), f"{self.gpus[index].name}, with NVIDIA Warp {self.warp}"
        if self.gpus:
            return torch.device("cpu"), f"NVIDIA Warp is not installed: {INSTALL_WARP}"
        if self.others:
            return torch.device("cpu"), "there are no fast kernels for GPUs of other makers than NVIDIA"
        if not self.cuda_build:
            return torch.device("cpu"), "this build of torch supports no GPU"
        return torch.device("cpu"), "torch finds no GPU"

    def device(self, name: str) -> torch.device:
        """Return the device `auto`, `cpu`, `cuda` or `cuda:N`; see `resolve_device`."""
        if name == "auto":
            return self.automatic()[0]
        if name == "cpu":
            return torch.device("cpu")
        kind, _, number = name.partition(":")
        if kind != "cuda" or (":" in name and not (number.isascii() and number.isdigit())):
            raise InputError(f"device {name!r}: must be auto, cpu, cuda or cuda:N")
        index = int(number) if number else _local_rank() % max(1, len(self.gpus))
        if index >= len(self.gpus):
            found = ", ".join(f"cuda:{i} ({gpu.name})" for i, gpu in enumerate(self.gpus))
            raise InputError(
                f"device {name}: there is no such GPU; {'torch finds ' + found if found else self.automatic()[1]}"
            )
        if self.warp is None:
            raise InputError(f"device {name}: NVIDIA Warp is not installed; {INSTALL_WARP}, or use cpu")
        return torch.device("cuda", index)


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device named `auto`, `cpu`, `cuda` or `cuda:N`.

    `auto` is the first NVIDIA GPU if there is one and NVIDIA Warp is installed, else the CPU; `cuda` is the first GPU.
    Under torchrun, both are one GPU for each process of a machine.
    A `torch.device` is returned as it is. Library functions need no such choice: they compute where their tensors are.

    Example: `mesh = unrender.load_mesh("cow.obj").to(unrender.resolve_device())`

    Errors: InputError if there is no such GPU, or if Warp is not installed.
    """
    return device if isinstance(device, torch.device) else find_hardware().device(device)


def has_room(device: torch.device, num_bytes: int) -> bool:
    """Say whether half of the free memory of a GPU holds so many bytes; any other device does."""
    if device.type != "cuda":
        return True
    return num_bytes <= int(torch.cuda.mem_get_info(device)[0]) // 2


@functools.cache
def find_hardware() -> Hardware:
    """Return what this machine has."""
    cuda = torch.version.hip is None
    found: tuple[Gpu, ...] = ()
    if torch.cuda.is_available():
        properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        found = tuple(Gpu(each.name, each.total_memory) for each in properties)
    others = () if cuda else tuple(f"{gpu.name} (AMD)" for gpu in found)
    if torch.backends.mps.is_available():
        others += ("Apple",)
    if torch.xpu.is_available():
        others += (f"{torch.xpu.get_device_name()} (Intel)",)
    return Hardware(found if cuda else (), _warp_version(), others, torch.version.cuda is not None)


def _local_rank() -> int:
    """Return the number of this process among those that torchrun started on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _warp_version() -> str | None:
    if importlib.util.find_spec("warp") is None:
        return None
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("warp-lang")
    except PackageNotFoundError:
        return "(unknown version)"
