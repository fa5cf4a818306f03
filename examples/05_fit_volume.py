"""Fit a volume to posed images of the demo object, and render a held-out view.

The scene is generated, so the ground-truth depth is known: the example prints the depth error at the end.

python examples/05_fit_volume.py [FOLDER] writes the scene and image.png to FOLDER, by default a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

SIZE = 96


def main(folder: Path) -> None:
    """Show a held-out photo, the rendered volume, and its distance (near is dark)."""
    scene = unrender.save_demo_scene(folder / "scene", size=SIZE, num_train=24, num_test=4)
    config = unrender.FitVolume(resolution=64, steps=400, rays=8192, depth_loss_weight=0.0)
    for step in unrender.fit_volume(scene, config):
        if step.index % 100 == 0:
            print(f"step {step.index}: {step.losses['psnr']:.1f} dB, {step.result.table.num_voxels:,} voxels")
    white = torch.ones(3)
    frame = scene.split("test")[0]
    view, rendered = frame.load(), step.result.render(frame.camera, white)
    photo = torch.lerp(white.expand_as(view.image), view.image, view.alpha[..., None])
    print(f"held-out view: {unrender.psnr(rendered.color, photo):.1f} dB")

    cosines = unrender.rays_of(frame.camera).directions @ frame.camera.camera_from_world[2, :3]
    valid = (view.alpha == 1) & (rendered.opacity > 0.9)
    error = (rendered.distance * cosines - view.depth).abs()[valid]
    print(f"median depth error: {error.median():.3f}, for an object of size 2")

    nearest, farthest = rendered.distance[valid].aminmax()
    grey = ((rendered.distance - nearest) / (farthest - nearest)).clamp(0, 1)
    grey = torch.where(rendered.opacity > 0.5, grey, 1.0)[..., None].expand(-1, -1, 3)
    unrender.save_image(torch.cat([photo, rendered.color, grey], 1), folder / "image.png")
    print(folder / "image.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
