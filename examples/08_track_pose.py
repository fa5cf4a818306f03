"""Track an object through a rendered video, in which something passes before it, and draw its contour.

python examples/08_track_pose.py [FOLDER] writes image.png to FOLDER, by default a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

NUM_FRAMES, SHOWN = 24, (0, 12, 23)
SIZE = {"fov_degrees": 45.0, "height": 240, "width": 320}
GREEN, GRAY, ORANGE = ((0.2, 0.5, 0.3), (0.4, 0.4, 0.45), (1.0, 0.5, 0.0))


def main(folder: Path) -> None:
    """Render a video, track the object from an approximate pose, compare."""
    mesh = unrender.demo_object().to(torch.float32)
    views = [unrender.Camera.look_at([2.0 - 0.06 * k, 1.2, 3.0], **SIZE) for k in range(NUM_FRAMES)]
    camera = views[0].replace(camera_from_world=torch.eye(4))  # poses are relative to the camera
    guess = unrender.Camera.look_at([2.1, 1.1, 3.1], **SIZE).camera_from_world
    tracker = unrender.PoseTracker([unrender.TrackedObject(mesh, guess=guess)], camera)

    shown = []
    for index, view in enumerate(views):
        image = unrender.render_mesh(mesh, view, background=GREEN, supersampling=2).clamp(0, 1)
        left = 16 * index - 60
        image[:, max(left, 0) : max(left + 40, 0)] = torch.tensor(GRAY)  # a post passes by
        (tracked,) = tracker.step(image)
        pose = tracked.camera_from_object.float()
        angle = unrender.rotation_angle(
            pose[:3, :3].contiguous(), view.camera_from_world[:3, :3].contiguous()
        )
        error = float(torch.rad2deg(angle))
        print(
            f"frame {index:2d}  {tracked.status:9s} confidence {tracked.confidence:.2f}  error {error:.2f} degrees"
        )
        if index in SHOWN:
            shown.append(draw_contour(image, mesh, camera.replace(camera_from_world=pose)))

    folder.mkdir(parents=True, exist_ok=True)
    unrender.save_image(torch.cat(shown, 1), folder / "image.png")
    print(folder / "image.png")


def draw_contour(image: torch.Tensor, mesh: unrender.Mesh, camera: unrender.Camera) -> torch.Tensor:
    """Draw the outline of a mesh, two pixels wide."""
    mask = (unrender.render_depth(mesh, camera) > 0).float()[None]
    grown = torch.nn.functional.max_pool2d(mask, 5, 1, 2)[0]
    return torch.where((grown > mask[0])[..., None], torch.tensor(ORANGE), image)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
