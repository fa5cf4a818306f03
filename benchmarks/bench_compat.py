"""Time one step of each of the four PyTorch3D tutorials, through the compatibility layer, at full size; and points.

python benchmarks/bench_compat.py ../shared/data [--programs deform_sphere simple_nerf points] [--steps 5]

"mm" is a float32 matrix product 2048³, timed in alternation with the steps. The PyTorch3D 0.7.9 figures (C++ CPU build,
2 threads) are from a machine where mm took 111 ms; the speed-up compares both in mm.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the runner of scripts does; read when torch is loaded
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import argparse
import importlib
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import machine, record, seconds

import unrender.compat.pytorch3d

PROGRAMS = Path(__file__).parents[1] / "tests/compat/programs"
PYTORCH3D_MM = 0.111
PYTORCH3D = {"deform_sphere": 0.044, "camera_position": 19.2, "fit_volume": 15.5, "simple_nerf": 25.7}
INPUTS = {
    "deform_sphere": {"cloud": "clouds/pedestrian.ply"},
    "camera_position": {"mesh": "meshes/teapot.obj"},
    "fit_volume": {"mesh": "meshes/cow/cow.obj"},
    "simple_nerf": {"mesh": "meshes/cow/cow.obj"},
}
POINTS, SIZE, RADIUS, DEPTH = 100_000, 256, 0.01, 8
"""Point rendering: points in a ball, size of the image, radius in NDC, points per pixel."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--programs", nargs="*", choices=[*PYTORCH3D, "points"], default=[*PYTORCH3D, "points"]
    )
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    unrender.compat.pytorch3d.install()
    sys.path.insert(0, str(PROGRAMS))
    for name in options.programs:
        if name == "points":
            report_points(options.steps)
            continue
        given = {key: str(options.data / path) for key, path in INPUTS[name].items()}
        torch.manual_seed(0)
        step, _ = importlib.import_module(name).prepare(**given)
        report(name, step, options.steps)


def report_points(count: int) -> None:
    """Time `PointsRenderer`, forward and backward."""
    renderer = importlib.import_module("pytorch3d.renderer")
    torch.manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(POINTS, 3), dim=1) * torch.rand(POINTS, 1) ** (1 / 3)
    points, colors = points.requires_grad_(), torch.rand(POINTS, 3, requires_grad=True)
    cameras = renderer.FoVPerspectiveCameras(R=torch.eye(3)[None], T=torch.tensor([[0.0, 0.0, 2.7]]))
    settings = renderer.PointsRasterizationSettings(
        image_size=SIZE, radius=RADIUS, points_per_pixel=DEPTH, bin_size=0
    )
    render = renderer.PointsRenderer(
        rasterizer=renderer.PointsRasterizer(cameras=cameras, raster_settings=settings),
        compositor=renderer.AlphaCompositor(),
    )
    clouds = importlib.import_module("pytorch3d.structures").Pointclouds

    def step() -> float:
        points.grad = colors.grad = None
        loss = render(clouds([points], features=[colors])).square().mean()
        loss.backward()
        return loss.item()

    ours, mm = medians(step, count)
    print(f"points: {1000 * ours:.0f} ms, {ours / mm:.2f} mm forward + backward", flush=True)
    record("compat/points", f"{ours / mm:.2f} mm")


def medians(step: Callable[[], float], count: int) -> tuple[float, float]:
    """Return the time of a step, and of a matrix product, in seconds."""
    step()  # warm-up: compiles kernels, allocates memory
    matrix = torch.rand(2048, 2048)
    products, times = [], []
    for _ in range(count):
        products.append(seconds(lambda: matrix @ matrix))
        times.append(seconds(step))
    return statistics.median(times), statistics.median(products)


def report(name: str, step: Callable[[], float], count: int) -> None:
    ours, mm = medians(step, count)
    theirs = PYTORCH3D[name] / PYTORCH3D_MM
    print(
        f"{name}: {1000 * ours:.0f} ms, {ours / mm:.2f} mm per step; PyTorch3D {1000 * PYTORCH3D[name]:.0f} ms, "
        f"{theirs:.1f} mm: {theirs * mm / ours:.1f} times as fast",
        flush=True,
    )
    record(f"compat/{name}", f"{theirs * mm / ours:.1f} times as fast")


if __name__ == "__main__":
    main()
