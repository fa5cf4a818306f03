"""unrender doctor: versions, hardware, and a check of the kernels."""

import importlib.metadata
import os
import platform
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from unrender._version import __version__
from unrender._wording import counted
from unrender.devices import Hardware
from unrender.workers import current_workers

PACKAGES = ("torch", "numpy", "numba", "warp-lang", "scipy", "trimesh", "scikit-image")


def command() -> None:
    """Show versions, hardware and threads, and check that the compiled kernels work.

    Under torchrun, list the workers and their differences.
    """
    import torch

    from unrender.devices import find_hardware
    from unrender.kernels._dispatch import implementation

    print(f"unrender  {__version__}")
    print(f"python    {platform.python_version()} on {platform.platform()}")
    print(f"processor {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in use")
    for package in PACKAGES:
        print(f"{package:9s} {_version(package)}")
    workers = current_workers()
    if workers.count > 1:
        print("\n".join(describe_workers(workers.gather(_this_worker()))))
    if not workers.is_first:
        return
    matrix = torch.rand(2048, 2048)
    matrix @ matrix
    start = time.perf_counter()
    matrix @ matrix
    print(f"speed     a float32 matrix product 2048³ takes {1000 * (time.perf_counter() - start):.0f} ms")
    for line in describe_gpus(find_hardware()):
        print(line)
    fast = implementation("nearest", torch.device("cpu")) is not None
    print(
        f"kernels   {'compiled for this processor' if fast else 'plain torch: UNRENDER_KERNELS=reference is set'}"
    )
    start = time.perf_counter()
    from unrender.kernels.nearest import nearest

    points = torch.rand(20_000, 3)
    nearest(points, points)
    start = time.perf_counter()
    nearest(points, points)
    print(f"check     nearest points, 20,000 against 20,000: {1000 * (time.perf_counter() - start):.0f} ms")


class WorkerSetup(NamedTuple):
    """What a worker computes with."""

    host: str
    device: str
    """That `--device auto` stands for."""
    threads: int
    versions: dict[str, str]
    """Of packages and of what else should be the same on all workers."""


def describe_workers(workers: Sequence[WorkerSetup]) -> list[str]:
    """List workers, by rank, and how they differ."""
    lines = [
        f"worker {rank:<2d} {worker.host}, {worker.device}, {counted(worker.threads, 'thread')}"
        for rank, worker in enumerate(workers)
    ]
    differences = []
    for name in dict.fromkeys(name for worker in workers for name in worker.versions):
        ranks: dict[str, list[str]] = {}
        for rank, worker in enumerate(workers):
            ranks.setdefault(worker.versions.get(name, "missing"), []).append(str(rank))
        if len(ranks) > 1:
            found = "; ".join(f"{version} on {', '.join(own)}" for version, own in ranks.items())
            differences.append(f"differ    {name}: {found}")
    return [*lines, *(differences or ["workers   have the same versions and the same kind of device"])]


def _this_worker() -> WorkerSetup:
    import torch

    from unrender.devices import find_hardware

    device, reason = find_hardware().automatic()
    versions = {"unrender": __version__, "python": platform.python_version()}
    versions |= {package: _version(package) for package in PACKAGES}
    versions |= {"processor": processor(), "device": reason if device.type == "cuda" else device.type}
    return WorkerSetup(socket.gethostname(), str(device), torch.get_num_threads(), versions)


def describe_gpus(hardware: Hardware) -> list[str]:
    """List the GPUs, and the device that `--device auto` stands for, with the reason."""
    lines = [
        f"gpu       cuda:{index}, {gpu.name}, {gpu.memory / 2**30:.0f} GiB"
        for index, gpu in enumerate(hardware.gpus)
    ]
    lines += [
        f"gpu       {name}: no fast kernels; tensors there run the plain torch reference, with a warning"
        for name in hardware.others
    ]
    device, reason = hardware.automatic()
    return [
        *(lines or ["gpu       none that torch can use; none is needed"]),
        f"device    auto is {device}: {reason}",
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def processor() -> str:
    """Return the model name of the processor, if the system reports it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
