"""Scenes of all formats, with their images, masks and depth; camera files; depth maps."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fuzzing import layouts
from fuzzing.kinds import Kind
from fuzzing.layouts import Layout
from scene_files import (
    HEIGHT,
    WIDTH,
    cameras,
    pixels,
    write_blender,
    write_colmap,
    write_image,
    write_llff,
    write_nerfstudio,
)
from unrender import (
    Frame,
    PointCloud,
    Scene,
    load_cameras,
    load_depth_views,
    load_scene,
    save_cameras,
    save_cloud,
    save_depth,
)
from unrender.render.depth import DepthMap
from unrender.tasks.scene.inspect_scene import describe_cameras, find_warnings, inspect_image

LENS = {"camera_model": "OPENCV", "k1": 0.01, "k2": -0.02, "p1": 0.001, "p2": 0.001, "k3": 0.0}


def _read_scene(folder: Path, inverted_depth_range: float | None = None) -> object:
    """Load a scene, what `inspect` says of it, and some of its images."""
    scene = load_scene(folder, inverted_depth_range=inverted_depth_range)
    summaries = [inspect_image(frame) for frame in scene.frames[:3]]
    views = [frame.load() for frame in scene.frames[:3]]
    return _values(scene), summaries, views, describe_cameras(scene), find_warnings(scene)


def _values(scene: Scene) -> object:
    return [(f.camera, f.near, f.far, f.points) for f in scene.frames], scene.bounds, scene.points


def _write_nerfstudio(folder: Path) -> None:
    """Write a scene with a lens, masks, depth and points."""
    content = write_nerfstudio(folder, cameras(3), 4, ply_file_path="points.ply", aabb_scale=4, **LENS)
    save_cloud(PointCloud(torch.rand(30, 3)), folder / "points.ply")
    for i, frame in enumerate(content["frames"]):
        frame |= {"mask_path": f"masks/{i}.png", "depth_file_path": f"depth/{i}.png"}
        write_image(folder / frame["mask_path"], np.full((HEIGHT, WIDTH), 255, np.uint8))
        write_image(folder / frame["depth_file_path"], np.full((HEIGHT, WIDTH), 2500 + i, np.uint16))
    content |= {"train_filenames": ["images/000.png", "images/001.png"], "test_filenames": ["images/002.png"]}
    (folder / "transforms.json").write_text(json.dumps(content))


def _write_ngp(folder: Path) -> None:
    content = write_nerfstudio(
        folder, cameras(3), aabb_scale=4, scale=0.5, offset=[0.5, 0.5, 0.5], is_fisheye=True
    )
    shared = {"camera_angle_x": 0.8, "camera_angle_y": 0.7, "w": WIDTH, "h": HEIGHT, "k1": 0.1}
    frames = [
        {k: v for k, v in f.items() if k in ("file_path", "transform_matrix")} for f in content["frames"]
    ]
    (folder / "transforms.json").write_text(json.dumps(content | shared | {"frames": frames}))


def _write_blender(folder: Path) -> None:
    write_blender(folder, cameras(3))
    for i in range(3):
        Image.fromarray(pixels(i, 4)).save(folder / "train" / f"r_{i}_depth_0000.png")


def _write_llff(folder: Path) -> None:
    write_llff(folder, cameras(3))


def _scene(name: str, file: str, make: Callable[[Path], None], layout: Layout) -> Kind:
    return Kind(f"scene-{name}", file, make, _read_scene, layout)


def _colmap(name: str, file: str, layout: Layout, **options: object) -> Kind:
    return _scene(f"colmap-{name}", file, lambda folder: write_colmap(folder, cameras(3), **options), layout)


OPENCV = {"model": (4, "OPENCV"), "lens": (0.01, 0.02, 0.001, 0.002)}
FISHEYE = {"model": (5, "OPENCV_FISHEYE"), "lens": (0.01, 0.02, 0.001, 0.002)}


def _write_cameras(folder: Path) -> None:
    save_cameras(
        [Frame(f"{i}.png", c, folder / f"{i}.png") for i, c in enumerate(cameras(3))], folder / "c.json"
    )


def _write_path(folder: Path) -> None:
    poses = [
        {"camera_to_world": c.to_opengl().flatten().tolist(), "fov": 50.0, "aspect": 1.0} for c in cameras(3)
    ]
    content = {
        "camera_type": "perspective",
        "render_height": 12,
        "render_width": 16,
        "camera_path": poses,
        "fps": 24,
    }
    (folder / "c.json").write_text(json.dumps(content))


def _write_depth_maps(folder: Path) -> None:
    camera = cameras(1)[0]
    size = (camera.height, camera.width)
    values = {f"{kind}_distance": torch.full(size, 2.0) for kind in ("expected", "median", "first_surface")}
    ones = torch.ones(size)
    depth = DepthMap(camera=camera, **values, opacity=ones, std=0.1 * ones, confidence=ones, valid=ones > 0)
    (folder / "depth").mkdir()
    save_depth(depth, folder / "depth" / "a", color=torch.rand(*size, 3))


def _depth_maps(name: str, file: str, layout: Layout) -> Kind:
    return Kind(f"depth-maps-{name}", f"depth/a/{file}", _write_depth_maps, load_depth_views, layout)


_inverted = functools.partial(_read_scene, inverted_depth_range=8.0)
KINDS = [
    _scene("nerfstudio", "transforms.json", _write_nerfstudio, layouts.JSON),
    _scene("ngp", "transforms.json", _write_ngp, layouts.JSON),
    _scene("image", "images/000.png", _write_nerfstudio, layouts.PNG),
    _scene("mask", "masks/0.png", _write_nerfstudio, layouts.PNG),
    _scene("depth", "depth/0.png", _write_nerfstudio, layouts.PNG),
    _scene("points", "points.ply", _write_nerfstudio, layouts.PLY),
    _scene("blender", "transforms_train.json", _write_blender, layouts.JSON),
    Kind("scene-blender-depth", "train/r_0_depth_0000.png", _write_blender, _inverted, layouts.PNG),
    _scene("llff", "poses_bounds.npy", _write_llff, layouts.NPY),
    _colmap("cameras", "sparse/0/cameras.bin", layouts.BINARY, **OPENCV),
    _colmap("images", "sparse/0/images.bin", layouts.BINARY),
    _colmap("points", "sparse/0/points3D.bin", layouts.BINARY),
    _colmap("cameras-text", "sparse/0/cameras.txt", layouts.TEXT, text=True, **FISHEYE),
    _colmap("images-text", "sparse/0/images.txt", layouts.TEXT, text=True),
    _colmap("points-text", "sparse/0/points3D.txt", layouts.TEXT, text=True),
    Kind("cameras", "c.json", _write_cameras, lambda folder: load_cameras(folder / "c.json"), layouts.JSON),
    Kind("camera-path", "c.json", _write_path, lambda folder: load_cameras(folder / "c.json"), layouts.JSON),
    _depth_maps("metadata", "depth.json", layouts.JSON),
    _depth_maps("values", "median_z.npy", layouts.NPY),
    _depth_maps("valid", "valid.png", layouts.PNG),
    _depth_maps("color", "color.png", layouts.PNG),
]
