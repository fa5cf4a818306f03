"""A generated scene: images of the demo object with exact cameras, alpha and depth."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unrender.data.frames import Frame, Split
from unrender.data.save_transforms import save_transforms
from unrender.data.scenes import Scene, load_scene
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.demo_object import demo_object
from unrender.geometry.mesh import Mesh
from unrender.io.depth import MILLIMETERS, DepthFile
from unrender.io.files import FilePath, atomic_write
from unrender.io.images import save_image
from unrender.render.lights import AmbientLight, DirectionalLight, Material
from unrender.render.mesh import render_depth, render_mesh

DISTANCE, FOV_DEGREES = 3.2, 40.0
"""Distance and field of view of the cameras: a sphere of radius 1.09 around the unit-sized object fills the images."""
LOWEST, HIGHEST = -0.25, 0.85
"""Sines of the lowest and the highest elevation of the cameras."""
SUPERSAMPLING = 4
LIGHTS = (AmbientLight(0.35), DirectionalLight(torch.tensor([-0.6, 0.7, 0.5]), 0.65))
MATERIAL = Material(specular=0.25, shininess=24.0)


def save_demo_scene(folder: FilePath, *, size: int = 200, num_train: int = 40, num_test: int = 20) -> Scene:
    """Render the demo object from all sides and write a scene; the folder is created if necessary.

    Images are square, `size` pixels per side, with alpha and 16 samples per pixel. Lights are fixed and the surface is
    slightly specular, so colors are view-dependent. Depth is exact at the centers of the pixels.
    """
    if size < 1 or num_train < 1 or num_test < 0:
        raise InputError(
            "save_demo_scene: `size` and `num_train` should be at least 1 and `num_test` at least 0, "
            f"got {size}, {num_train}, {num_test}"
        )
    root = Path(folder)
    for name in ("images", "depth"):
        (root / name).mkdir(parents=True, exist_ok=True)
    mesh = demo_object()
    cameras: list[tuple[Split, Camera]] = [
        ("train", camera) for camera in _cameras_around(num_train, size, 0.0)
    ]
    cameras += [("test", camera) for camera in _cameras_around(num_test, size, 0.5)]
    frames = [
        _render_frame(mesh, camera, split, f"{split}_{i:03d}", root)
        for i, (split, camera) in enumerate(cameras)
    ]
    save_transforms(frames, root / "transforms.json")
    return load_scene(root)


def _cameras_around(count: int, size: int, offset: float) -> list[Camera]:
    """Distribute cameras evenly over a zone of the sphere, on a golden spiral."""
    cameras = []
    for i in range(count):
        height = HIGHEST + (LOWEST - HIGHEST) * (i + 0.5) / count
        angle, radius = (i + offset) * math.pi * (3 - math.sqrt(5)), math.sqrt(1 - height * height)
        eye = [DISTANCE * radius * math.cos(angle), DISTANCE * height, DISTANCE * radius * math.sin(angle)]
        cameras.append(Camera.look_at(eye, fov_degrees=FOV_DEGREES, height=size, width=size))
    return cameras


def _render_frame(mesh: Mesh, camera: Camera, split: Split, name: str, folder: Path) -> Frame:
    image_path, depth_path = folder / "images" / f"{name}.png", folder / "depth" / f"{name}.npy"
    save_image(_straight_colors(mesh, camera), image_path)
    with atomic_write(depth_path) as file:
        np.save(file, (render_depth(mesh, camera) / MILLIMETERS).numpy())
    return Frame(name, camera, image_path, split, depth_file=DepthFile(depth_path, MILLIMETERS))


def _straight_colors(mesh: Mesh, camera: Camera) -> Tensor:
    """Render RGBA with straight (unpremultiplied) alpha."""
    image = render_mesh(
        mesh, camera, lights=LIGHTS, material=MATERIAL, background=None, supersampling=SUPERSAMPLING
    ).clamp(max=1)
    alpha = image[..., 3:]
    return torch.cat([image[..., :3] / torch.where(alpha > 0, alpha, 1), alpha], -1).clamp(0, 1)
