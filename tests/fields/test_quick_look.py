"""The quick look: against a literal loop of its formulas, for every kind of field; and input that cannot be used."""

import math

import pytest
import torch

from unrender import Camera, HashLevels, HashNeRF, InputError, NeRF, SceneBox, SparseVoxels, quick_look
from unrender.fields.occupancy import OccupancyGrid
from unrender.geometry.lens import Lens
from unrender.geometry.rays import rays_of

CAMERA = Camera.look_at([0.3, 0.4, -3.0], fov_degrees=35, height=18, width=24)
SMALL = CAMERA.resize(6, 8)


def voxels(contracted: bool = False) -> SparseVoxels:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(16, 16, 16, dtype=torch.bool)
    mask[4:12, 5:9, 4:13] = True
    box = SceneBox.cube(torch.zeros(3), 1.0, contracted=contracted)
    field = SparseVoxels.from_mask(mask, box, opacity=0.2)
    field.log_density.data += torch.randn(field.log_density.shape, generator=generator)
    field.harmonics.data += 0.3 * torch.randn(field.harmonics.shape, generator=generator)
    return field


def hashed(contracted: bool = False) -> HashNeRF:
    generator = torch.Generator().manual_seed(0)
    occupied = torch.zeros(16, 16, 16, dtype=torch.bool)
    occupied[5:11, 4:12, 6:12] = True
    field = HashNeRF(
        SceneBox.cube(torch.tensor([0.1, 0.0, -0.1]), 1.0, contracted=contracted),
        HashLevels.geometric(4, 16, 3, 10),
        OccupancyGrid(occupied),
        step=0.05,
        near=0.2,
        generator=generator,
    )
    field.table.data += 0.5 * torch.randn(field.table.shape, generator=generator)
    return field


def nerf(contracted: bool = False, model: str = "paper") -> NeRF:
    space = SceneBox.cube(torch.tensor([0.1, 0.0, -0.1]), 1.0, contracted=contracted)
    make = NeRF.paper if model == "paper" else NeRF.tutorial
    field = make(space, width=16, near=0.2, generator=torch.Generator().manual_seed(1))
    if model == "tutorial":  # which begins empty
        torch.nn.init.constant_(field.fine_network.density.bias, 0.1)
    return field


def fog(points, directions):
    density = 3 * torch.exp(-4 * points.square().sum(-1))
    return density, torch.sigmoid(points)


def loop(field, camera, row, column, near, far, count):
    """Integrate one ray literally, in double precision."""
    rays = rays_of(camera)
    origin, direction = rays.origins[row, column], rays.directions[row, column]
    step, light, opacity, distance, color = (far - near) / count, 1.0, 0.0, 0.0, [0.0] * 3
    places = near + (torch.arange(count) + 0.5) * step
    with torch.no_grad():
        density, shine = field(origin + places[:, None] * direction, direction.expand(count, 3))
    for sigma, t, c in zip(density.double().tolist(), places.double().tolist(), shine.tolist(), strict=True):
        alpha = 1 - math.exp(-sigma * step)
        weight = alpha * light
        light *= 1 - alpha
        opacity += weight
        distance += weight * t
        color = [a + weight * b for a, b in zip(color, c, strict=True)]
    return [opacity, distance / opacity if opacity else 0.0, *(c + light for c in color)]


@pytest.mark.parametrize(
    "field", [voxels(), hashed(), nerf(), nerf(model="tutorial"), fog], ids=["voxels", "hash", "paper", "mlp", "any"]
)  # fmt: skip
def test_every_field_is_seen_by_the_formulas(field):
    seen = quick_look(field, CAMERA, torch.ones(3), near=1.5, far=4.5, num_samples=48)
    assert float(seen.opacity.max()) > 0.05
    noise = (
        5e-2 if isinstance(field, NeRF) and field.model == "tutorial" else 2e-5
    )  # it sees the rounding of points
    for row in range(1, 18, 5):
        for column in range(1, 24, 4):
            expected = loop(field, CAMERA, row, column, 1.5, 4.5, 48)
            found = [seen.opacity[row, column], seen.distance[row, column], *seen.color[row, column]]
            assert [float(t) for t in found[:2]] == pytest.approx(expected[:2], rel=noise, abs=1e-5)
            assert [float(t) for t in found[2:]] == pytest.approx([min(c, 1) for c in expected[2:]], abs=5e-3)


@pytest.mark.parametrize("make", [voxels, hashed, nerf])
@pytest.mark.parametrize("contracted", [False, True])
def test_a_field_is_looked_at_where_it_is(make, contracted):
    field = make(contracted)
    few, many = quick_look(field, SMALL), quick_look(field, SMALL, num_samples=400)
    full = quick_look(field, SMALL, near=0.2, far=20.0, num_samples=1200)
    assert float(full.opacity.max()) > 0.1
    torch.testing.assert_close(many.opacity, full.opacity, atol=0.05, rtol=0)
    seen = full.opacity > 0.1
    torch.testing.assert_close(many.distance[seen], full.distance[seen], atol=0.05, rtol=0.05)
    assert float((few.opacity - full.opacity).abs().mean()) < 0.1


def test_views_do_not_depend_on_how_many_rays_go_at_once(monkeypatch):
    one = quick_look(hashed(), CAMERA)
    monkeypatch.setattr("unrender.fields.quick_look.SAMPLES_PER_CHUNK", 37 * 64)
    other = quick_look(hashed(), CAMERA)
    for name in ("color", "opacity", "distance"):
        assert torch.equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("make", [voxels, hashed, nerf, lambda: fog])
def test_cameras_of_double_precision_see_the_same(make):
    ends = {"near": 1.0, "far": 6.0}
    seen, double = (quick_look(make(), camera, **ends) for camera in (CAMERA, CAMERA.to(torch.float64)))
    torch.testing.assert_close(double.color.float(), seen.color, atol=0.02, rtol=0)


def test_emptiness_has_no_distance():
    away = Camera.look_at([0.0, 0.0, 5.0], [0.0, 0.0, 9.0], fov_degrees=50, height=4, width=5)
    for field in (voxels(), hashed(), nerf()):
        seen = quick_look(field, away, torch.tensor([0.0, 0.5, 1.0]))
        assert not bool(seen.opacity.any() | seen.distance.any())
        assert torch.equal(seen.color, torch.tensor([0.0, 0.5, 1.0]).expand(4, 5, 3))


def test_rays_that_a_lens_does_not_have_are_empty():
    lens = Lens.fisheye([0.0, 0.0, 0.0, 0.0])
    camera = Camera.look_at([0.0, 0.0, -1.5], fov_degrees=170, height=40, width=40).replace(lens=lens)
    camera = camera.replace(focal=torch.tensor([4.0, 4.0]))
    absent = rays_of(camera).directions.isnan().any(-1)
    assert bool(absent.any())
    for field in (voxels(), hashed(), nerf(), voxels(True), hashed(True), nerf(True)):
        seen = quick_look(field, camera)
        assert all(bool(t.isfinite().all()) for t in (seen.color, seen.opacity, seen.distance))
        assert not bool(seen.opacity[absent].any())
    assert not bool(quick_look(fog, camera, near=0.1, far=4.0).opacity[absent].any())


def test_what_is_black_and_what_is_not_one_camera():
    seen = quick_look(lambda p, d: (0 * p[:, 0], p), CAMERA, near=1.0, far=2.0)
    assert not bool(seen.color.any())
    names = ("focal", "center", "camera_from_world")
    with pytest.raises(InputError, match="quick_look: `camera` should be one"):
        quick_look(
            fog, CAMERA.replace(**{name: getattr(CAMERA, name)[None] for name in names}), near=1.0, far=2.0
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "has no bounds; give `near` and `far`"),
        ({"near": 4.0, "far": 2.0}, "0 ≤ near < far, got 4.0 and 2.0"),
        ({"near": 1.0}, "got 1.0 and None"),
        ({"near": 0.0, "far": math.inf}, "0 ≤ near < far"),
        ({"near": 1.0, "far": 2.0, "num_samples": 0}, "`num_samples` should be at least 1"),
    ],
)
def test_wrong_settings_are_named(changes, words):
    with pytest.raises(InputError, match=words):
        quick_look(fog, CAMERA, **changes)
