"""Optimize a camera to match a target silhouette, by gradient descent through the soft rasterizer.

Silhouettes have gradients because every face near a pixel contributes to it. A single start only converges from nearby;
`find_pose` (see 02) searches globally.

python examples/03_pose_by_gradient.py [FOLDER] writes image.png to FOLDER, by default a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

SIZE = 160
STEPS = 48


def camera_at(eye: torch.Tensor) -> unrender.Camera:
    """Return a camera at a position that looks at the object."""
    return unrender.Camera.look_at(eye, fov_degrees=45.0, height=SIZE, width=SIZE)


def main(folder: Path) -> None:
    """Optimize with decreasing blur, and save images of the progress."""
    mesh = unrender.demo_object().to(torch.float32)
    truth = torch.tensor([-1.6, 1.2, 2.6])
    eye = torch.tensor([-2.8, 2.4, 1.3], requires_grad=True)
    optimizer = torch.optim.Adam([eye], lr=0.05)
    frames = []
    for step in range(STEPS):
        blur = 12.0 * 0.06 ** (step / STEPS)  # in pixels, each side of an edge
        target = unrender.render_silhouette(mesh, camera_at(truth), blur=blur)
        rendered = unrender.render_silhouette(mesh, camera_at(eye), blur=blur)
        loss = (rendered - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % (STEPS // 4) == 0 or step == STEPS - 1:
            both = torch.stack(
                [rendered, (rendered + target) / 2, target], -1
            )  # orange: excess; blue: missing
            frames.append(1 - both.detach().flip(-1))
            print(
                f"step {step:3d}  loss {loss.item():.5f}  distance {float((eye.detach() - truth).norm()):.3f}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    unrender.save_image(torch.cat(frames, 1).clamp(0, 1), folder / "image.png")
    print(folder / "image.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
