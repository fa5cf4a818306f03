"""Depth of fields: known shapes, exact conversions, layers, calibration, and input that cannot be used."""

import pytest
import torch

import unrender
from unrender import Camera, InputError, Lens, SceneBox, SparseVoxels, depth_layers, measure_depth
from unrender.geometry.rays import pixel_centers, rays_of

AHEAD = Camera.look_at([0.0, 0.0, -3.0], fov_degrees=50, height=30, width=40)

AWAY = Camera.look_at([0.0, 0.0, 3.0], [0.0, 0.0, 9.0], fov_degrees=50, height=6, width=8)


def block(opacity: float = 0.9999) -> SparseVoxels:
    """A cube about the origin, of side 1, in voxels."""
    mask = torch.ones(8, 8, 8, dtype=torch.bool)
    return SparseVoxels.from_mask(mask, SceneBox.cube(torch.zeros(3), 0.5), opacity=opacity)


def two_walls(points: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A wall that takes half of the light at z = −1, and one that takes the rest at z = 1."""
    z = points[:, 2]
    thin = (z + 1).abs() < 0.05
    density = torch.where(thin, 6.9315, torch.where((z - 1).abs() < 0.05, 200.0, 0.0))
    return density, torch.ones_like(points)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A scene, and a small volume fitted to it."""
    scene = unrender.save_demo_scene(tmp_path_factory.mktemp("scene"), size=64, num_train=20, num_test=3)
    *_, last = unrender.fit_volume(
        scene, unrender.FitVolume(resolution=64, steps=200, rays=4096, degree=1, depth_loss_weight=0.0)
    )
    return scene, last.result


def test_a_block_is_where_it_is():
    found = measure_depth(block(), AHEAD)
    middle = (15, 20)
    for z in (found.expected_z, found.median_z, found.first_surface_z):
        assert abs(float(z[middle]) - 2.5) < 0.04  # half a step deep
    assert bool(found.valid[middle])
    assert not bool(found.valid[0, 0])
    assert float(found.std[middle]) < 0.03
    assert float(found.confidence[middle]) > 0.5
    for values in (
        found.expected_distance,
        found.median_distance,
        found.std,
        found.opacity,
        found.confidence,
    ):
        assert float(values[0, 0]) == 0
        assert bool(values.isfinite().all())


@pytest.mark.parametrize("lens", [None, Lens.brown([-0.1, 0.02], [0.001, -0.002])])
def test_z_and_distance_are_the_same_points(lens):
    camera = AHEAD.replace(lens=lens)
    found = measure_depth(block(), camera)
    rays, pixels = rays_of(camera), pixel_centers(camera)
    along = rays.origins + found.median_distance[..., None] * rays.directions
    unprojected = camera.unproject(torch.cat([pixels, found.median_z[..., None]], -1).flatten(0, 1))
    seen = found.valid.flatten()
    torch.testing.assert_close(unprojected[seen], along.flatten(0, 1)[seen], rtol=1e-5, atol=1e-5)


def test_the_picture_shows_the_same_distance():
    field = block(0.4)
    found, seen = measure_depth(field, AHEAD), field.render(AHEAD)
    inside = found.opacity > 0.5
    torch.testing.assert_close(found.opacity[inside], seen.opacity[inside], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(found.expected_distance[inside], seen.distance[inside], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("contracted", [False, True])
def test_results_are_the_same_bits_in_any_parts(contracted):
    field = block(0.3)
    if contracted:
        field.contracted = True
    one = measure_depth(field, AHEAD)
    for rays_per_chunk in (37, 640):
        other = measure_depth(field, AHEAD, rays_per_chunk=rays_per_chunk)
        for name in (
            "expected_distance",
            "median_distance",
            "first_surface_distance",
            "opacity",
            "std",
            "confidence",
        ):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_any_callable_is_measured_at_regular_places():
    found = measure_depth(two_walls, AHEAD, near=1.0, far=6.0, num_samples=500)
    torch.testing.assert_close(found.first_surface_z[15, 20], torch.tensor(1.99), rtol=0, atol=0.03)
    assert 1.95 < float(found.expected_z[15, 20]) < 4.0
    assert float(found.std[15, 20]) > 0.8
    assert float(found.confidence[15, 20]) < 0.3


def test_layers_are_all_surfaces():
    layers = depth_layers(two_walls, AHEAD, near=1.0, far=6.0, num_samples=500)
    assert layers.distance.shape[0] == 2
    torch.testing.assert_close(layers.distance[:, 15, 20], torch.tensor([1.99, 3.96]), rtol=0, atol=0.03)
    torch.testing.assert_close(layers.weight[:, 15, 20], torch.tensor([0.5, 0.5]), rtol=0, atol=0.03)
    assert not depth_layers(block(), AWAY).valid.any()
    torch.testing.assert_close(
        depth_layers(two_walls, AHEAD, near=1.0, far=6.0, num_samples=500, rays_per_chunk=170).distance,
        layers.distance,
        rtol=0,
        atol=0,
    )


def test_sure_pixels_are_as_often_right_as_they_say(fitted):
    scene, field = fitted
    sure, right = [], []
    for frame in scene.split("test"):
        found, truth = measure_depth(field, frame.camera, bound=0.02), frame.load().depth
        there = found.valid & (truth > 0)
        sure.append(found.confidence[there])
        right.append(((found.median_z - truth).abs() <= 0.02 * truth)[there].float())
    sure, right = torch.cat(sure), torch.cat(right)
    for least in (0.5, 0.8, 0.9):
        called = sure >= least
        assert int(called.sum()) > 100
        assert float(right[called].mean()) >= float(sure[called].mean()) - 0.05
    assert float(right[sure < 0.3].mean()) < float(right[sure > 0.8].mean()) - 0.1


def test_a_view_from_inside_and_one_past_everything():
    inside = Camera.look_at([0.0, 0.0, 0.1], [0.0, 0.0, 2.0], fov_degrees=50, height=6, width=8)
    found = measure_depth(block(), inside)
    assert bool(found.valid.all())
    assert float(found.median_distance.max()) < 0.1
    empty = measure_depth(block(), AWAY)
    assert not bool(empty.valid.any())
    assert all(float(z.abs().max()) == 0 for z in (empty.expected_z, empty.median_z, empty.first_surface_z))


def test_a_field_that_never_trained_has_no_surface():
    found = measure_depth(block(0.01), AHEAD)
    assert not bool(found.valid.any())
    assert float(found.opacity.max()) > 0
    assert bool(found.median_distance.isfinite().all())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"near": 4.0, "far": 2.0}, "0 ≤ near < far, got 4.0 and 2.0"),
        ({"near": 4.0}, "0 ≤ near < far, got 4.0 and None"),
        ({"near": 1.0, "far": float("inf")}, "0 ≤ near < far"),
        ({"near": 1.0, "far": 2.0, "num_samples": 0}, "`num_samples` should be at least 1"),
        ({"threshold": 1.0}, "`threshold` should be above 0 and below 1"),
        ({"min_opacity": 0.0}, "`min_opacity` should be above 0 and below 1"),
        ({"rays_per_chunk": 0}, "`rays_per_chunk` should be at least 1"),
    ],
)
def test_wrong_settings_are_named(changes, words):
    with pytest.raises(InputError, match=words):
        measure_depth(block(), AHEAD, **changes)


def test_a_callable_needs_to_be_told_where_to_look():
    with pytest.raises(InputError, match="has no bounds; give `near` and `far`"):
        measure_depth(two_walls, AHEAD)
    several = AHEAD.replace(**{n: getattr(AHEAD, n)[None] for n in ("focal", "center", "camera_from_world")})
    with pytest.raises(InputError, match="`camera` should be one"):
        measure_depth(block(), several)
