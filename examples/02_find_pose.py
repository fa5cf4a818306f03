"""Estimate the pose of an object in a rendered photo, without an initial guess, and show the difference.

python examples/02_find_pose.py [FOLDER] writes image.png to FOLDER, by default a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

SIZE = 320
SUN = (unrender.AmbientLight(0.3), unrender.DirectionalLight(torch.tensor([-0.6, 0.6, 0.5]), 0.7))


def main(folder: Path) -> None:
    """Render a photo, estimate the pose, compare."""
    mesh = unrender.demo_object().to(torch.float32)
    truth = unrender.Camera.look_at(
        [-1.9, 1.4, 2.6], [0.1, 0.0, 0.2], fov_degrees=45.0, height=SIZE, width=SIZE
    )
    image = unrender.render_mesh(mesh, truth, lights=SUN, supersampling=2).clamp(0, 1)
    mask = (unrender.render_depth(mesh, truth) > 0).float()
    camera = truth.replace(camera_from_world=torch.eye(4))  # only the intrinsics are known

    for step in unrender.find_pose(mesh, unrender.Photo(image, mask, camera)):
        print(f"\r{step.stage:10s} step {step.index:3d}  cost {step.cost:.3f}", end="", flush=True)
    found = step.result

    pose = found.camera_from_object.float()
    angle = unrender.rotation_angle(pose[:3, :3].contiguous(), truth.camera_from_world[:3, :3].contiguous())
    print(f"\n{found.status}: rotation error {float(torch.rad2deg(angle)):.2f} degrees", end=", ")
    print(f"predicted {found.rotation_std_degrees:.2f}; silhouette IoU {100 * found.agreement:.1f} %")

    estimate = truth.replace(camera_from_world=pose)
    rendered = unrender.render_mesh(mesh, estimate, supersampling=2)  # default lights: the sun is unknown
    difference = (
        (unrender.render_silhouette(mesh, estimate, blur=1.0) - mask).abs()[..., None].expand(-1, -1, 3)
    )
    side_by_side = torch.cat([image, rendered, 1 - difference], 1).clamp(0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    unrender.save_image(side_by_side, folder / "image.png")
    print(folder / "image.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
