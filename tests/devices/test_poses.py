"""Poses on a GPU: everything is on the device of the mesh."""

import pytest
import torch
from pretended_gpu import held, on_gpu, pretended_gpu

from check_kernel import needs_cuda
from unrender.data.photos import Photo
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import torus
from unrender.render.mesh import render_mesh
from unrender.tasks.pose import cloud_alignment
from unrender.tasks.pose.find_pose import FindPose, find_pose
from unrender.tasks.pose.track_pose import PoseTracker, TrackedObject

SMALL = FindPose(num_views=20, num_starts=4, resolution=64, max_candidates=2)


def thing() -> Mesh:
    ring = torus(segments=8, tube_segments=5)
    return ring.replace(vertices=ring.vertices * torch.tensor([1.0, 0.6, 0.8]))


def photo_of(mesh: Mesh, size: int = 40) -> Photo:
    camera = Camera.look_at([1.0, 3.0, -2.0], height=size, width=size)
    image = render_mesh(mesh, camera, background=None)
    at_origin = camera.replace(camera_from_world=torch.eye(4))
    return Photo(image[..., :3].clamp(0, 1), image[..., 3], at_origin)


def test_a_photo_is_searched_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    mesh, photo = thing(), photo_of(thing())
    expected = next(find_pose(mesh, photo, SMALL))
    with pretended_gpu():
        step = next(find_pose(on_gpu(mesh), on_gpu(photo), SMALL))
        estimate = step.result
        poses = held(estimate.candidates)
    torch.testing.assert_close(poses, expected.result.candidates, rtol=1e-3, atol=1e-3)


def test_a_cloud_is_searched_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    small = {"NUM_ROTATIONS": 64, "NUM_STARTS": 8, "NUM_SAMPLES": 500, "CELL_SIZE": 0.25}
    for name, value in small.items():
        monkeypatch.setattr(cloud_alignment, name, value)
    mesh = thing()
    points = sample_points_from_mesh(mesh, 200, generator=torch.Generator().manual_seed(0)).points
    cloud = PointCloud(points[points[:, 2] > 0] + 0.3)
    expected = next(find_pose(mesh, cloud, SMALL))
    with pretended_gpu():
        step = next(find_pose(on_gpu(mesh), on_gpu(cloud), SMALL))
        poses = held(step.result.candidates)
    torch.testing.assert_close(poses, expected.result.candidates, rtol=1e-3, atol=1e-3)


def test_frames_on_a_gpu_are_tracked_on_the_cpu() -> None:
    mesh, camera = thing(), Camera.look_at([1.0, 3.0, -2.0], height=40, width=40)
    image = render_mesh(mesh, camera).clamp(0, 1)
    at_origin = camera.replace(camera_from_world=torch.eye(4))
    given = TrackedObject(mesh, guess=camera.camera_from_world)
    (expected,) = PoseTracker([given], at_origin).step(image)
    with pretended_gpu():
        there = TrackedObject(on_gpu(mesh), guess=on_gpu(given.guess))
        (found,) = PoseTracker([there], on_gpu(at_origin)).step(on_gpu(image))
    assert torch.equal(found.camera_from_object, expected.camera_from_object)


@needs_cuda
def test_a_pose_is_found_on_a_gpu() -> None:
    mesh, photo = thing(), photo_of(thing(), 128)
    *_, on_cpu = find_pose(mesh, photo)
    *_, one = find_pose(mesh.to("cuda"), photo.to("cuda"))
    *_, other = find_pose(mesh.to("cuda"), photo.to("cuda"))
    assert torch.equal(one.result.candidates, other.result.candidates)
    assert one.result.agreement == pytest.approx(on_cpu.result.agreement, abs=0.02)


@needs_cuda
def test_a_cloud_is_aligned_on_a_gpu() -> None:
    mesh = thing()
    points = sample_points_from_mesh(mesh, 2000, generator=torch.Generator().manual_seed(0)).points
    *_, step = find_pose(mesh.to("cuda"), PointCloud(points + 0.3).to("cuda"))
    assert step.result.status != "failed"
    assert step.result.candidates.is_cuda
