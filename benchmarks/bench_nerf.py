"""Time a training step of the NeRF paper model: 1,024 rays, 64 coarse and 64 + 128 fine samples per ray, and Adam.

python benchmarks/bench_nerf.py [--rays 1024] [--repeats 5]

The arithmetic of the layers (forward, and twice as much backward) is compared with a float32 matrix product 2048³
("mm") timed in alternation: the fraction of mm is the part of the time that no implementation could avoid.
"Eager" is the fine network alone, forward and backward, with all points in one tensor, as in typical PyTorch code.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from timing import machine, record, seconds
from torch import nn
from torch.nn.functional import normalize

from unrender import Rays, SceneBox
from unrender.fields.nerf import NeRF

SAMPLES = 64 + 192
MM_OPERATIONS = 2 * 2048**3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rays", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    field = NeRF.paper(SceneBox.cube(torch.zeros(3), 1.0), generator=torch.Generator().manual_seed(0))
    rays = rays_inwards(options.rays)
    optimizer = torch.optim.Adam(field.parameters(), lr=5e-4)
    generator = torch.Generator().manual_seed(1)

    def step() -> None:
        coarse, fine = field.training_outputs(rays, generator)
        loss = (coarse.color - 0.5).square().mean() + (fine.color - 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def eager() -> None:
        density, color = field.fine_network(points, directions)
        (density.sum() + color.sum()).backward()

    points = 2 * torch.rand(64 * options.rays, 3) - 1
    directions = normalize(torch.randn_like(points), dim=-1)
    macs = multiplications(field.fine_network)
    fraction = report("step", step, 6 * macs * SAMPLES * options.rays, options.repeats)
    record("nerf/step", f"{fraction:.0%}")
    report("eager", eager, 6 * macs * len(points), options.repeats)


def report(name: str, work: Callable[[], None], operations: float, repeats: int) -> float:
    matrix, times, products = torch.rand(2048, 2048), [], []
    work()
    for _ in range(repeats):
        products.append(seconds(lambda: matrix @ matrix))
        times.append(seconds(work))
    spent, mm = statistics.median(times), statistics.median(products)
    fraction = operations / spent / (MM_OPERATIONS / mm)
    print(
        f"{name:6s} {spent:6.2f} s, {operations / spent / 1e9:4.0f} GFLOP/s, {fraction:.0%} of mm ({1000 * mm:.0f} ms)"
    )
    return fraction


def multiplications(network: nn.Module) -> int:
    """Count the multiplications for one point."""
    return sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, nn.Linear))


def rays_inwards(count: int) -> Rays:
    """Return rays from a sphere around the cube towards random points inside: all of them hit."""
    generator = torch.Generator().manual_seed(2)
    origins = 4 * normalize(torch.randn(count, 3, generator=generator), dim=-1)
    targets = torch.rand(count, 3, generator=generator) - 0.5
    return Rays(origins, normalize(targets - origins, dim=-1))


if __name__ == "__main__":
    main()
