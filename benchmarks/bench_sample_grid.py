"""Time trilinear grid sampling, forward and backward to grid and points, against torch's `grid_sample`.

python benchmarks/bench_sample_grid.py
"""

import statistics

import torch
from timing import machine, record, seconds
from torch import Tensor

from unrender.kernels.sample_grid import sample_grid

SIZE, POINTS = 128, 1_000_000


def main(repeats: int = 3) -> None:
    print(machine())
    print(f"{POINTS:,} points in {SIZE}³ voxels, forward + backward, ms")
    print(f"{'channels':>8}{'points':>12}{'grid_sample':>13}{'kernel':>10}{'speed-up':>9}")
    for channels in (1, 3, 4):
        for kind in ("at random", "along rays"):
            grid = torch.rand(SIZE, SIZE, SIZE, channels, requires_grad=True)
            points = positions(kind).requires_grad_()
            upstream = torch.rand(POINTS, channels)

            def ours(grid: Tensor = grid, points: Tensor = points, upstream: Tensor = upstream) -> None:
                torch.autograd.grad(sample_grid(grid, points), [grid, points], upstream)

            theirs = grid.detach().movedim(-1, 0)[None].contiguous().requires_grad_()

            def torchs(theirs: Tensor = theirs, points: Tensor = points, upstream: Tensor = upstream) -> None:
                normalized = (2 * points / SIZE - 1)[None, :, None, None]
                found = torch.nn.functional.grid_sample(theirs, normalized, align_corners=False)
                torch.autograd.grad(found[0, :, :, 0, 0].mT, [theirs, points], upstream)

            ours()
            times = [(seconds(torchs), seconds(ours)) for _ in range(repeats)]
            slow, fast = (1000 * statistics.median(column) for column in zip(*times, strict=True))
            print(f"{channels:8}{kind:>12}{slow:13.0f}{fast:10.0f}{slow / fast:8.1f}×")
            if channels == 4 and kind == "along rays":
                record("sample_grid", f"{slow / fast:.1f} times as fast")


def positions(kind: str) -> Tensor:
    """Return uniformly random points, or 100 on each of many parallel rays, in order."""
    generator = torch.Generator().manual_seed(0)
    if kind == "at random":
        return SIZE * torch.rand(POINTS, 3, generator=generator)
    side = round((POINTS / 100) ** 0.5)
    y, x, t = torch.meshgrid(torch.arange(side), torch.arange(side), torch.arange(100), indexing="ij")
    return torch.stack([x * SIZE / side, y * SIZE / side, t * SIZE / 100 + 0.1 * x], -1).view(-1, 3) + 0.3


if __name__ == "__main__":
    main()
