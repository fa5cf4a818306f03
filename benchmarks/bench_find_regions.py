"""Find the flat regions of random parts with known faces, as meshes and as point clouds, exact and noisy.

python benchmarks/bench_find_regions.py [--parts NUMBER]

Parts are extruded random outlines on a grid, some with holes, and prisms, all in random poses. A face counts as found
if its area is within 5 % and its normal within 2 degrees. Faces from 1.5 % of the surface on are counted.
"""

import argparse
import math
import time
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from timing import machine

from unrender import FindRegions, Mesh, PointCloud, find_regions
from unrender.geometry.rotations import random_rotations

MIN_FRACTION, NOISE, POINTS = 0.015, 0.003, 40_000


class Face(NamedTuple):
    area: float
    normal: np.ndarray


def main() -> None:
    """Print a row for each kind of input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=12)
    count = parser.parse_args().parts
    print(machine())
    print(f"{count} parts, noise {100 * NOISE:g} % of the diagonal, {POINTS:,} points")
    print("input            noise  faces  found  worst area  worst normal  seconds")
    for kind in ("mesh", "cloud, normals", "cloud"):
        for noise in (0.0, NOISE):
            generator = torch.Generator().manual_seed(1)
            rows = [measure(part, kind, noise, generator) for part in parts(count)]
            faces = sum(row[0] for row in rows)
            errors = np.array([error for row in rows for error in row[1]])
            is_found = (errors[:, 0] <= 0.05) & (errors[:, 1] <= 2)
            seconds = np.mean([row[2] for row in rows])
            print(
                f"{kind:16s} {noise:5.3f} {faces:6d} {100 * is_found.sum() / faces:5.1f} % "
                f"{100 * errors[:, 0].max():9.1f} % {errors[:, 1].max():11.2f} ° {seconds:8.2f}"
            )


def parts(count: int) -> list[trimesh.Trimesh]:
    """Return random parts, each with its own proportions."""
    random = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        part = prism(random) if index % 3 == 2 else extrusion(random)
        rotation = np.eye(4)
        rotation[:3, :3] = random_rotations(1, generator=generator)[0].numpy()
        found.append(part.apply_transform(rotation))
    return found


def prism(random: np.random.Generator) -> trimesh.Trimesh:
    """Return a regular prism of 3 to 8 sides."""
    sides = int(random.integers(3, 9))
    return trimesh.creation.cylinder(radius=1, height=random.uniform(0.5, 2), sections=sides)


def extrusion(random: np.random.Generator) -> trimesh.Trimesh:
    """Extrude a connected random set of cells of a 4 × 4 grid with uneven lines."""
    xs, ys = (np.cumsum([0, *random.uniform(0.4, 1.2, 4)]) for _ in range(2))
    height = random.uniform(0.3, 1.0)
    filled = {(0, 0)}
    while len(filled) < 9 or touch_at_corners(filled):
        i, j = random.integers(0, 4, 2)
        if {(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)} & filled:
            filled.add((int(i), int(j)))
    quads = []
    for i, j in filled:
        a, b, c, d = (xs[i], ys[j]), (xs[i + 1], ys[j]), (xs[i + 1], ys[j + 1]), (xs[i], ys[j + 1])
        quads.append([(*p, height) for p in (a, b, c, d)])
        quads.append([(*p, 0) for p in (d, c, b, a)])
        sides = {(i, j - 1): (a, b), (i + 1, j): (b, c), (i, j + 1): (c, d), (i - 1, j): (d, a)}
        for neighbor, (p, q) in sides.items():
            if neighbor not in filled:
                quads.append([(*p, 0), (*q, 0), (*q, height), (*p, height)])
    corners = np.array(quads, float).reshape(-1, 3)
    first = np.arange(0, len(corners), 4)[:, None]
    faces = np.concatenate([first + np.array(triangle) for triangle in ([0, 1, 2], [0, 2, 3])])
    return trimesh.Trimesh(corners, faces)


def touch_at_corners(filled: set[tuple[int, int]]) -> bool:
    """Return whether cells touch at a corner only: then it depends on the point of view whether faces are connected."""
    return any(
        (i + 1, j + step) in filled and not {(i + 1, j), (i, j + step)} & filled
        for i, j in filled
        for step in (-1, 1)
    )


def measure(
    part: trimesh.Trimesh, kind: str, noise: float, generator: torch.Generator
) -> tuple[int, list[tuple[float, float]], float]:
    """Return the number of faces, the errors of the area and of the normal in degrees of each, and the seconds."""
    faces = [Face(a, n) for a, n in zip(part.facets_area, part.facets_normal, strict=True)]
    faces = [face for face in faces if face.area >= MIN_FRACTION * part.area]
    surface = as_surface(part, kind, noise * float(np.linalg.norm(part.extents)), generator)
    begin = time.perf_counter()
    regions = list(find_regions(surface, FindRegions(max_points=POINTS)).regions)
    seconds = time.perf_counter() - begin
    errors = []
    for face in sorted(faces, key=lambda face: -face.area):
        angles = [math.degrees(math.acos(max(-1, min(1, float(r.normal @ face.normal))))) for r in regions]
        areas = [abs(region.area / face.area - 1) for region in regions]
        best = min(range(len(regions)), key=lambda n: areas[n] + angles[n], default=None)
        errors.append((1.0, 180.0) if best is None else (areas[best], angles[best]))
        if best is not None:
            del regions[best]
    return len(faces), errors, seconds


def as_surface(
    part: trimesh.Trimesh, kind: str, noise: float, generator: torch.Generator
) -> Mesh | PointCloud:
    """Return a part as a mesh or as a point cloud, with noise of a standard deviation."""
    if kind == "mesh":
        if noise:  # vertices as far apart as the points of a scan
            part = part.subdivide_to_size(math.sqrt(part.area / POINTS) * 2)
            part.merge_vertices()
        vertices = torch.from_numpy(part.vertices.copy())
        moved = vertices + noise * torch.randn(vertices.shape, generator=generator, dtype=torch.float64)
        return Mesh(moved, torch.from_numpy(part.faces.copy()))
    points, ids = trimesh.sample.sample_surface(part, POINTS, seed=3)
    points = torch.from_numpy(np.asarray(points))
    points = points + noise * torch.randn(points.shape, generator=generator, dtype=torch.float64)
    return PointCloud(points, torch.from_numpy(part.face_normals[ids]) if kind == "cloud, normals" else None)


if __name__ == "__main__":
    main()
