"""Time emission-absorption compositing, forward and backward, against the plain PyTorch reference.

python benchmarks/bench_composite.py
"""

import os
import statistics

import torch
from timing import machine, record, seconds

from unrender.kernels.composite import composite

RAYS, SAMPLES = 65_536, 128


def main() -> None:
    print(machine())
    print(f"{RAYS:,} rays of {SAMPLES} samples, forward + backward, ms")
    print(f"{'gradients to':24}{'reference':>12}{'kernel':>10}{'speed-up':>9}")
    compare("density", has_color=False)
    compare("density and color", has_color=True)


def compare(name: str, has_color: bool, repeats: int = 5) -> None:
    """Time reference and kernel; the first run of each, which compiles, is excluded."""
    generator = torch.Generator().manual_seed(0)
    density = 2 * torch.rand(RAYS, SAMPLES, generator=generator)
    lengths = 0.05 * torch.rand(RAYS, SAMPLES, generator=generator)
    color = torch.rand(RAYS, SAMPLES, 3, generator=generator) if has_color else None
    leaves = [tensor.requires_grad_() for tensor in (density, color) if tensor is not None]

    def step(kernels: str) -> None:
        os.environ["UNRENDER_KERNELS"] = kernels
        rendered = composite(density, lengths, color)
        result = rendered.opacity.sum()
        if rendered.color is not None:
            result = result + rendered.color.square().sum()
        torch.autograd.grad(result, leaves)

    reference, fast = (
        1000 * statistics.median([seconds(lambda k=kernels: step(k)) for _ in range(repeats + 1)][1:])
        for kernels in ("reference", "fast")
    )
    print(f"{name:24}{reference:12.0f}{fast:10.0f}{reference / fast:8.1f}×")
    key = "composite/color" if has_color else "composite/density"
    record(key, f"{reference / fast:.1f} times as fast ({fast:.0f} ms)")


if __name__ == "__main__":
    main()
