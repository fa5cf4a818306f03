"""Compute depth maps of a fitted volume, and convert them to points and a mesh.

The scene is generated, so the ground truth is known: the example prints the errors of three kinds of depth, and the
accuracy of pixels with high confidence.

python examples/07_depth.py [FOLDER] writes the scene, the depth maps, mesh.ply and image.png to FOLDER, by default a
temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender
from unrender import DepthView


def main(folder: Path) -> None:
    """Show a held-out view of the volume, its depth, its confidence, and the TSDF-fused mesh."""
    scene = unrender.save_demo_scene(folder / "scene", size=96, num_train=24, num_test=4)
    *_, last = unrender.fit_volume(
        scene, unrender.FitVolume(resolution=64, steps=400, rays=8192, depth_loss_weight=0.0)
    )
    field = last.result
    for name, value in unrender.evaluate_depth(field, scene.split("test")).items():
        if name.endswith(("/mae", "/consistency")):
            print(f"{name:32s}{value:.4f}")

    frame = scene.split("test")[0]
    depth, truth = unrender.measure_depth(field, frame.camera), frame.load().depth
    unrender.save_depth(depth, folder / "depth" / "test", unrender.DepthFiles(("png16",)))
    sharp = depth.valid & (truth > 0) & (depth.confidence > 0.8)
    correct = (depth.median_z - truth).abs() <= 0.01 * truth
    print(f"{correct[sharp].float().mean():.0%} of {int(sharp.sum())} confident pixels are within 1 %")

    views = []
    for other in scene.split("train"):
        found = unrender.measure_depth(field, other.camera)
        z = torch.where(found.valid, found.median_z, 0)
        views.append(DepthView(found.camera, z, field.render(found.camera, torch.zeros(3)).color))
    mesh = unrender.fuse_depths(views, voxel_size=0.03)
    unrender.save_mesh(mesh, folder / "mesh.ply")
    unrender.save_cloud(unrender.points_from_views(views), folder / "points.ply")

    large = frame.camera.resize(240, 240)
    depth = unrender.measure_depth(field, large)
    nearest, farthest = depth.median_distance[depth.valid].aminmax()
    gray = 0.1 + 0.85 * (depth.median_distance - nearest) / (farthest - nearest)
    maps = torch.where(depth.valid, torch.stack([gray, depth.confidence]), 1.0)
    shown = maps[..., None].expand(-1, -1, -1, 3)
    shaded = unrender.render_mesh(mesh, large, supersampling=2).clamp(0, 1)
    images = [field.render(large, torch.ones(3)).color, *shown, shaded]
    unrender.save_image(torch.cat(images, 1), folder / "image.png")
    print(folder / "image.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
