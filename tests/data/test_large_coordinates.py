"""Scenes in UTM coordinates: the same cameras and points as near the origin, in all formats."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scene_files import cameras, write_blender, write_colmap, write_llff, write_nerfstudio
from unrender import Camera, PointCloud, load_cameras, load_scene, save_cameras, save_cloud, save_transforms
from unrender.geometry.camera import invert_rigid, transform
from unrender.geometry.world_origin import ZERO

UTM = (437215.25, 4478093.5, 612.125)


def moved(camera: Camera) -> Camera:
    """Return the camera in UTM, in double precision; inverses of poses need rotations that are orthonormal in it."""
    pose = camera.to(torch.float64).world_from_camera
    left, _, right = torch.linalg.svd(pose[:3, :3])
    pose[:3, :3] = left @ right
    pose[:3, 3] += torch.tensor(UTM, dtype=torch.float64)
    return camera.to(torch.float64).replace(camera_from_world=invert_rigid(pose))


FORMATS: dict[str, Callable] = {
    "nerfstudio": write_nerfstudio,
    "blender": write_blender,
    "llff": write_llff,
    "colmap": lambda folder, views: write_colmap(folder, views, shift=UTM),
    "colmap_text": lambda folder, views: write_colmap(folder, views, text=True, shift=UTM),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_cameras_and_points_keep_their_precision(tmp_path: Path, kind: str) -> None:
    near = cameras()
    FORMATS[kind](tmp_path, [moved(camera) for camera in near])
    scene = load_scene(tmp_path)
    assert scene.origin != ZERO
    shift = torch.tensor(UTM, dtype=torch.float64) - torch.tensor(scene.origin, dtype=torch.float64)
    frames = scene.split("train") if kind == "blender" else scene.frames
    for frame, camera in zip(frames, near, strict=True):
        assert frame.camera.camera_from_world.dtype == torch.float32
        torch.testing.assert_close(frame.camera.position - shift.float(), camera.position, atol=2e-6, rtol=0)
        if frame.points is not None:
            assert float((frame.points - shift).abs().max()) < 0.501
            assert frame.points.dtype == torch.float32
    assert float(scene.bounds.abs().max()) < 20
    if scene.points is not None:
        assert float((scene.points.points - shift).abs().max()) < 0.501


def test_points_of_a_nerfstudio_scene_move_with_its_cameras(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path, [moved(camera) for camera in cameras()], ply_file_path="points.ply")
    points = torch.rand(40, 3, dtype=torch.float64)
    save_cloud(PointCloud(points + torch.tensor(UTM, dtype=torch.float64)), tmp_path / "points.ply")
    scene = load_scene(tmp_path)
    shift = torch.tensor(UTM, dtype=torch.float64) - torch.tensor(scene.origin, dtype=torch.float64)
    torch.testing.assert_close(scene.points.points, (points + shift).float(), atol=1e-6, rtol=0)


def test_saved_cameras_are_in_the_given_coordinates(tmp_path: Path) -> None:
    given = write_nerfstudio(tmp_path, [moved(camera) for camera in cameras()])
    scene = load_scene(tmp_path)
    save_cameras(scene.frames, tmp_path / "cameras.json", origin=scene.origin)
    save_transforms(scene.frames, tmp_path / "again.json", origin=scene.origin)
    for name in ("cameras.json", "again.json"):
        loaded = load_scene(tmp_path / name)
        assert loaded.origin == scene.origin
        for mine, theirs in zip(loaded.frames, scene.frames, strict=True):
            torch.testing.assert_close(mine.camera.position, theirs.camera.position, atol=1e-6, rtol=0)
    local = load_cameras(tmp_path / "cameras.json", origin=scene.origin)
    position = local[2].camera.position.double() + torch.tensor(scene.origin, dtype=torch.float64)
    expected = torch.tensor(given["frames"][2]["transform_matrix"], dtype=torch.float64)[:3, 3]
    torch.testing.assert_close(position, expected, atol=1e-5, rtol=0)


def test_cameras_loaded_without_their_origin_are_said_to_be_rounded(tmp_path: Path, caplog) -> None:
    write_nerfstudio(tmp_path, [moved(camera) for camera in cameras()])
    load_cameras(tmp_path / "transforms.json")
    assert "rounded" in caplog.text
    caplog.clear()
    load_cameras(tmp_path / "transforms.json", origin=load_scene(tmp_path).origin)
    assert not caplog.text


def test_a_given_origin_is_used(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path, cameras())
    near, moved_scene = load_scene(tmp_path), load_scene(tmp_path, origin=(1.0, 2.0, 3.0))
    assert near.origin == ZERO
    points = torch.rand(5, 3)
    for a, b in zip(near.frames, moved_scene.frames, strict=True):
        torch.testing.assert_close(
            transform(a.camera.camera_from_world, points),
            transform(b.camera.camera_from_world, points - torch.tensor([1.0, 2.0, 3.0])),
        )
    torch.testing.assert_close(near.bounds - torch.tensor([1.0, 2.0, 3.0]), moved_scene.bounds)
