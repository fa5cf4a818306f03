"""Train a radiance field on posed images of the demo object, and render a held-out view.

Training is interrupted and resumed from a checkpoint; the result is bit-identical to uninterrupted training.

python examples/06_fit_nerf.py [FOLDER] writes the scene, the field and image.png to FOLDER, by default a temporary
folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

SIZE = 96


def main(folder: Path) -> None:
    """Show a held-out photo, the field after 50 steps, and the final field."""
    scene = unrender.save_demo_scene(folder / "scene", size=SIZE, num_train=24, num_test=4)
    config = unrender.FitNerf(steps=300, samples=16384, table_log2=15, depth_loss_weight=0.0)
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
            print(f"step {step.index}: {step.losses['psnr']:.1f} dB at {step.num_samples:,} samples")
    rendered = step.result.render(frame.camera, white)
    print(f"held-out view: {unrender.psnr(rendered.color, photo):.1f} dB")

    unrender.save_field(step.result, folder / "field.safetensors")
    unrender.save_image(torch.cat([photo, early.color, rendered.color], 1), folder / "image.png")
    print(folder / "image.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
