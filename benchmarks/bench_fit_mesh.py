"""Fit meshes to clouds with a known surface, and compare with Open3D's Poisson reconstruction if it is installed.

python benchmarks/bench_fit_mesh.py [--clouds FOLDER | --mesh MESH [--points 10000000]]

FOLDER contains clouds NAME_KIND.xyz with their surfaces NAME_truth.ply, and other .xyz clouds, of which a tenth is held
out. A mesh is scanned with noise of 0.2 %. Without either, a torus and the demo object are scanned. Distances are in %
of the diagonal of the bounding box. Open3D uses the normals of the file, or estimates and orients them itself.
"""

import argparse
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from timing import machine

from unrender import FitMesh, Mesh, PointCloud, demo_object, fit_mesh, load_cloud, load_mesh, torus
from unrender.geometry.sample import sample_points_from_mesh
from unrender.tasks.mesh.measure_mesh import measure_mesh

HEADER = f"{'cloud':24}{'method':10}" + "".join(
    f"{name:>{width}}"
    for name, width in {
        "mesh→truth": 11,
        "truth→mesh": 11,
        "held out": 10,
        "genus": 7,
        "closed": 8,
        "s": 7,
    }.items()
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clouds", type=Path)
    parser.add_argument("--mesh", type=Path)
    parser.add_argument("--points", type=int, default=10_000_000)
    arguments = parser.parse_args()
    print(machine())
    print(HEADER)
    if arguments.mesh is not None:
        clouds = scans({arguments.mesh.stem: load_mesh(arguments.mesh)}, arguments.points, (0.002,))
    else:
        clouds = scans() if arguments.clouds is None else files(arguments.clouds)
    for name, cloud, truth in clouds:
        holdout = 0.1 if truth is None else 0.0
        begin = time.perf_counter()
        *_, last = fit_mesh(cloud, FitMesh(holdout=holdout))
        seconds = time.perf_counter() - begin
        is_held_out = torch.zeros(len(cloud.points), dtype=torch.bool)
        is_held_out[last.cloud.held_out] = True
        report(name, "unrender", last.result, cloud, is_held_out, truth, seconds)
        if importlib.util.find_spec("open3d"):
            begin = time.perf_counter()
            mesh = poisson(cloud, ~is_held_out)
            report(name, "Poisson", mesh, cloud, is_held_out, truth, time.perf_counter() - begin)


def files(folder: Path) -> Iterator[tuple[str, PointCloud, Mesh | None]]:
    for path in sorted(folder.rglob("*.xyz")):
        truth = path.with_name(path.stem.split("_")[0] + "_truth.ply")
        yield path.stem, load_cloud(path), load_mesh(truth) if truth.exists() else None


def scans(
    meshes: dict[str, Mesh] | None = None,
    count: int = 20_000,
    noises: tuple[float, ...] = (0.0, 0.002, 0.005),
) -> Iterator[tuple[str, PointCloud, Mesh | None]]:
    for name, mesh in (meshes or {"torus": torus(), "demo": demo_object()}).items():
        for noise in noises:
            generator = torch.Generator().manual_seed(0)
            points = sample_points_from_mesh(mesh, count, generator=generator).points.double()
            diagonal = (points.amax(0) - points.amin(0)).norm()
            noisy = points + noise * diagonal * torch.randn(
                points.shape, generator=generator, dtype=torch.float64
            )
            yield f"{name}, noise {100 * noise} %", PointCloud(noisy), mesh


def report(
    name: str,
    method: str,
    mesh: Mesh,
    cloud: PointCloud,
    is_held_out: torch.Tensor,
    truth: Mesh | None,
    seconds: float,
) -> None:
    held_out = cloud.points[is_held_out] if bool(is_held_out.any()) else None
    found = measure_mesh(mesh, cloud.points[~is_held_out], held_out=held_out, reference=truth)
    percent = 100 / float(found["diagonal"] or 1)
    cells = [
        found.get(key) for key in ("mesh_to_reference_mean", "reference_to_mesh_mean", "holdout_to_mesh_mean")
    ]
    distances = "".join(f"{'–' if cell is None else f'{cell * percent:.4f}':>11}" for cell in cells)
    genus = "–" if found["genus"] is None else found["genus"]
    print(
        f"{name:24}{method:10}{distances[:-11]}{distances[-10:]}{genus:>7}{found['watertight']!s:>8}{seconds:7.1f}"
    )


def poisson(cloud: PointCloud, use: torch.Tensor) -> Mesh:
    """Reconstruct with Open3D's Poisson surface at depth 9."""
    import open3d

    points = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud.points[use].double().numpy()))
    if cloud.normals is None:
        points.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(24))
        points.orient_normals_consistent_tangent_plane(24)
    else:
        points.normals = open3d.utility.Vector3dVector(cloud.normals[use].double().numpy())
    mesh, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(points, depth=9)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.triangles).astype(np.int64)
    return Mesh(torch.from_numpy(vertices.copy()), torch.from_numpy(faces))


if __name__ == "__main__":
    main()
