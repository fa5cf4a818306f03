"""unrender demo: every job on generated data."""

from pathlib import Path

import torch

from unrender.cli import fit_mesh
from unrender.cli.run_folder import open_run_folder
from unrender.geometry.elephant import demo_object
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.io import save_cloud, save_mesh

NUM_POINTS = 20_000
NOISE = 0.002
"""Standard deviation of the scanner's error, in diagonals of the object's box."""


def command(output: Path | None = None) -> None:
    """Scan a generated object with a noisy imaginary scanner, and turn the points back into a mesh.

    Args:
        output: Folder for the results. By default runs/demo/TIME.
    """
    folder = open_run_folder("demo", "scan", output)
    truth = demo_object()
    scan = _scan(truth)
    save_mesh(truth, folder / "truth.ply")
    save_cloud(scan, folder / "scan.ply")
    print(f"scanned the demo object: {len(scan.points):,} points with {100 * NOISE} % noise")
    fit_mesh.command(folder / "scan.ply", output=folder / "fit-mesh", reference=folder / "truth.ply")


def _scan(mesh: Mesh) -> PointCloud:
    generator = torch.Generator().manual_seed(0)
    samples = sample_points_from_mesh(mesh, NUM_POINTS, generator=generator)
    diagonal = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    noise = torch.randn(samples.points.shape, generator=generator) * NOISE * diagonal
    return PointCloud(samples.points + noise.to(samples.points.dtype))
