"""Estimate the pose of meshes in clouds without an initial guess: one-sided or full scans, 1 % noise, random poses.

python benchmarks/bench_find_pose_cloud.py [--meshes FOLDER] [--poses NUMBER]

Without a folder, the demo object is used. Success is a pose within 5 degrees and 2 % of the bounding box diagonal.
Symmetric objects have other equivalent poses, which count as failures.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from timing import machine
from torch import Tensor

from unrender import Camera, Mesh, demo_object, load_mesh, rasterize
from unrender.geometry.camera import rigid, transform
from unrender.geometry.rotations import random_rotations, rotation_angle
from unrender.geometry.sample import sample_points_from_mesh
from unrender.tasks.pose.cloud_alignment import align_point_cloud


class Scan(NamedTuple):
    name: str
    count: int
    clutter: float = 0.0
    """Fraction of the points that are uniform in the bounding box of the others."""
    from_one_side: bool = True


SCANS = [
    Scan("one side", 20_000),
    Scan("one side, few points", 2_000),
    Scan("one side, 10 % clutter", 2_000, clutter=0.1),
    Scan("all sides", 20_000, from_one_side=False),
]
NOISE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--meshes", type=Path)
    parser.add_argument("--poses", type=int, default=10)
    arguments = parser.parse_args()
    print(machine())
    print(f"{'mesh':16}{'scan':26}{'success':>8}{'degrees':>10}{'% diagonal':>12}{'s':>7}")
    for name, mesh in meshes(arguments.meshes):
        find(mesh, *take(mesh, SCANS[0], 0))  # warm-up: compiles
        for scan in SCANS:
            results = [find(mesh, *take(mesh, scan, seed)) for seed in range(arguments.poses)]
            fraction = statistics.mean(angle < 5 and shift < 2 for angle, shift, _ in results)
            angle, shift, took = (statistics.median(values) for values in zip(*results, strict=True))
            print(f"{name:16}{scan.name:26}{fraction:8.0%}{angle:10.2f}{shift:12.2f}{took:7.1f}", flush=True)


def meshes(folder: Path | None) -> Iterator[tuple[str, Mesh]]:
    if folder is None:
        yield "demo", in_unit_sphere(demo_object())
        return
    for path in sorted(path for kind in ("obj", "ply", "stl", "off") for path in folder.rglob(f"*.{kind}")):
        yield path.stem, in_unit_sphere(load_mesh(path))


def in_unit_sphere(mesh: Mesh) -> Mesh:
    vertices = mesh.vertices.float()
    vertices = vertices - (vertices.amin(0) + vertices.amax(0)) / 2
    return Mesh(vertices / vertices.norm(dim=1).max(), mesh.faces)


def take(mesh: Mesh, scan: Scan, seed: int) -> tuple[Tensor, Tensor]:
    """Return a cloud in its own frame, and the transform from the mesh frame to it."""
    generator = torch.Generator().manual_seed(seed)
    points = sample_points_from_mesh(mesh, 5 * scan.count, generator=generator).points
    if scan.from_one_side:
        points = points[is_visible(mesh, points, generator)]
    points = points[torch.randperm(len(points), generator=generator)[: scan.count]]
    points = points + NOISE * diagonal(mesh) * torch.randn(points.shape, generator=generator)
    low, high = points.amin(0), points.amax(0)
    num_clutter = round(scan.clutter * len(points))
    points[:num_clutter] = low + (high - low) * torch.rand(num_clutter, 3, generator=generator)
    rotation = random_rotations(1, generator=generator)[0]
    pose = rigid(rotation, 3 * torch.randn(3, generator=generator))
    return transform(pose, points), pose


def is_visible(mesh: Mesh, points: Tensor, generator: torch.Generator) -> Tensor:
    """Return which points are visible to a random camera at a distance of four radii, to 2 % of a radius."""
    eye = 4 * torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
    camera = Camera.look_at(eye, fov_degrees=32.0, height=256, width=256)
    depth = rasterize(mesh, camera, layers=1).depth[..., 0]
    column, row, distance = camera.project(points).unbind(-1)
    return distance < depth[row.long().clamp(0, 255), column.long().clamp(0, 255)] + 0.02


def find(mesh: Mesh, points: Tensor, pose: Tensor) -> tuple[float, float, float]:
    """Return the errors in degrees and in % of the diagonal, and the time in seconds."""
    begin = time.perf_counter()
    *_, (_, fit) = align_point_cloud(mesh, points, torch.Generator().manual_seed(0))
    took = time.perf_counter() - begin
    angle = rotation_angle(fit.poses[0, :3, :3], pose[:3, :3]).rad2deg()
    shift = 100 * (fit.poses[0, :3, 3] - pose[:3, 3]).norm() / diagonal(mesh)
    return float(angle), float(shift), took


def diagonal(mesh: Mesh) -> float:
    return float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())


if __name__ == "__main__":
    main()
