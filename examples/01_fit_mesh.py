"""Fit a mesh to a noisy scan, and render the scan, the fit and the ground truth side by side.

python examples/01_fit_mesh.py [FOLDER] writes mesh.ply and image.png to FOLDER, by default a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

import unrender

NUM_POINTS = 20_000
NOISE = 0.002
"""Standard deviation of the scanner noise, as a fraction of the bounding box diagonal."""
SIZE = 384


def main(folder: Path) -> None:
    """Scan, fit, compare."""
    truth = unrender.demo_object()
    diagonal = (truth.vertices.amax(0) - truth.vertices.amin(0)).norm()
    generator = torch.Generator().manual_seed(0)
    samples = unrender.sample_points_from_mesh(truth, NUM_POINTS, generator=generator).points
    scan = unrender.PointCloud(
        samples + NOISE * diagonal * torch.randn(samples.shape, generator=generator, dtype=samples.dtype)
    )

    for step in unrender.fit_mesh(scan, unrender.FitMesh(edge_length=0.02 * float(diagonal))):
        print(f"\r{step.stage:6s} step {step.index:3d}", end="", flush=True)
    mesh = step.result

    metrics = unrender.measure_mesh(mesh, scan.points, reference=truth)
    noise = unrender.measure_mesh(truth, scan.points)["cloud_to_mesh_mean"]
    percent = 100 / float(diagonal)
    print("\nmean distance to the true surface, in % of the diagonal:")
    print(f"points {percent * noise:.3f}, mesh {percent * metrics['mesh_to_reference_mean']:.3f}")

    camera = unrender.Camera.look_at([1.6, 1.0, 2.2], fov_degrees=40.0, height=SIZE, width=SIZE)
    images = [
        unrender.render_points(scan, camera, radius=1.0),
        unrender.render_mesh(mesh.to(torch.float32), camera, supersampling=2),
        unrender.render_mesh(truth, camera, supersampling=2),
    ]
    side_by_side = torch.cat([image.float() for image in images], 1).clamp(0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * side_by_side).byte().numpy()).save(folder / "image.png")
    unrender.save_mesh(mesh, folder / "mesh.ply")
    print(folder / "image.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
