"""Fields of Gaussians: images and depth against formulas and against meshes."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from splat_files import C0, gaussians_on, random_gaussians
from unrender import (
    Camera,
    InputError,
    Lens,
    RenderOutput,
    depth_layers,
    extract_surface,
    ico_sphere,
    measure_depth,
    psnr,
    quick_look,
    render_depth,
    rotation_from_quaternion,
    spherical_harmonics,
)
from unrender.fields.gaussians import GaussianField
from unrender.fields.project_gaussians import project_gaussians
from unrender.fields.protocol import Field, RenderedField
from unrender.geometry.gaussians import Gaussians
from unrender.render.depth import z_per_distance

CAMERA = Camera.look_at((2.0, 1.5, 2.5), fov_degrees=45.0, height=64, width=80)


@pytest.fixture(scope="module")
def sphere():
    """A sphere, and Gaussians on it."""
    mesh = ico_sphere(4)
    mesh = mesh.replace(vertex_colors=(mesh.vertices + 1) / 2)
    return mesh, GaussianField(gaussians_on(mesh, 6000, opacity=0.98), background=torch.zeros(3))


def one_gaussian(scales=(0.3, 0.1, 0.2), opacity=0.8, mean=(0.1, -0.2, 0.15)):
    quaternion = torch.tensor([[0.8, 0.2, -0.4, 0.3]])
    harmonics = torch.tensor([[[1.0, 0.2, -0.5]]])
    return Gaussians(
        torch.tensor([mean]), torch.tensor([scales]), quaternion, torch.tensor([opacity]), harmonics
    )


@pytest.mark.parametrize("view_height", [None, 2.0])
def test_one_gaussian_is_projected_by_its_jacobian(view_height):
    camera = Camera.look_at(
        (2.0, 1.5, 2.5), fov_degrees=45.0, view_height=view_height, height=64, width=80
    ).to(torch.float64)
    gaussians = one_gaussian().to(torch.float64)
    seen = project_gaussians(gaussians, camera, 0.01)
    mean = gaussians.means

    def screen(point):
        x, y, _ = camera.project(point[None])[0]
        if view_height is None:
            return torch.stack([x, y, (point - camera.position).norm()])
        return torch.stack([x, y, camera.project(point[None])[0, 2]])

    jacobian = torch.autograd.functional.jacobian(screen, mean[0])
    rotation = rotation_from_quaternion(gaussians.quaternions)[0]
    covariance = rotation @ torch.diag(gaussians.scales[0].square()) @ rotation.T
    v = jacobian @ covariance @ jacobian.T
    blurred = v[:2, :2] + 0.3 * torch.eye(2).double()
    torch.testing.assert_close(seen.covariances[0], blurred[[0, 0, 1], [0, 1, 1]])
    torch.testing.assert_close(torch.cat([seen.means[0], seen.distances]), screen(mean[0]))
    torch.testing.assert_close(
        seen.gradients[0], v[2, :2] @ torch.linalg.inv(v[:2, :2] + 0.03 * torch.eye(2).double())
    )


def test_one_gaussian_is_the_integral_along_rays():
    """A small Gaussian in the center of the view is the maximum of its density along each ray, dilated."""
    camera = Camera.look_at((0.0, 0.0, -5.0), fov_degrees=20.0, height=101, width=101)
    scale = 0.05
    gaussians = one_gaussian((scale, scale, scale), mean=(0.0, 0.0, 0.0))
    output = GaussianField(gaussians, background=torch.ones(3)).render(camera)
    y, x = torch.meshgrid(torch.arange(101) - 50.0, torch.arange(101) - 50.0, indexing="ij")
    sigma = scale * float(camera.focal[0]) / 5
    alpha = 0.8 * torch.exp(-(x * x + y * y) / (2 * (sigma**2 + 0.3)))
    alpha = torch.where(alpha >= 1 / 255, alpha, 0)
    torch.testing.assert_close(output.opacity, alpha, rtol=1e-3, atol=1e-4)
    color = C0 * gaussians.harmonics[0, 0] + 0.5
    torch.testing.assert_close(
        output.color, alpha[..., None] * color + 1 - alpha[..., None], rtol=1e-3, atol=1e-4
    )


def test_view_dependent_color():
    gaussians = random_gaussians(1, 3).replace(opacities=torch.tensor([1.0]), means=torch.zeros(1, 3))
    gaussians = gaussians.replace(harmonics=gaussians.harmonics * 0.3)
    for eye in ((0.0, 0.0, 9.0), (8.0, 3.0, -1.0)):
        camera = Camera.look_at(eye, fov_degrees=30.0, height=9, width=9)
        basis = spherical_harmonics(normalize(-camera.position, dim=0), 3)
        color = (basis @ gaussians.harmonics[0] + 0.5).clamp(min=0)
        found = GaussianField(gaussians).render(camera).color[4, 4]
        torch.testing.assert_close(found, 0.99 * color, rtol=1e-2, atol=1e-3)


def test_a_half_turn_of_everything_changes_nothing():
    """Axes of spz files: turned Gaussians look the same from a turned camera, with view-dependent color."""
    from unrender.io.splats import HALF_TURN, HALF_TURN_HARMONICS

    gaussians = random_gaussians(30, 3)
    signs = torch.from_numpy(HALF_TURN)
    turned = gaussians.replace(
        means=gaussians.means * signs,
        quaternions=gaussians.quaternions * torch.tensor([1.0, 1, -1, -1]),
        harmonics=gaussians.harmonics * torch.from_numpy(HALF_TURN_HARMONICS)[:, None],
    )
    turn = torch.diag(torch.cat([signs, torch.ones(1)]))
    camera = Camera.look_at((3.0, 2.0, -6.0), height=40, width=50)
    one = GaussianField(gaussians).render(camera)
    other = GaussianField(turned).render(camera.replace(camera_from_world=camera.camera_from_world @ turn))
    torch.testing.assert_close(one.color, other.color, rtol=1e-3, atol=1e-3)
    assert float(one.color.std()) > 0.1


def test_depth_and_color_are_those_of_the_mesh(sphere):
    mesh, field = sphere
    depth = measure_depth(field, CAMERA)
    truth = render_depth(mesh, CAMERA)
    both = depth.valid & (truth > 0)
    assert float((depth.valid == (truth > 0)).float().mean()) > 0.95
    for z in (depth.expected_z, depth.median_z, depth.first_surface_z):
        error = (z - truth)[both].abs()
        assert float(error.median()) < 0.015
        assert float(error.quantile(0.95)) < 0.1
    output = field.render(CAMERA)
    torch.testing.assert_close(depth.expected_distance, output.distance, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(depth.opacity, output.opacity, rtol=1e-4, atol=1e-4)
    points = CAMERA.position + output.distance[..., None] * (
        normalize(CAMERA.unproject(pixels_at_depth(CAMERA)) - CAMERA.position, dim=-1)
    ).view(64, 80, 3)
    color = ((normalize(points, dim=-1) + 1) / 2)[both]
    assert float(psnr(output.color[both][None], color[None])) > 20
    assert bool((depth.confidence[both] > 0.5).float().mean() > 0.8)
    assert bool((z_per_distance(CAMERA) > 0).all())


def pixels_at_depth(camera):
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1).view(-1, 3)


def test_slanted_gaussians_have_slanted_depth():
    """One large disc, seen at an angle: its depth is that of its plane, not that of its center."""
    half = math.radians(25)
    disc = one_gaussian((0.2, 0.2, 1e-3), 1.0, (0.0, 0.0, 0.0)).replace(
        quaternions=torch.tensor([[math.cos(half), math.sin(half), 0.0, 0.0]])
    )
    camera = Camera.look_at((0.0, 0.0, -9.0), fov_degrees=3.5, height=41, width=41)
    depth = measure_depth(GaussianField(disc), camera, min_opacity=0.1)
    normal = torch.tensor([0.0, -math.sin(2 * half), math.cos(2 * half)])
    points = camera.unproject(pixel_grid(41, depth.expected_z))
    off_plane = (points @ normal).abs().view(41, 41)[depth.valid]
    assert int(depth.valid.sum()) > 500
    assert float(off_plane.max()) < 0.02
    assert float(points.view(41, 41, 3)[depth.valid][:, 2].std()) > 0.05


def pixel_grid(size, z):
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    return torch.stack([x, y, z], -1).view(-1, 3)


def test_crops_and_moves(sphere):
    _, field = sphere
    assert isinstance(field, RenderedField)
    assert not isinstance(field, Field)
    torch.testing.assert_close(field.bounds(), torch.tensor([[-1.0] * 3, [1.0] * 3]), rtol=0.05, atol=0.05)
    half = field.crop(torch.tensor([0.0, -2, -2]), torch.tensor([2.0, 2, 2]))
    assert half is not None
    assert float(half.gaussians.means[:, 0].min()) >= 0
    assert field.crop(torch.tensor([5.0, 5, 5]), torch.tensor([6.0, 6, 6])) is None
    assert field.to("cpu").describe() == {"num_gaussians": 6000, "harmonics_degree": 0}
    behind = Camera.look_at((0.0, 0, 3), (0.0, 0, 6), height=8, width=8)
    empty = field.render(behind, torch.ones(3))
    assert isinstance(empty, RenderOutput)
    assert not bool(empty.opacity.any())
    assert bool((empty.color == 1).all())
    assert not bool(measure_depth(field, behind).valid.any())


def test_antialiasing_keeps_the_opacity_of_small_gaussians():
    camera = Camera.look_at((0.0, 0.0, -5.0), fov_degrees=40.0, height=9, width=9)
    small = one_gaussian((1e-3,) * 3, 0.9, (0.0, 0.0, 0.0))
    plain = GaussianField(small).render(camera).opacity
    exact = GaussianField(small.replace(is_antialiased=True)).render(camera).opacity
    assert float(plain[4, 4]) > 0.8
    assert float(exact[4, 4]) < 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scales": torch.tensor([[1.0, -1, 1]])},
            "`scales` should be finite and not negative, but those of 1",
        ),
        ({"means": torch.tensor([[1.0, math.nan, 1]])}, "`means` should be finite"),
        ({"opacities": torch.tensor([1.5])}, r"`opacities` should be in \[0, 1\]"),
        ({"harmonics": torch.zeros(1, 5, 3)}, "`harmonics` should have 1, 4, 9 or 16 functions"),
    ],
)
def test_wrong_gaussians_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        GaussianField(one_gaussian().replace(**changes))


def test_what_gaussians_cannot_do(sphere):
    _, field = sphere
    with pytest.raises(InputError, match="should hold at least one Gaussian"):
        GaussianField(one_gaussian().map(lambda values: values[:0]))
    for use in (
        extract_surface,
        lambda f: quick_look(f, CAMERA),
        lambda f: depth_layers(f, CAMERA, near=1.0, far=2.0),
    ):
        with pytest.raises(InputError, match="a GaussianField has no density"):
            use(field)
    with pytest.raises(InputError, match="`near` and `far` do not apply"):
        measure_depth(field, CAMERA, near=1.0, far=2.0)
    with pytest.raises(InputError, match="lens distortion is not supported"):
        field.render(CAMERA.replace(lens=Lens.brown([0.1])))


@pytest.mark.parametrize("turn", [0.0, 2.6])
def test_360_degree_views_are_those_of_perspective_cameras(turn):
    """In the direction of each pixel, in all directions: the edges of the panorama are behind some of the Gaussians."""
    generator = torch.Generator().manual_seed(5)
    directions = normalize(torch.randn(400, 3, generator=generator), dim=-1)
    gaussians = random_gaussians(400, 1).replace(
        means=3 * directions, scales=0.05 + 0.2 * torch.rand(400, 3, generator=generator)
    )
    field = GaussianField(gaussians, near=0.01)
    target = (math.sin(turn), 0.1, math.cos(turn))
    face = Camera.look_at((0.0, 0, 0), target, fov_degrees=90.0, height=96, width=96)
    panorama = Camera.look_at((0.0, 0, 0), (0.0, 0.0, 1.0), height=8, width=8).to_equirectangular(160)
    flat, around = field.render(face), field.render(panorama)
    points = face.unproject(pixel_grid(96, torch.ones(96, 96)))
    columns, rows = panorama.project(points)[:, :2].floor().long().unbind(-1)
    sampled = around.color[rows.clamp(0, 159), columns % 320].view(96, 96, 3)
    assert float((sampled - flat.color).abs().mean()) < 0.04
    opaque = (around.opacity[rows.clamp(0, 159), columns % 320].view(96, 96) > 0.9) & (flat.opacity > 0.9)
    distance = around.distance[rows.clamp(0, 159), columns % 320].view(96, 96)
    assert float((distance - flat.distance)[opaque].abs().median()) < 0.03
    depth = measure_depth(field, panorama)
    torch.testing.assert_close(depth.median_z, depth.median_distance)
    assert 0.1 < float(depth.valid.float().mean()) < 1


def test_the_jacobian_of_360_degree_cameras():
    camera = Camera.look_at((2.0, 1.5, 2.5), height=64, width=80).to_equirectangular(64).to(torch.float64)
    gaussians = one_gaussian((0.03, 0.01, 0.02)).to(torch.float64)
    visible = project_gaussians(gaussians, camera, 0.01)
    jacobian = torch.autograd.functional.jacobian(lambda p: camera.project(p[None])[0], gaussians.means[0])
    rotation = rotation_from_quaternion(gaussians.quaternions)[0]
    v = jacobian @ rotation @ torch.diag(gaussians.scales[0].square()) @ rotation.T @ jacobian.T
    blurred = v[:2, :2] + 0.3 * torch.eye(2).double()
    torch.testing.assert_close(visible.covariances[0], blurred[[0, 0, 1], [0, 1, 1]])
