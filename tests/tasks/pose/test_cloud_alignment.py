"""The pose of a mesh in a cloud: derivatives, the way back, the whole way without a guess, and symmetries."""

import pytest
import torch
from torch import Tensor

from unrender.geometry.camera import rigid, transform
from unrender.geometry.demo_object import demo_object
from unrender.geometry.mesh import Mesh
from unrender.geometry.rotations import random_rotations, rotation_angle
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import cube, ico_sphere, torus
from unrender.tasks.pose.cloud_alignment import (
    DistanceField,
    align_point_cloud,
    evaluate_points,
    exact_distance_field,
    sampled_distance_field,
    super_fibonacci_rotations,
)
from unrender.tasks.pose.levenberg_marquardt import Fit, levenberg_marquardt, move


def in_unit_sphere(mesh: Mesh) -> Mesh:
    vertices = mesh.vertices.double()
    vertices = vertices - (vertices.amin(0) + vertices.amax(0)) / 2
    return mesh.replace(vertices=vertices / vertices.norm(dim=1).max(), vertex_colors=None)


def scan(
    mesh: Mesh, count: int, noise: float, seed: int, from_one_side: bool = True
) -> tuple[Tensor, Tensor]:
    """See the faces that look one way, from a random pose."""
    generator = seeded(seed)
    samples = sample_points_from_mesh(mesh, 4 * count, generator=generator)
    way = torch.randn(3, generator=generator, dtype=torch.float64)
    points = samples.points[(samples.normals @ way > 0) | (not from_one_side)]
    points = points[torch.randperm(len(points), generator=generator)[:count]]
    points = points + noise * torch.randn(points.shape, generator=generator, dtype=torch.float64)
    pose = rigid(
        random_rotations(1, generator=generator, dtype=torch.float64),
        torch.randn(1, 3, generator=generator, dtype=torch.float64),
    )[0]
    return transform(pose, points), pose


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def degrees(fit: Fit, pose: Tensor) -> Tensor:
    return rotation_angle(fit.poses[:, :3, :3], pose[:3, :3].expand(len(fit.poses), 3, 3)).rad2deg()


def found(mesh: Mesh, points: Tensor) -> Fit:
    *_, (_, fit) = align_point_cloud(mesh, points, seeded(0))
    return fit


@pytest.mark.parametrize("exact", [True, False])
def test_the_gradient_is_that_of_the_cost(exact: bool) -> None:
    mesh = in_unit_sphere(demo_object())
    surface: DistanceField = exact_distance_field(mesh) if exact else sampled_distance_field(mesh, seeded(0))
    points, pose = scan(mesh, 300, 0.02, seed=0)
    twists = 0.05 * torch.randn(4, 6, generator=seeded(1), dtype=torch.float64)
    poses = move(pose.expand(4, 4, 4), twists)
    fit = evaluate_points(surface, points, poses, 0.1)
    step = 1e-7 * torch.eye(6, dtype=torch.float64)
    for axis in range(6):
        high, low = (
            evaluate_points(surface, points, move(poses, sign * step[axis].expand(4, 6)), 0.1).cost
            for sign in (1, -1)
        )
        torch.testing.assert_close((high - low) / 4e-7, fit.gradient[:, axis], rtol=1e-4, atol=1e-7)


def test_the_hessian_is_the_curvature_of_small_residuals() -> None:
    mesh = in_unit_sphere(cube())
    points, pose = scan(mesh, 300, 0.0, seed=0)
    fit = evaluate_points(exact_distance_field(mesh), points, pose[None], 0.1)
    twist = 1e-4 * torch.randn(1, 6, generator=seeded(1), dtype=torch.float64)
    moved = evaluate_points(exact_distance_field(mesh), points, move(pose[None], twist), 0.1)
    torch.testing.assert_close(moved.cost, ((twist @ fit.hessian[0]) * twist).sum(1), rtol=1e-2, atol=0)


def test_disturbed_poses_come_back() -> None:
    mesh = in_unit_sphere(demo_object())
    points, pose = scan(mesh, 1000, 0.01, seed=0)
    surface = exact_distance_field(mesh)
    axes = torch.nn.functional.normalize(
        torch.randn(5, 2, 3, generator=seeded(1), dtype=torch.float64), dim=-1
    )
    poses = move(pose.expand(5, 4, 4), torch.cat([0.175 * axes[:, 0], 0.1 * axes[:, 1]], 1))
    *_, fit = levenberg_marquardt(lambda poses: evaluate_points(surface, points, poses, 0.1), poses, 10)
    assert degrees(fit, pose).max() < 0.5
    assert bool((fit.agreement > 0.95).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_side_is_found_among_clutter_without_a_guess(dtype: torch.dtype) -> None:
    mesh = in_unit_sphere(demo_object()).to(dtype)
    for seed in range(2):
        points, pose = scan(in_unit_sphere(demo_object()), 2000, 0.02, seed)
        clutter = 3 * torch.rand(300, 3, generator=seeded(seed), dtype=torch.float64) - 1.5 + pose[:3, 3]
        fit = found(mesh, torch.cat([points, clutter]).to(dtype))
        assert fit.poses.dtype == dtype
        assert degrees(fit, pose.to(dtype))[0] < 2
        assert (fit.poses[0, :3, 3] - pose[:3, 3]).norm() < 0.02
        assert 0.8 < fit.agreement[0] < 0.95


def test_every_step_is_told_and_the_same_seed_gives_the_same_bits() -> None:
    mesh = in_unit_sphere(demo_object()).to(torch.float32)
    points = scan(in_unit_sphere(demo_object()), 500, 0.01, seed=0)[0].float()
    first, second = (list(align_point_cloud(mesh, points, seeded(0))) for _ in range(2))
    assert list(dict.fromkeys(stage for stage, _ in first)) == ["search", "coarse", "fine"]
    assert all(torch.equal(a.poses, b.poses) for (_, a), (_, b) in zip(first, second, strict=True))


def test_all_poses_of_symmetric_objects_are_kept() -> None:
    mesh = in_unit_sphere(cube())
    points, pose = scan(mesh, 2000, 0.01, seed=0, from_one_side=False)
    fit = found(mesh, points)
    assert len(fit.poses) == 24
    assert degrees(fit, pose).min() < 1
    assert fit.cost.max() < 1.01 * fit.cost.min()


@pytest.mark.parametrize(("mesh", "noise"), [(ico_sphere(3), 0.01), (torus(), 0.01), (torus(), 0.0)])
def test_round_objects_lie_in_their_place(mesh: Mesh, noise: float) -> None:
    mesh = in_unit_sphere(mesh)
    points, pose = scan(mesh, 1000, noise, seed=0)
    fit = found(mesh, points)
    assert len(fit.poses) > 8
    assert (fit.poses[:, :3, 3] - pose[:3, 3]).norm(dim=1).max() < 0.03


@pytest.mark.parametrize("count", [1, 3, 10])
def test_a_few_points_do_no_harm(count: int) -> None:
    fit = found(in_unit_sphere(torus()), torch.rand(count, 3, generator=seeded(0), dtype=torch.float64))
    assert bool(fit.poses.isfinite().all())


def test_rotations_are_spread_evenly() -> None:
    rotations, anywhere = (
        super_fibonacci_rotations(1024),
        random_rotations(500, generator=seeded(0), dtype=torch.float64),
    )
    traces = (anywhere.flatten(1) @ rotations.flatten(1).mT).amax(1)
    assert ((traces - 1) / 2).acos().rad2deg().max() < 22
