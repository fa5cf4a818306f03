"""Time the rendering and the depth of Gaussians on a torus: projection, sorting, color, compositing.

OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/bench_splat_gaussians.py

500,000 flat Gaussians with spherical harmonics of degree 3 on a torus, a view of 400 × 400 pixels. Its depth is
compared with that of the mesh. CPU time on one thread; "mm" is one matrix product 2048³.
"""

import time
from collections.abc import Callable

import torch
from timing import machine, record

from unrender import (
    Camera,
    GaussianField,
    Gaussians,
    Mesh,
    measure_depth,
    quaternion_from_rotation,
    render_depth,
    sample_points_from_mesh,
    surface_area,
    torus,
)

COUNT, SIZE, WIDTH, OPACITY = 500_000, 400, 0.6, 0.9
"""WIDTH: standard deviation of a Gaussian, in mean distances between neighbors."""


def main() -> None:
    print(machine())
    matrix = torch.rand(2048, 2048)
    mesh = torus(1.0, 0.4, 128, 64)
    field = GaussianField(gaussians_on(mesh, COUNT))
    camera = Camera.look_at((1.5, 1.8, 2.4), fov_degrees=45.0, height=SIZE, width=SIZE)
    for name, work in {
        "view": lambda: field.render(camera),
        "depth": lambda: measure_depth(field, camera),
    }.items():
        took, product = cpu_seconds(work), cpu_seconds(lambda: matrix @ matrix)
        print(f"{name:6s} {took:6.3f} s of CPU time  {took / product:5.2f} mm")
        record(f"splat_gaussians/{name}", f"{took:.2f} s, where 1 mm took {1000 * product:.0f} ms")
    depth, truth = measure_depth(field, camera), render_depth(mesh, camera)
    both = depth.valid & (truth > 0)
    for kind in ("expected", "median", "first_surface"):
        error = (getattr(depth, f"{kind}_z") - truth)[both].abs()
        print(f"{kind:14s} median error {error.median():.5f}, mean {error.mean():.5f}, of a distance of 3.4")


def cpu_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest CPU time: on one thread, other programs on the machine hardly change it."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def gaussians_on(mesh: Mesh, count: int) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    samples = sample_points_from_mesh(mesh, count, generator=generator)
    across = torch.nn.functional.normalize(
        torch.linalg.cross(samples.normals, samples.normals.roll(1, -1) + 0.1), dim=-1
    )
    axes = torch.stack([across, torch.linalg.cross(samples.normals, across), samples.normals], -1)
    side = WIDTH * float(surface_area(mesh) / count) ** 0.5
    return Gaussians(
        samples.points,
        torch.tensor([side, side, side / 10]).expand(count, 3),
        quaternion_from_rotation(axes),
        torch.full((count,), OPACITY),
        0.3 * torch.randn(count, 16, 3, generator=generator),
    )


if __name__ == "__main__":
    main()
