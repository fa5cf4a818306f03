"""Origins of frames for large coordinates."""

import numpy as np
import pytest
import torch

from unrender import Camera
from unrender.geometry.shapes import ico_sphere
from unrender.geometry.world_origin import ZERO, camera_to_local, choose_origin, to_local, to_world

UTM = torch.tensor([437215.0, 4478093.0, 612.0], dtype=torch.float64)


def random_points(seed: int, extent: float, count: int = 50) -> torch.Tensor:
    return extent * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("extent", [0.01, 3.0, 400.0])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_utm_gets_an_origin_near_the_points(extent: float, scale: float) -> None:
    points = (random_points(0, extent) + UTM) * scale
    origin = choose_origin(points)
    local = points - torch.tensor(origin, dtype=torch.float64)
    assert float(local.abs().max()) < 20 * extent * scale
    rounding = np.spacing(np.float32(float(local.abs().max())))
    assert rounding < 1e-5 * extent * scale


@pytest.mark.parametrize("shift", [0.0, 1.0, 100.0])
def test_usual_coordinates_have_no_origin(shift: float) -> None:
    assert choose_origin(random_points(0, 3.0) + shift) == ZERO
    assert choose_origin(random_points(0, 3.0)[:1]) == ZERO


def test_an_outlier_at_zero_does_not_hide_large_coordinates() -> None:
    points = torch.cat([random_points(0, 3.0) + UTM, torch.zeros(3, 3)])
    assert choose_origin(points) != ZERO
    points = torch.cat([random_points(0, 3.0), UTM[None].expand(3, 3)])
    assert choose_origin(points) == ZERO


def test_empty_and_non_finite_points_have_no_origin() -> None:
    assert choose_origin(torch.zeros(0, 3)) == choose_origin(torch.full((2, 3), torch.nan)) == ZERO


def test_cameras_project_as_before() -> None:
    eye = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    near = Camera.look_at(eye, [0.0, 0, 0], height=40, width=50)
    far = Camera.look_at(eye + UTM, UTM, height=40, width=50)
    moved = camera_to_local(far, tuple(UTM.tolist()))
    assert moved.camera_from_world.dtype == torch.float32
    torch.testing.assert_close(moved.camera_from_world, near.camera_from_world.float(), atol=1e-6, rtol=0)


def test_shapes_return_to_the_world_in_double_precision() -> None:
    origin = tuple(UTM.tolist())
    mesh = ico_sphere(1)
    assert to_world(mesh, ZERO) is mesh
    world = to_world(mesh, origin).vertices
    assert world.dtype == torch.float64
    torch.testing.assert_close(to_local(world, origin), mesh.vertices, atol=1e-7, rtol=0)
