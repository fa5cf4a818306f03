import pytest
import torch

from unrender.compat.pytorch3d import renderer as r
from unrender.compat.pytorch3d.structures import Volumes
from unrender.errors import InputError


@pytest.fixture
def cameras():
    R, T = r.look_at_view_transform(3.0, 30.0, [10.0, 40.0])
    return r.FoVPerspectiveCameras(R=R, T=T)


DEPTHS = {"min_depth": 1.0, "max_depth": 4.0}


def sampler(**settings):
    return r.NDCMultinomialRaysampler(
        **({"image_width": 6, "image_height": 4, "n_pts_per_ray": 5} | DEPTHS | settings)
    )


def test_rays_pass_where_cameras_see(cameras):
    rays = sampler()(cameras)
    assert rays.origins.shape == rays.directions.shape == (2, 4, 6, 3)
    assert rays.lengths.shape == (2, 4, 6, 5)
    points = r.ray_bundle_to_ray_points(rays)
    seen = cameras.transform_points(points.view(2, -1, 3)).view(2, 4, 6, 5, 3)
    torch.testing.assert_close(
        seen[..., :2], rays.xys[..., None, :].expand(-1, -1, -1, 5, -1), rtol=1e-3, atol=1e-4
    )
    assert rays.xys[0, 0, 0].tolist() == pytest.approx([1.25, 0.75])
    unit = sampler(unit_directions=True)(cameras)
    assert unit.directions.norm(dim=-1).allclose(torch.ones(2, 4, 6))
    jittered = sampler(stratified_sampling=True)(cameras).lengths
    assert (jittered.diff(dim=-1) >= 0).all()
    assert 1 <= jittered.min() < jittered.max() <= 4


def test_some_of_the_pixels(cameras):
    some = sampler(n_rays_per_image=7)(cameras)
    assert some.xys.shape == (2, 7, 1, 2)
    assert len(torch.unique(some.xys[0, :, 0], dim=0)) == 7
    mask = torch.zeros(2, 4, 6)
    mask[:, 1, 2:4] = 1
    masked = sampler(n_rays_per_image=2)(cameras, mask=mask)
    whole = sampler()(cameras).xys
    assert torch.equal(masked.xys[:, :, 0].sort(1).values, whole[:, 1, 2:4].flip(1))
    drawn = r.MonteCarloRaysampler(-0.5, 0.5, 0.0, 1.0, 20, 5, 1.0, 4.0)(cameras)
    assert drawn.xys.shape == (2, 20, 2)
    assert drawn.xys[..., 1].min() >= 0
    assert r.NDCGridRaysampler(6, 4, 5, 1.0, 4.0)(cameras).xys.allclose(whole)
    with pytest.raises(InputError, match="0 everywhere"):
        sampler(n_rays_per_image=2)(cameras, mask=0 * mask)


def test_rays_of_a_whole_batch(cameras):
    rays = sampler(n_rays_total=5)(cameras)
    assert rays.xys.shape == (5, 1, 1, 2)
    assert rays.lengths.shape[:3] == (5, 1, 1)
    assert int(rays.camera_counts.sum()) == 5
    of_rays = rays.camera_ids.repeat_interleave(rays.camera_counts)
    assert len(of_rays) == 5
    whole = sampler()(cameras)
    chosen = (whole.xys[of_rays] == rays.xys).all(-1)
    torch.testing.assert_close(whole.directions[of_rays][chosen], rays.directions[:, 0, 0])
    every = sampler(n_rays_total=24)(cameras[0])  # as many as there are pixels: each once
    assert len(torch.unique(every.xys[:, 0, 0], dim=0)) == 24
    drawn = r.MonteCarloRaysampler(0.0, 0.5, 0.0, 1.0, None, 5, 1.0, 4.0, n_rays_total=7)(cameras)
    assert drawn.directions.shape == (7, 1, 1, 3)
    with pytest.raises(ValueError, match="n_rays_total"):
        sampler(n_rays_total=5, n_rays_per_image=3)


@pytest.mark.parametrize("sample_mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_volumes_are_looked_up_as_torch_does(cameras, sample_mode, align_corners):
    torch.manual_seed(0)
    volumes = Volumes(
        torch.rand(2, 1, 4, 5, 6),
        torch.rand(2, 3, 4, 5, 6),
        0.4,
        (0.1, 0.0, -0.1),
        align_corners=align_corners,
    )
    rays = sampler()(cameras)
    densities, features = r.VolumeSampler(volumes, sample_mode)(rays)
    local = volumes.world_to_local_coords(r.ray_bundle_to_ray_points(rays)).view(2, 4, 6, 5, 3)
    both = torch.cat([volumes.densities(), volumes.features()], 1)
    expected = torch.nn.functional.grid_sample(both, local, sample_mode, align_corners=align_corners)
    torch.testing.assert_close(torch.cat([densities, features], -1), expected.movedim(1, -1))


def test_one_volume_for_all_cameras_gets_one_gradient(cameras):
    torch.manual_seed(0)
    results = []
    density, color = torch.rand(1, 4, 4, 4, requires_grad=True), torch.rand(3, 4, 4, 4, requires_grad=True)
    draw = r.VolumeRenderer(sampler(), r.EmissionAbsorptionRaymarcher())
    for repeat in (lambda t: t[None].expand(2, *t.shape), lambda t: t[None].repeat(2, 1, 1, 1, 1)):
        images, _ = draw(cameras, Volumes(repeat(density), repeat(color), voxel_size=0.5))
        assert images.shape == (2, 4, 6, 4)
        results.append((images, *torch.autograd.grad(images.square().sum(), [density, color])))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_one_volume_for_all_cameras_with_channels_last(cameras):
    torch.manual_seed(0)
    density, color = torch.rand(1, 4, 4, 4).expand(2, 1, 4, 4, 4), torch.rand(4, 4, 4, 3).movedim(-1, 0)
    draw = r.VolumeRenderer(sampler(), r.EmissionAbsorptionRaymarcher())
    views, copies = (
        draw(cameras, Volumes(density, features, voxel_size=0.5))[0]
        for features in (color.expand(2, 3, 4, 4, 4), color.repeat(2, 1, 1, 1, 1))
    )
    torch.testing.assert_close(views, copies)


def test_raymarchers():
    torch.manual_seed(0)
    densities, features = torch.rand(3, 7, 1), torch.rand(3, 7, 2)
    light = torch.cat([torch.ones(3, 1, 1), (1 - densities).cumprod(1)[:, :-1]], 1)
    seen = r.EmissionAbsorptionRaymarcher()(densities, features)
    torch.testing.assert_close(seen[:, :2], (light * densities * features).sum(1))
    torch.testing.assert_close(seen[:, 2:], 1 - (1 - densities).prod(1))
    torch.testing.assert_close(r.AbsorptionOnlyRaymarcher()(densities), seen[:, 2:])
    thick = r.EmissionAbsorptionRaymarcher(surface_thickness=2)(densities, features)
    light = torch.cat([torch.ones(3, 2, 1), (1 - densities).cumprod(1)[:, :-2]], 1)
    torch.testing.assert_close(thick[:, :2], (light * densities * features).sum(1))
    with pytest.warns(UserWarning, match="alphas in .0, 1., but range from"):
        r.EmissionAbsorptionRaymarcher()(densities * 3, features)
    with pytest.raises(InputError, match=r"takes densities \[..., P, 1\]"):
        r.EmissionAbsorptionRaymarcher()(densities[..., 0], features)


def test_any_function_can_be_seen(cameras):
    def ball(ray_bundle, color, **kwargs):
        points = r.ray_bundle_to_ray_points(ray_bundle)
        inside = (points.norm(dim=-1, keepdim=True) < 1).float()
        return inside, color.expand(points.shape)

    draw = r.ImplicitRenderer(sampler(n_pts_per_ray=40), r.EmissionAbsorptionRaymarcher())
    images, rays = draw(cameras, volumetric_function=ball, color=torch.tensor([1.0, 0.5, 0.0]))
    assert isinstance(rays, r.RayBundle)
    assert images[0, 2, 3].tolist() == pytest.approx([1, 0.5, 0, 1])
    assert not images[0, 0, 0].any()
    with pytest.raises(InputError, match="should be callable"):
        draw(cameras, volumetric_function=3)


def test_harmonic_embedding():
    embedding = r.HarmonicEmbedding(3, 2.0, append_input=True)
    x = torch.rand(5, 3)
    assert embedding(x).shape == (5, embedding.get_output_dim())
    torch.testing.assert_close(embedding(x)[:, 4], (4 * x[:, 1]).sin())
    torch.testing.assert_close(embedding(x, diag_cov=torch.zeros(5, 3)), embedding(x))
    assert embedding(x, diag_cov=torch.full((5, 3), 50.0))[:, :18].abs().max() < 1e-3
    even = r.HarmonicEmbedding(3, logspace=False)
    torch.testing.assert_close(even(x)[:, 1], (2.5 * x[:, 0]).sin())


def test_places_drawn_at_random_follow_the_weights():
    torch.manual_seed(0)
    bins = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    drawn = r.sample_pdf(bins, torch.tensor([[1.0, 0.0, 3.0]]), 4000)
    shares = [((drawn >= a) & (drawn < b)).float().mean().item() for a, b in ((0, 1), (1, 2), (2, 4))]
    assert shares == pytest.approx([0.25, 0, 0.75], abs=0.03)
