"""What cameras see in any field."""

import pytest
import torch
from torch import Tensor, nn

from unrender import Camera, InputError, Lens, Rays, RaySamples, clip_to_box, sample_occupied, sample_uniform
from unrender.fields.render_field import render_field

DENSITY, RADIUS = 4.0, 0.5


class Ball(nn.Module):
    """Fog of one density in a ball, of a color that depends on the direction; samples even or ragged."""

    background = torch.tensor([0.25, 0.5, 0.75])
    contracted, near = False, 0.0

    def __init__(self, ragged: bool = False) -> None:
        super().__init__()
        self.ragged, self.asked = ragged, 0

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        assert bool(directions.isfinite().all())
        self.asked += len(points)
        return DENSITY * (points.norm(dim=-1) < RADIUS), (directions + 1) / 2

    def sample(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        size = torch.full((3,), RADIUS)
        if self.ragged:
            grid = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0]))
            grid[:3, 3] = size
            return sample_occupied(rays, torch.ones(1, 1, 1, dtype=torch.bool), grid, 0.02)
        return sample_uniform(*clip_to_box(rays, -size, size), 40 if quick else 200)


def some_camera(size: int = 24, lens: Lens | None = None) -> Camera:
    camera = Camera.look_at([0.3, 0.4, 2.0], fov_degrees=50.0, height=size, width=size)
    return camera.replace(lens=lens)


@pytest.mark.parametrize("ragged", [False, True])
def test_a_ball_of_fog_is_as_opaque_as_its_chords_are_long(ragged):
    camera = some_camera()
    seen = render_field(Ball(ragged), camera, stop_below=0.0)
    _, directions = camera.rays(torch.tensor([[12.0, 12.0]]))
    middle = seen.opacity[11:13, 11:13].mean()
    torch.testing.assert_close(middle, 1 - torch.tensor(-DENSITY * 2 * RADIUS).exp(), rtol=0.02, atol=0)
    expected = middle * (directions[0] + 1) / 2 + (1 - middle) * Ball.background
    torch.testing.assert_close(seen.color[11:13, 11:13].mean((0, 1)), expected, rtol=0.02, atol=0)
    assert torch.equal(seen.color[0, 0], Ball.background)
    assert float(seen.distance[0, 0]) == 0
    assert 1.5 < float(seen.distance[12, 12]) < 2.06


@pytest.mark.parametrize("ragged", [False, True])
def test_pictures_do_not_depend_on_how_many_rays_are_marched_at_once(ragged):
    camera = some_camera()
    whole = render_field(Ball(ragged), camera)
    for rays_per_chunk in (7, 24, 100):
        chunked = render_field(Ball(ragged), camera, rays_per_chunk=rays_per_chunk)
        for name in ("color", "opacity", "distance"):
            assert torch.equal(getattr(whole, name), getattr(chunked, name))


def test_rays_beyond_the_reach_of_a_lens_show_the_background():
    lens = Lens(torch.tensor([-0.8, 0.0, 0.0, 0.0]), torch.zeros(2), torch.zeros(3))
    seen = render_field(Ball(), some_camera(lens=lens), torch.tensor([1.0, 0.0, 1.0]))
    lost = some_camera(lens=lens).rays(torch.tensor([[0.5, 0.5]]))[1].isnan().any()
    assert bool(lost)
    assert torch.equal(seen.color[0, 0], torch.tensor([1.0, 0.0, 1.0]))
    assert all(bool(t.isfinite().all()) for t in (seen.color, seen.opacity, seen.distance))


def test_a_quick_look_asks_fewer_places():
    slow, quick = Ball(), Ball()
    fine, coarse = render_field(slow, some_camera()), render_field(quick, some_camera(), quick=True)
    assert quick.asked == slow.asked // 5
    torch.testing.assert_close(fine.opacity, coarse.opacity, rtol=0, atol=0.05)


def test_a_batch_of_cameras_and_no_rays_per_chunk_are_refused():
    cameras = some_camera().map(lambda tensor: tensor[None])
    with pytest.raises(InputError, match=r"should be one, got \[1\]"):
        render_field(Ball(), cameras)
    with pytest.raises(InputError, match="rays_per_chunk"):
        render_field(Ball(), some_camera(), rays_per_chunk=0)
