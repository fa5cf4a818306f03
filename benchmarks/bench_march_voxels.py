"""Time sparse-voxel ray marching, forward and backward, on a shell that resembles the surfaces of a scene.

python benchmarks/bench_march_voxels.py

A shell six voxels thick in a grid of 256³, spherical harmonics of degree 2, 131,072 rays in patches of 4 × 4 pixels of
random cameras, one sample per voxel. "Evaluated" samples had their density read; "contributing" ones have a weight
above 1e-4, so their 27 color coefficients are read and receive gradients. "mm" is one matrix product 2048³.
"""

import torch
from timing import machine, record, timed
from torch import Tensor
from torch.nn.functional import normalize

from unrender import Rays, SceneBox, SparseVoxels

SIZE, SHELL, THICKNESS = 256, 0.4, 3.0
PATCHES, SIDE = 8192, 4
SPREAD = 0.0015
"""Angle between neighboring pixels in radians: 400 of them are 34 degrees."""
SKIP, STOP = 1e-4, 1e-3


def main() -> None:
    print(machine())
    field, rays = shell(), ray_patches()
    counts = count_samples(field, rays)
    march = lambda: field.march(rays, skip=SKIP, stop=STOP)  # noqa: E731
    with torch.no_grad():
        forward, mm = timed(march)
    print(f"forward                {forward:6.0f} ms  {mm:5.2f} mm")

    def both() -> None:
        rendered = march()
        (rendered.color.sum() + rendered.opacity.sum()).backward()
        field.zero_grad()

    total, mm = timed(both)
    print(f"forward and backward   {total:6.0f} ms  {mm:5.2f} mm")
    for name, count in counts.items():
        print(f"{name:12s} {count / 1e6:6.2f} million samples: {count / total / 1e3:.1f} million per second")
    rate = counts["evaluated"] / total / 1e3
    record("march_voxels", f"{rate:.1f} million, where 1 mm took {total / mm:.0f} ms")


def shell() -> SparseVoxels:
    axis = (torch.arange(SIZE) + 0.5 - SIZE / 2).square()
    radius = (axis[:, None, None] + axis[:, None] + axis).sqrt()
    box = SceneBox.cube(torch.full((3,), SIZE / 2), SIZE / 2)
    field = SparseVoxels.from_mask((radius - SHELL * SIZE).abs() < THICKNESS, box)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        inside = (field.table.corner_positions - SIZE / 2).norm(dim=-1) < SHELL * SIZE
        noise = 0.1 * torch.randn(len(inside), generator=generator)
        field.log_density.copy_(torch.where(inside, 0.0, -12.0) + noise)
        field.harmonics.copy_(0.1 * torch.randn(field.harmonics.shape, generator=generator))
    return field


def ray_patches() -> Rays:
    """Return rays from random positions towards random points of the ball that the shell encloses."""
    generator = torch.Generator().manual_seed(1)
    eyes = 1.5 * SIZE * normalize(torch.randn(PATCHES, 3, generator=generator), dim=-1)
    targets = SHELL * SIZE * (2 * torch.rand(PATCHES, 3, generator=generator) - 1)
    forward = normalize(targets - eyes, dim=-1)
    right = normalize(torch.linalg.cross(forward, torch.tensor([[0.0, 0.0, 1.0]])), dim=-1)
    down = torch.linalg.cross(forward, right)
    steps = SPREAD * torch.arange(SIDE)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    directions = forward[:, None] + x.reshape(-1, 1) * right[:, None] + y.reshape(-1, 1) * down[:, None]
    origins = (eyes + SIZE / 2)[:, None].expand_as(directions)
    return Rays(origins.reshape(-1, 3), normalize(directions, dim=-1).reshape(-1, 3))


def count_samples(field: SparseVoxels, rays: Rays) -> dict[str, int]:
    """Count the samples of every ray, step by step."""
    near, far = field.scene_box.intersect(rays)
    t, left = near + 0.5, torch.ones_like(near)
    evaluated = contributing = 0
    while bool((going := (t < far) & (left > STOP)).any()):
        points = rays.origins + t[:, None] * rays.directions
        density = torch.zeros_like(near)
        density[going] = field(points[going], rays.directions[going])[0].detach()
        weight = left * -torch.expm1(-density)
        counts: Tensor = weight >= SKIP
        evaluated += int((density > 0).sum())
        contributing += int(counts.sum())
        left = left - torch.where(counts, weight, 0)
        t = t + 1
    return {"evaluated": evaluated, "contributing": contributing}


if __name__ == "__main__":
    main()
