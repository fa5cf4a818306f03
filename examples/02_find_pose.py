"""Photograph an object from anywhere, find from where, and put photo, pose and what differs side by side.

python examples/02_find_pose.py [FOLDER] writes picture.png there, by default into a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

SIZE = 320
SUN = (unrender.AmbientLight(0.3), unrender.DirectionalLight(torch.tensor([-0.6, 0.6, 0.5]), 0.7))


def main(folder: Path) -> None:
    """Photograph, search, compare."""
    mesh = unrender.demo_object().to(torch.float32)
    truth = unrender.Camera.look_at(
        [-1.9, 1.4, 2.6], [0.1, 0.0, 0.2], fov_degrees=45.0, height=SIZE, width=SIZE
    )
    image = unrender.render_mesh(mesh, truth, lights=SUN, supersampling=2).clamp(0, 1)
    mask = (unrender.render_depth(mesh, truth) > 0).float()
    camera = truth.replace(camera_from_world=torch.eye(4))  # what the finder knows: focal length and centre

    for step in unrender.find_pose(mesh, unrender.Photo(image, mask, camera)):
        print(f"\r{step.stage:10s} step {step.index:3d}  cost {step.cost:.3f}", end="", flush=True)
    found = step.result

    pose = found.camera_from_object.float()
    angle = unrender.rotation_angle(pose[:3, :3].contiguous(), truth.camera_from_world[:3, :3].contiguous())
    print(f"\n{found.verdict}: {float(torch.rad2deg(angle)):.2f} degrees off", end=", ")
    print(f"expected {found.rotation_std_degrees:.2f}; silhouettes agree to {100 * found.agreement:.1f} %")

    seen = truth.replace(camera_from_world=pose)
    again = unrender.render_mesh(mesh, seen, supersampling=2)  # in studio light: the sun is not known
    missed = (unrender.render_silhouette(mesh, seen, blur=1.0) - mask).abs()[..., None].expand(-1, -1, 3)
    side_by_side = torch.cat([image, again, 1 - missed], 1).clamp(0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    unrender.save_image(side_by_side, folder / "picture.png")
    print(folder / "picture.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
