"""unrender doctor: versions, hardware, and a check of the kernels."""

import importlib.metadata
import os
import platform
import time

from unrender.devices import Hardware


def command() -> None:
    """Show versions, hardware and threads, and check that the compiled kernels work."""
    import torch

    from unrender._version import __version__
    from unrender.devices import find_hardware
    from unrender.kernels._dispatch import implementation

    print(f"unrender  {__version__}")
    print(f"python    {platform.python_version()} on {platform.platform()}")
    print(f"processor {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in use")
    for package in ("torch", "numpy", "numba", "warp-lang", "scipy", "trimesh", "scikit-image"):
        print(f"{package:9s} {_version(package)}")
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
