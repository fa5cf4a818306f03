"""Fits a volume to pictures of the demo object, and looks at it from where no picture was taken.

Reads like the job itself: a scene, an iterator of steps, a field. The scene is generated, so the truth is known: how
far the depths in the volume are from those of the surface is printed at the end.

python examples/05_fit_volume.py [FOLDER] writes the scene and picture.png there, else into a temporary one.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

SIZE = 96


def main(folder: Path) -> None:
    """Show a photo that was held out, the volume from there, and its distances, near dark and far bright."""
    scene = unrender.save_demo_scene(folder / "scene", size=SIZE, num_train=24, num_test=4)
    config = unrender.FitVolume(resolution=64, steps=400, rays=8192, depth=0.0)
    for step in unrender.fit_volume(scene, config):
        if step.index % 100 == 0:
            print(f"step {step.index}: {step.losses['psnr']:.1f} dB, {step.num_voxels:,} voxels")
    white = torch.ones(3)
    frame = scene.split("test")[0]
    view, seen = frame.load(), step.result.render(frame.camera, white)
    photo = torch.lerp(white.expand_as(view.image), view.image, view.alpha[..., None])
    print(f"from a new side: {unrender.psnr(seen.color, photo):.1f} dB")

    ahead = unrender.rays_of(frame.camera).directions @ frame.camera.camera_from_world[2, :3]
    sure = (view.alpha == 1) & (seen.opacity > 0.9)
    error = (seen.distance * ahead - view.depth).abs()[sure]
    print(f"depths are off by {error.median():.3f}, of an object 2 wide")

    nearest, farthest = seen.distance[sure].aminmax()
    grey = ((seen.distance - nearest) / (farthest - nearest)).clamp(0, 1)
    grey = torch.where(seen.opacity > 0.5, grey, 1.0)[..., None].expand(-1, -1, 3)
    unrender.save_image(torch.cat([photo, seen.color, grey], 1), folder / "picture.png")
    print(folder / "picture.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
