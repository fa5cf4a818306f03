"""Walk a camera to where a silhouette was seen from, by gradient descent through the soft rasterizer.

The gradient crosses silhouette edges because every face near a pixel contributes to it. One start and one descent only
reach what is nearby; `find_pose` (see 02) starts everywhere.

python examples/03_pose_by_gradient.py [FOLDER] writes picture.png there, by default into a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

SIZE = 160
STEPS = 48


def look_from(eye: torch.Tensor) -> unrender.Camera:
    """Stand at a place and look at the object."""
    return unrender.Camera.look_at(eye, fov_degrees=45.0, height=SIZE, width=SIZE)


def main(folder: Path) -> None:
    """Descend from blurred to sharp; keep pictures of the way."""
    mesh = unrender.demo_object().to(torch.float32)
    truth = torch.tensor([-1.6, 1.2, 2.6])
    eye = torch.tensor([-2.8, 2.4, 1.3], requires_grad=True)
    optimizer = torch.optim.Adam([eye], lr=0.05)
    frames = []
    for step in range(STEPS):
        blur = 12.0 * 0.06 ** (step / STEPS)  # in pixels, each side of an edge
        target = unrender.render_silhouette(mesh, look_from(truth), blur=blur)
        seen = unrender.render_silhouette(mesh, look_from(eye), blur=blur)
        loss = (seen - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % (STEPS // 4) == 0 or step == STEPS - 1:
            both = torch.stack([seen, (seen + target) / 2, target], -1)  # orange: too much; blue: too little
            frames.append(1 - both.detach().flip(-1))
            print(
                f"step {step:3d}  loss {loss.item():.5f}  distance {float((eye.detach() - truth).norm()):.3f}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    unrender.save_image(torch.cat(frames, 1).clamp(0, 1), folder / "picture.png")
    print(folder / "picture.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
