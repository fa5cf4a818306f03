"""Time nearest neighbors, chamfer distance and one step of a standard mesh fit, against PyTorch3D.

python benchmarks/bench_nearest.py [--largest 1000000]

The PyTorch3D 0.7.9 figures (C++ CPU build, 2 threads) are from a machine where one matrix product 2048³ ("mm") took
111 ms: both are compared in mm, ours measured in the same run.
"""

import argparse
import resource

import torch
from timing import machine, record, seconds, timed

from unrender import (
    chamfer_distance,
    ico_sphere,
    index_points,
    mesh_edge_loss,
    mesh_laplacian_smoothing,
    mesh_normal_consistency,
    nearest,
    sample_points_from_mesh,
)

PYTORCH3D_MM = 111.0
PYTORCH3D_CHAMFER = {1_000: 23.0, 5_000: 489.0, 20_000: 10_200.0}
TARGETS = {1_000: 10, 5_000: 50, 20_000: 300}
PYTORCH3D_STEP = 550.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--largest", type=int, default=1_000_000)
    largest = parser.parse_args().largest
    print(machine())
    print(
        f"\n{'chamfer, forward + backward':36}{'ms':>8}{'mm':>8}{'PyTorch3D':>11}{'speed-up':>9}{'target':>7}"
    )
    for count, theirs in PYTORCH3D_CHAMFER.items():
        x, y = cloud(count, 0).requires_grad_(), cloud(count, 1)
        faster = row(f"{count:,} points per cloud", lambda x=x, y=y: chamfer(x, y), theirs, TARGETS[count])
        record(f"nearest/chamfer {count}", f"{faster:.0f} times as fast")
    step = tutorial_step()
    row("one mesh-fit step, 5,000 samples", step, PYTORCH3D_STEP, None)
    print(f"\n{'nearest, incl. index, both directions':36}{'s':>8}{'µs/point':>12}")
    for count in (10_000, 100_000, 1_000_000, 10_000_000):
        if count <= largest:
            x, y = cloud(count, 0), cloud(count, 1)
            both_directions(x, y)
            took = seconds(lambda x=x, y=y: both_directions(x, y))
            print(f"{count:<36,}{took:8.3f}{1e6 * took / count:12.2f}")
            record(f"nearest/{count}", f"{took:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"peak memory of this process: {peak:.2f} GiB")


def row(name: str, work: object, theirs: float, target: int | None) -> float:
    milliseconds, products = timed(work)
    faster = theirs / PYTORCH3D_MM / products
    print(
        f"{name:36}{milliseconds:8.1f}{products:8.3f}{theirs / PYTORCH3D_MM:11.2f}{faster:8.0f}×{target or '':>7}"
    )
    return faster


def cloud(count: int, seed: int) -> torch.Tensor:
    """Return random points in the unit cube."""
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))


def chamfer(x: torch.Tensor, y: torch.Tensor) -> None:
    chamfer_distance(x, y).distance.backward()


def both_directions(x: torch.Tensor, y: torch.Tensor) -> None:
    a, b = index_points(x), index_points(y)
    nearest(a, b)
    nearest(b, a)


def tutorial_step() -> object:
    """Deform a sphere of 2,562 vertices: 5,000 samples against 5,000 points, four losses, one step of SGD."""
    sphere = ico_sphere(4)
    offsets = torch.zeros_like(sphere.vertices, requires_grad=True)
    optimizer = torch.optim.SGD([offsets], lr=1.0, momentum=0.9)
    target = index_points(
        torch.nn.functional.normalize(cloud(5_000, 2) - 0.5, dim=1) * torch.tensor([1.0, 0.6, 0.8])
    )

    def step() -> None:
        optimizer.zero_grad()
        mesh = sphere.replace(vertices=sphere.vertices + offsets)
        loss = (
            chamfer_distance(sample_points_from_mesh(mesh, 5_000).points, target).distance
            + mesh_edge_loss(mesh)
            + 0.01 * mesh_normal_consistency(mesh)
            + 0.1 * mesh_laplacian_smoothing(mesh)
        )
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
