"""Learns a radiance field from pictures of the demo object, and shows it from where no picture was taken.

Reads like the job itself: a scene, an iterator of steps, a field. It stops in the middle, as if the machine had gone
off, and goes on from the checkpoint: the numbers are those of a fit that never stopped.

python examples/06_fit_nerf.py [FOLDER] writes the scene, the field and picture.png there, else into a temporary one.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

SIZE = 96


def main(folder: Path) -> None:
    """Show a photo that was held out, the field from there after half of the steps, and in the end."""
    scene = unrender.save_demo_scene(folder / "scene", size=SIZE, num_train=24, num_test=4)
    config = unrender.FitNerf(steps=300, samples=16384, table_log2=15, depth=0.0)
    white = torch.ones(3)
    frame = scene.split("test")[0]
    view = frame.load()
    photo = torch.lerp(white.expand_as(view.image), view.image, view.alpha[..., None])

    steps = unrender.fit_nerf(scene, config, checkpoints=folder)
    for step in steps:
        if step.index == 50:
            break
    steps.close()  # saves a checkpoint
    early = step.result.render(frame.camera, white)

    for step in unrender.fit_nerf(scene, config, resume=folder):
        if step.index % 50 == 0:
            print(f"step {step.index}: {step.losses['psnr']:.1f} dB at {step.samples:,} samples")
    seen = step.result.render(frame.camera, white)
    print(f"from a new side: {unrender.psnr(seen.color, photo):.1f} dB")

    unrender.save_field(step.result, folder / "field.safetensors")
    unrender.save_image(torch.cat([photo, early.color, seen.color], 1), folder / "picture.png")
    print(folder / "picture.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
