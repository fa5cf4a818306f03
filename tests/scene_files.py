"""Small scenes on disk, in each format."""

import json
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unrender import Camera, quaternion_from_rotation

HEIGHT, WIDTH = 12, 16


def cameras(count: int = 9, **changes) -> list[Camera]:
    angles = torch.arange(count) * 2.4
    eyes = torch.stack([3 * angles.cos(), 0.5 + 0.1 * torch.arange(count), 3 * angles.sin()], -1)
    return [
        Camera.look_at(eye, fov_degrees=50, height=HEIGHT, width=WIDTH).replace(**changes) for eye in eyes
    ]


def pixels(index: int, channels: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (*size, channels), np.uint8)


def write_image(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_nerfstudio(folder: Path, views: list[Camera], channels: int = 3, **extra) -> dict:
    frames = []
    for i, camera in enumerate(views):
        name = f"images/{i:03d}.png"
        write_image(folder / name, pixels(i, channels, (camera.height, camera.width)))
        (fx, fy), (cx, cy) = camera.focal.tolist(), camera.center.tolist()
        frames.append(
            {
                "file_path": name,
                "transform_matrix": camera.to_opengl().tolist(),
                "fl_x": fx,
                "fl_y": fy,
                "cx": cx,
                "cy": cy,
                "w": camera.width,
                "h": camera.height,
            }
        )
    content = {"frames": frames, **extra}
    write_json(folder / "transforms.json", content)
    return content


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def write_blender(folder: Path, views: list[Camera], splits=("train", "test")) -> None:
    angle = 2 * float(torch.atan(torch.tensor(WIDTH / 2) / views[0].focal[0]))
    for split in splits:
        frames = []
        for i, camera in enumerate(views):
            write_image(folder / split / f"r_{i}.png", pixels(i, 4))
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": camera.to_opengl().tolist()})
        write_json(folder / f"transforms_{split}.json", {"camera_angle_x": angle, "frames": frames})


def write_llff(folder: Path, views: list[Camera]) -> None:
    rows = []
    for i, camera in enumerate(views):
        write_image(folder / "images" / f"{i:03d}.png", pixels(i))
        right, up, back, position = camera.to_opengl()[:3].double().numpy().T
        size = np.array([camera.height, camera.width, float(camera.focal[0])])
        rows.append([*np.stack([-up, right, back, position, size], 1).ravel(), 1.5, 4.5])
    np.save(folder / "poses_bounds.npy", np.array(rows))


def write_colmap(
    folder: Path,
    views: list[Camera],
    model: tuple[int, str] = (1, "PINHOLE"),
    lens: tuple[float, ...] = (),
    text: bool = False,
    points: int = 30,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    focal = (
        views[0].focal.tolist()
        if model[1] in ("PINHOLE", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE")
        else [float(views[0].focal[0])]
    )
    parameters = [*focal, *views[0].center.tolist(), *lens]
    clouds = torch.rand(points, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    clouds = clouds.double() + torch.tensor(shift, dtype=torch.float64)
    images = []
    for i, camera in enumerate(views):
        write_image(folder / "images" / f"{i:03d}.png", pixels(i))
        quaternion = quaternion_from_rotation(camera.camera_from_world[:3, :3]).tolist()
        images.append((i + 1, quaternion, camera.camera_from_world[:3, 3].tolist(), f"{i:03d}.png"))
    if text:
        words = [1, model[1], WIDTH, HEIGHT, *parameters]
        (sparse / "cameras.txt").write_text("# cameras\n" + " ".join(map(str, words)) + "\n")
        seen = " ".join(f"1.0 2.0 {k}" for k in range(points))
        (sparse / "images.txt").write_text(
            "".join(f"{i} {' '.join(map(str, [*q, *t]))} 1 {name}\n{seen}\n" for i, q, t, name in images)
        )
        rows = "".join(
            f"{k} {x} {y} {z} 255 0 0 0.5 1 2 2 2\n" for k, (x, y, z) in enumerate(clouds.tolist())
        )
        (sparse / "points3D.txt").write_text(rows)
        return
    camera_bytes = struct.pack("<QiiQQ", 1, 1, model[0], WIDTH, HEIGHT)
    (sparse / "cameras.bin").write_bytes(camera_bytes + struct.pack(f"<{len(parameters)}d", *parameters))
    seen = b"".join(struct.pack("<ddq", 1, 2, k) for k in range(points))
    data = struct.pack("<Q", len(images))
    for i, q, t, name in images:
        data += struct.pack("<i7di", i, *q, *t, 1) + name.encode() + b"\0" + struct.pack("<Q", points) + seen
    (sparse / "images.bin").write_bytes(data)
    data = struct.pack("<Q", points)
    for k, position in enumerate(clouds.tolist()):
        data += struct.pack("<Q3d3BdQ", k, *position, 255, 0, 0, 0.5, 2) + struct.pack("<iiii", 1, 2, 2, 2)
    (sparse / "points3D.bin").write_bytes(data)
