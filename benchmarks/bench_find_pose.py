"""Estimate poses in images without an initial guess: rendered views, real photos, and the teapot by gradient descent.

python benchmarks/bench_find_pose.py [--data FOLDER] [--views NUMBER] [--images FOLDER]

Without a data folder, only the demo object is used. Success is a pose within 5 degrees and 2 % of the diameter of the
bounding sphere; "or listed" includes `ambiguous` results that list the correct pose. `--images` saves failures: the
outlines of the mask (blue) and of the estimated pose (orange).
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from timing import machine, record
from torch import Tensor

import unrender
from unrender import Camera, FindPose, Mesh, Photo, PoseEstimate, Texture
from unrender.geometry.camera import rigid, transform
from unrender.reports import figures, pose_images

SIZE, FOV_DEGREES = 256, 40.0
LIGHTS = (unrender.AmbientLight(0.3), unrender.DirectionalLight(torch.tensor([0.3, -0.8, -0.5]), 0.7))
MESHES = {
    "cow": "meshes/cow/cow.obj",
    "spot": "meshes/spot_bob/spot/spot.obj",
    "bob": "meshes/spot_bob/bob/bob_tri.obj",
    "teapot": "meshes/teapot.obj",
    "armadillo": "meshes/armadillo.obj",
}


class Result(NamedTuple):
    is_correct: bool
    is_listed: bool
    degrees: float
    shift: float
    """In % of the diameter."""
    spread: float
    """Rotation error divided by the predicted standard deviation."""
    seconds: float
    status: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    print(machine())
    rendered_views(arguments.data, arguments.views, arguments.images)
    if arguments.data is not None:
        teapot_by_descent(arguments.data)
        soup_can(arguments.data / "pose/hope")
        for ignore_outside in (False, True):
            occluded_objects(arguments.data / "pose/lmo", ignore_outside=ignore_outside)


def rendered_views(data: Path | None, num_views: int, folder: Path | None) -> None:
    heads = ("success", "or listed", "degrees", "% diameter", "in std", "seconds")
    print(f"{'mesh':12}{'cues':18}" + "".join(f"{head:>12}" for head in heads))
    for name, mesh, texture in meshes(data):
        for use_color in (True, False):
            results = []
            for seed in range(-1, num_views):  # the first one compiles
                photo, truth = take_photo(mesh, texture, seed)
                result, estimate = find(mesh, texture, photo, truth, FindPose(use_color=use_color))
                results += [result] if seed >= 0 else []
                if not result.is_correct and folder is not None:
                    save_failure(mesh, photo, estimate, folder / f"{name}-{use_color}-{seed}.png")
            cues = "silhouette, color" if use_color else "silhouette"
            fractions = [
                statistics.mean(r.is_correct for r in results),
                statistics.mean(r.is_listed for r in results),
            ]
            columns = zip(*((r.degrees, r.shift, r.spread, r.seconds) for r in results), strict=True)
            figures = "".join(f"{statistics.median(column):12.2f}" for column in columns)
            print(
                f"{name:12}{cues:18}" + "".join(f"{fraction:12.0%}" for fraction in fractions) + figures,
                flush=True,
            )


def meshes(data: Path | None) -> Iterator[tuple[str, Mesh, Texture | None]]:
    if data is None:
        yield "demo object", unrender.demo_object().to(torch.float32), None
        return
    for name, path in MESHES.items():
        mesh, texture = unrender.load_textured_mesh(data / path)
        yield name, mesh.to(torch.float32), None if texture is None else texture.to(torch.float32)
    *_, last = unrender.fit_mesh(unrender.load_cloud(data / "clouds/kitten.xyz"))
    yield "kitten", last.result.to(torch.float32), None


def ball(mesh: Mesh) -> tuple[Tensor, float]:
    low, high = mesh.vertices.aminmax(dim=0)
    return (low + high) / 2, float((mesh.vertices - (low + high) / 2).norm(dim=1).max())


def take_photo(mesh: Mesh, texture: Texture | None, seed: int) -> tuple[Photo, Tensor]:
    """Render from a random viewpoint, with the object off center."""
    generator = torch.Generator().manual_seed(seed + 1000)
    rotation = unrender.random_rotations(1, generator=generator)[0].float()
    center, radius = ball(mesh)
    x, y, z = torch.rand(3, generator=generator).tolist()
    shift = radius * torch.tensor([0.8 * x - 0.4, 0.8 * y - 0.4, 3.2 + 2 * z])
    truth = rigid(rotation, shift - rotation @ center)
    focal = SIZE / 2 / math.tan(math.radians(FOV_DEGREES / 2))
    camera = Camera(torch.tensor([focal] * 2), torch.tensor([SIZE / 2] * 2), truth, SIZE, SIZE)
    image = unrender.render_mesh(mesh, camera, lights=LIGHTS, texture=texture, supersampling=2).clamp(0, 1)
    mask = (unrender.render_depth(mesh, camera) > 0).float()
    return Photo(image, mask, camera.replace(camera_from_world=torch.eye(4))), truth


def find(
    mesh: Mesh, texture: Texture | None, photo: Photo, truth: Tensor, config: FindPose
) -> tuple[Result, PoseEstimate]:
    start = time.perf_counter()
    *_, last = unrender.find_pose(mesh, photo, config, texture=texture)
    estimate = last.result
    took = time.perf_counter() - start
    errors = [pose_error(mesh, pose.float(), truth) for pose in estimate.candidates]
    right = [degrees < 5 and shift < 2 for degrees, shift in errors]
    spread = errors[0][0] / estimate.rotation_std_degrees
    return Result(right[0], any(right), *errors[0], spread, took, estimate.status), estimate


def pose_error(mesh: Mesh, pose: Tensor, truth: Tensor) -> tuple[float, float]:
    """Return the rotation error in degrees, and the error of the object center in % of the diameter."""
    center, radius = ball(mesh)
    angle = unrender.rotation_angle(pose[:3, :3].contiguous(), truth[:3, :3].contiguous())
    shift = transform(pose, center[None]) - transform(truth, center[None])
    return math.degrees(float(angle)), 100 * float(shift.norm()) / (2 * radius)


def save_failure(mesh: Mesh, photo: Photo, estimate: PoseEstimate, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    crop = pose_images.close_up(photo, 360)
    path.write_bytes(figures.png(pose_images.contours(crop, mesh, estimate.camera_from_object)))


def teapot_by_descent(data: Path) -> None:
    """Optimize the camera position through a soft silhouette with 200 steps of Adam, as in the PyTorch3D tutorial."""
    mesh = unrender.load_mesh(data / "meshes/teapot.obj").to(torch.float32)
    size = {"fov_degrees": 60.0, "height": 256, "width": 256}
    target = unrender.render_silhouette(mesh, Camera.look_at([-1.3, 1.6, 2.6], **size), blur=1.0)
    eye = torch.tensor([3.0, 6.9, 2.5], requires_grad=True)
    optimizer = torch.optim.Adam([eye], lr=0.05)
    start = time.perf_counter()
    for _ in range(200):
        optimizer.zero_grad()
        loss = (
            (unrender.render_silhouette(mesh, Camera.look_at(eye, **size), blur=2.0) - target).square().sum()
        )
        loss.backward()
        optimizer.step()
    took = time.perf_counter() - start
    print(f"teapot, 200 steps of gradient descent at 256²: {took:.1f} s, squared error {loss.item():.0f}")
    record("find_pose/teapot", f"{took:.1f} s")


def soup_can(folder: Path) -> None:
    truth = json.loads((folder / "ground_truth.json").read_text())
    mesh, texture = unrender.load_textured_mesh(folder / "mesh/AlphabetSoup.ply")
    rotation = torch.tensor(truth["camera_from_object_rotation"])
    translation = torch.tensor(truth["camera_from_object_translation"])
    intrinsics = (truth["fx"], truth["fy"], truth["cx"] + 0.5, truth["cy"] + 0.5)
    photo = unrender.load_photo(
        folder / "scene/rgb.png", intrinsics=intrinsics, mask=folder / "scene/seg.png"
    )
    for use_color in (True, False):
        start = time.perf_counter()
        *_, last = unrender.find_pose(mesh, photo, FindPose(use_color=use_color), texture=texture)
        pose = last.result.camera_from_object.float()
        tilt = math.degrees(math.acos(min(1.0, float(pose[:3, 2] @ rotation[:, 2]))))
        degrees = math.degrees(float(unrender.rotation_angle(pose[:3, :3].contiguous(), rotation)))
        print(
            f"soup can, {'silhouette, color' if use_color else 'silhouette'}: {last.result.status}, tilt {tilt:.2f}°, "
            f"rotation {degrees:.2f}°, position {float((pose[:3, 3] - translation).norm()):.2f} mm, "
            f"{time.perf_counter() - start:.1f} s"
        )


def occluded_objects(folder: Path, *, ignore_outside: bool) -> None:
    """Estimate poses in LINEMOD-Occluded; masks are rendered from the ground truth and cropped to the visible box.

    With `ignore_outside`, it is unknown what the object covers outside of the box.
    """
    scenes, infos, cameras = (
        json.loads((folder / f"scene_{name}.json").read_text()) for name in ("gt", "gt_info", "camera")
    )
    diameters = json.loads((folder / "models/models_info.json").read_text())
    print(f"{'object':8}{'visible':>9}{'pixels':>8}{'ADD / diameter':>16}{'best listed':>13}  status")
    found: dict[str, list[bool]] = {}
    for path in sorted((folder / "rgb").iterdir()):
        frame = str(int(path.stem))
        image = unrender.load_image(path)[..., :3]
        matrix = torch.tensor(cameras[frame]["cam_K"]).view(3, 3)
        for scene, info in zip(scenes[frame], infos[frame], strict=True):
            name = str(scene["obj_id"])
            mesh = unrender.load_mesh(folder / f"models/obj_{int(name):06d}.ply").to(torch.float32)
            rotation = torch.tensor(scene["cam_R_m2c"]).view(3, 3)
            translation = torch.tensor(scene["cam_t_m2c"]).float()
            camera = Camera.from_opencv(rotation, translation, matrix, height=480, width=640)
            left, top, width, height = info["bbox_visib"]
            visible = torch.zeros(480, 640)
            visible[top : top + height, left : left + width] = 1
            mask = visible * (unrender.render_depth(mesh, camera) > 0)
            ignored = 1 - visible if ignore_outside else None
            photo = Photo(image, mask, camera.replace(camera_from_world=torch.eye(4)), None, ignored)
            *_, last = unrender.find_pose(mesh, photo)
            points = transform(camera.camera_from_world, mesh.vertices)
            adds = [
                float((transform(pose.float(), mesh.vertices) - points).norm(dim=1).mean())
                / diameters[name]["diameter"]
                for pose in last.result.candidates
            ]
            found.setdefault(name, []).append(adds[0] < 0.1)
            print(
                f"{name:8}{info['visib_fract']:9.2f}{int(mask.sum()):8d}{adds[0]:16.3f}{min(adds):13.3f}  "
                f"{last.result.status}"
            )
    for name, right in found.items():
        print(f"object {name}: {sum(right)} of {len(right)} within 10 % of the diameter (ADD)")


if __name__ == "__main__":
    main()
