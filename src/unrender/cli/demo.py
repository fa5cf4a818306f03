"""unrender demo: every job on generated data."""

from pathlib import Path

import torch
from torch import Tensor

from unrender.cli import find_pose, fit_mesh, fit_volume
from unrender.cli.run_folder import open_run_folder
from unrender.geometry.camera import Camera, transform
from unrender.geometry.elephant import demo_object
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.io import save_cloud, save_image, save_mesh
from unrender.io.demo_scene import save_demo_scene
from unrender.render.lights import AmbientLight, DirectionalLight
from unrender.render.mesh import render_mesh
from unrender.tasks.fit_volume import FitVolume

NUM_POINTS = 20_000
NOISE = 0.002
"""Standard deviation of the scanner's error, in diagonals of the object's box."""
FOV_DEGREES = 45.0
PHOTO_SIZE = 128
VOLUME = FitVolume(resolution=96, steps=500, rays=16384)


def command(output: Path | None = None) -> None:
    """Scan a generated object and turn the points back into a mesh; photograph it, find the camera, and fit a volume.

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
    camera = Camera.look_at([-1.9, 1.4, 2.6], [0.1, 0.0, 0.2], fov_degrees=FOV_DEGREES, height=480, width=640)
    save_image(_photograph(truth.to(torch.float32), camera), folder / "photo.png")
    print(f"photographed it, with a field of view of {FOV_DEGREES:.0f}°; where did the camera stand?")
    lens = find_pose.PhotoFile(fov_degrees=FOV_DEGREES)
    find_pose.command(folder / "truth.ply", folder / "photo.png", photo=lens, output=folder / "pose-in-photo")
    save_cloud(PointCloud(_seen(scan, camera)), folder / "one_side.ply")
    print("scanned one side of it; how does it stand there?")
    find_pose.command(folder / "truth.ply", folder / "one_side.ply", output=folder / "pose-in-cloud")
    save_demo_scene(folder / "scene", size=PHOTO_SIZE)
    print(
        f"photographed it from all around, {PHOTO_SIZE} × {PHOTO_SIZE} pixels; what fills the room between?"
    )
    fit_volume.command(folder / "scene", VOLUME, output=folder / "volume")


def _scan(mesh: Mesh) -> PointCloud:
    generator = torch.Generator().manual_seed(0)
    samples = sample_points_from_mesh(mesh, NUM_POINTS, generator=generator)
    diagonal = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    noise = torch.randn(samples.points.shape, generator=generator) * NOISE * diagonal
    return PointCloud(samples.points + noise.to(samples.points.dtype))


def _photograph(mesh: Mesh, camera: Camera) -> Tensor:
    """Show the object in the sun, with nothing around it."""
    sun = (AmbientLight(0.3), DirectionalLight(torch.tensor([-0.6, 0.6, 0.5]), 0.7))
    photo = render_mesh(mesh, camera, lights=sun, background=None, supersampling=2)
    color = photo[..., :3] / photo[..., 3:].clamp(min=1e-3)
    return torch.cat([color, photo[..., 3:]], -1).clamp(0, 1)


def _seen(scan: PointCloud, camera: Camera) -> Tensor:
    """Keep the half of the points that is nearer to the camera, in its frame."""
    points = transform(camera.camera_from_world, scan.points.to(torch.float32))
    return points[points[:, 2] < points[:, 2].median()]
