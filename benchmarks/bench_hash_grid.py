"""Time the hash grid, forward and backward to the table, against the plain PyTorch reference.

python benchmarks/bench_hash_grid.py
"""

import os

import torch
from timing import machine, record, timed
from torch import Tensor

from unrender.kernels.hash_grid import HashLevels, hash_grid

POINTS = 200_000


Times = list[tuple[float, float]]


def main() -> None:
    print(machine())
    print(f"{POINTS:,} points, 2 features per level, resolutions 16 to 2048, ms (in matrix products 2048³)")
    print(f"{'levels':>7}{'entries':>9}{'points':>12}{'forward':>18}{'backward':>18}")
    for num_levels, largest in ((16, 19), (12, 17)):
        levels = HashLevels.geometric(16, 2048, num_levels, largest)
        table = (2e-4 * torch.rand(levels.num_entries, 2) - 1e-4).requires_grad_()
        for kind in ("at random", "along rays"):
            times = compare(positions(kind), table, levels, 7)
            print(f"{num_levels:7}{f'2^{largest}':>9}{kind:>12}{columns(times)}")
            if num_levels == 16:
                record(f"hash_grid/{kind}", ", ".join(f"{mm:.2f} mm" for _, mm in times))
    os.environ["UNRENDER_KERNELS"] = "reference"
    print(f"{'reference, last row':28}{columns(compare(positions('along rays'), table, levels, 1))}")


def compare(points: Tensor, table: Tensor, levels: HashLevels, repeats: int) -> Times:
    found = hash_grid(points, table, levels)
    upstream = torch.randn(found.shape[1], len(points)).mT

    def forward() -> None:
        with torch.no_grad():
            hash_grid(points, table, levels)

    def backward() -> None:
        torch.autograd.grad(found, table, upstream, retain_graph=True)

    return [timed(work, repeats) for work in (forward, backward)]


def columns(times: Times) -> str:
    return "".join(f"{ms:10.1f} ({mm:.2f})" for ms, mm in times)


def positions(kind: str) -> Tensor:
    """Return uniformly random points, or 48 on each of many rays in order, spaced as in training."""
    generator = torch.Generator().manual_seed(0)
    if kind == "at random":
        return torch.rand(POINTS, 3, generator=generator)
    rays = POINTS // 48 + 1
    directions = torch.nn.functional.normalize(torch.randn(rays, 1, 3, generator=generator), dim=-1)
    t = torch.arange(48)[:, None] * 3**0.5 / 512
    return (torch.rand(rays, 1, 3, generator=generator) + directions * t).view(-1, 3)[:POINTS].remainder(1)


if __name__ == "__main__":
    main()
