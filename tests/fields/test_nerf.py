"""The paper's radiance field."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from unrender import Camera, InputError, NeRF, Rays, SceneBox, march, sample_uniform
from unrender.fields import nerf
from unrender.fields.render_field import render_field
from unrender.fields.uniform_samples import UNIFORM_UP_TO
from unrender.geometry.scene_box import FAR

MODELS = ("paper", "tutorial")


def some_field(model: str = "paper", contracted: bool = False, width: int = 16) -> NeRF:
    space = SceneBox.cube(torch.tensor([1.0, -2.0, 0.5]), 0.7, contracted=contracted)
    make = NeRF.paper if model == "paper" else NeRF.tutorial
    return make(space, width=width, near=0.1, generator=torch.Generator().manual_seed(0))


def some_points(field: NeRF, count: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = field.scene_box.center + 0.7 * (2 * torch.rand(count, 3, generator=generator) - 1)
    return points, normalize(torch.randn(count, 3, generator=generator), dim=-1)


def some_rays(field: NeRF, count: int = 30) -> Rays:
    """Look from outside; the first ray looks away."""
    inside, directions = some_points(field, count)
    rays = Rays(inside - 4 * directions, directions.clone())
    rays.directions[0] *= -1
    return rays


def test_the_networks_are_as_large_as_the_paper_and_the_tutorial_have_them():
    space = SceneBox.cube(torch.zeros(3), 1.0)
    paper, tutorial = NeRF.paper(space), NeRF.tutorial(space)
    assert sum(p.numel() for p in paper.fine_network.parameters()) == 595_844
    assert [layer.in_features for layer in paper.fine_network.second[::2]] == [319, 256, 256]
    assert tutorial.coarse_network is None
    assert sum(p.numel() for p in tutorial.fine_network.parameters()) == 317_188
    assert tutorial.fine_network.density.bias.item() == -1.5


@pytest.mark.parametrize("model", MODELS)
def test_density_depends_on_the_place_alone_and_color_on_the_direction_too(model):
    field = some_field(model)
    points, directions = some_points(field)
    for ask in (field, field.coarse):
        (density, color), (again, other) = ask(points, directions), ask(points, directions.flip(0))
        assert torch.equal(density, again)
        assert not torch.allclose(color, other)
        assert bool((density >= 0).all() & (color >= 0).all() & (color <= 1).all())


@pytest.mark.parametrize("model", MODELS)
def test_points_along_rays_give_the_same_as_points_alone(model, monkeypatch):
    monkeypatch.setattr(nerf, "POINTS_PER_CHUNK", 20)  # rays are not cut
    field = some_field(model)
    rays = some_rays(field)
    samples = sample_uniform(torch.full((30,), 3.3), torch.full((30,), 4.9), 7)
    along, alone = (march(each, rays, samples) for each in (field, lambda *points: field(*points)))
    torch.testing.assert_close(along.color, alone.color)
    parameters = list(field.fine_network.parameters())
    gradients = [torch.autograd.grad(each.color.square().sum(), parameters) for each in (along, alone)]
    torch.testing.assert_close(*gradients)
    assert float(along.opacity.detach().max()) > 0


@pytest.mark.parametrize("model", MODELS)
def test_points_may_go_through_the_network_in_any_lots(model, monkeypatch):
    field = some_field(model).double()
    points, directions = (t.double().requires_grad_() for t in some_points(field, 7))

    def gradients() -> list[torch.Tensor]:
        density, color = field(points, directions)
        asked = [p for name, p in field.named_parameters() if name.startswith("fine")]
        return list(
            torch.autograd.grad(density.sin().sum() + color.sin().sum(), [*asked, points, directions])
        )

    whole = gradients()
    monkeypatch.setattr(nerf, "POINTS_PER_CHUNK", 3)
    for one, other in zip(whole, gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_there_is_nothing_beyond_the_cube():
    field = some_field()
    points, directions = (
        field.scene_box.center + torch.tensor([[0.71, 0.0, 0.0], [0.69, 0.0, 0.0]]),
        torch.eye(3)[:2],
    )
    assert (field(points, directions)[0] > 0).tolist() == [False, True]
    far = some_field(contracted=True)
    assert bool((far(100 * points, directions)[0] > 0).all())


def test_density_is_per_world_unit():
    """A world twice as large is half as dense: what is seen stays the same."""
    small = some_field()
    tensors, description = small.contents()
    large = NeRF.from_contents(tensors | {"scene_box.half_extent": torch.full((3,), 1.4)}, description)
    points, directions = some_points(small)
    twice = small.scene_box.center + 2 * (points - small.scene_box.center)
    torch.testing.assert_close(large(twice, directions)[0], small(points, directions)[0] / 2)


@pytest.mark.parametrize("contracted", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_samples_lie_in_the_field_and_fill_it(model, contracted):
    field = some_field(model, contracted)
    rays = some_rays(field)
    near, far = field.scene_box.intersect(rays, field.near)
    for quick, count in ((False, {"paper": 192, "tutorial": 128}), (True, {"paper": 64, "tutorial": 64})):
        samples = field.sample(rays, quick=quick)
        assert samples.offsets is not None
        counts = samples.offsets.diff()
        assert counts[0] == (count[model] if contracted else 0)
        assert bool((counts[1:] == count[model]).all())
        owner = torch.arange(len(counts)).repeat_interleave(counts)
        points = rays.origins[owner] + samples.distances[:, None] * rays.directions[owner]
        if not contracted:
            assert bool(field.scene_box.replace(half_extent=torch.full((3,), 0.70007)).contains(points).all())
        lengths = torch.zeros(len(counts)).index_add(0, owner, samples.lengths)
        hits = counts > 0
        torch.testing.assert_close(lengths[hits], (far - near)[hits], rtol=1e-3, atol=1e-3)
    assert float((near - 0.1).min()) >= 0


def test_steps_in_contracted_space_are_even_and_then_grow():
    field = some_field("tutorial", contracted=True)
    distances = field.sample(some_rays(field, 1)).distances
    steps = distances.diff()
    even = distances[1:] < UNIFORM_UP_TO * 0.7
    assert 50 < int(even.sum()) < 70
    assert float(steps[even].max() / steps[even].min()) < 1.01
    assert bool((steps[~even].diff() > 0).all())
    assert float(distances[-1]) < FAR * 0.7


def test_fine_samples_lie_where_the_coarse_network_sees_something():
    field = some_field()
    wall = field.scene_box.center[0]
    field.coarse = lambda points, directions: (50.0 * (points[:, 0] > wall), torch.zeros_like(points))
    rays = Rays(
        field.scene_box.center[None] - torch.tensor([[3.0, 0.1, 0.2]]), torch.tensor([[1.0, 0.0, 0.0]])
    )
    distances = field.sample(rays).distances
    assert int(((distances - 3).abs() < 0.1).sum()) > 100


@pytest.mark.parametrize("model", MODELS)
def test_a_march_is_seen_through_both_networks_and_teaches_both(model):
    field = some_field(model)
    rays = some_rays(field)
    *_, fine = outputs = field.training_outputs(rays, torch.Generator().manual_seed(2))
    coarse = outputs[0]
    again, *_ = field.training_outputs(rays, torch.Generator().manual_seed(2))
    assert torch.equal(coarse.color, again.color)
    opacity = fine.opacity.detach()
    assert float(opacity[0]) == 0 < float(opacity[1:].min())
    (coarse.color.square().sum() + fine.color.square().sum()).backward()
    changed = [p.grad is not None and bool((p.grad != 0).any()) for name, p in field.named_parameters()]
    names = [name for name, _ in field.named_parameters()]
    assert [name for name, is_changed in zip(names, changed, strict=True) if not is_changed] == ["background"]
    near, far = field.scene_box.intersect(rays, field.near)
    seen = march(field, rays, sample_uniform(near, far, 1000))
    torch.testing.assert_close(opacity[1:], seen.opacity[1:].detach(), rtol=0.1, atol=0.05)


def test_rays_that_all_miss_see_nothing():
    field = some_field()
    away = Rays(field.scene_box.center + torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
    for seen in field.training_outputs(away):
        assert not bool(seen.opacity.any() | seen.color.any())


@pytest.mark.parametrize(("model", "max_ratio"), [("paper", 0.6), ("tutorial", 0.1)])
def test_a_few_steps_fit_the_colors_of_rays(model, max_ratio):
    """A red ball before black, seen along some rays from all around."""
    make = NeRF.paper if model == "paper" else NeRF.tutorial
    generator = torch.Generator().manual_seed(0)
    field = make(SceneBox.cube(torch.zeros(3), 1.0), width=32, generator=generator)
    eyes = 3 * normalize(torch.randn(32, 3, generator=generator), dim=-1)
    targets = torch.rand(32, 3, generator=generator) - 0.5
    rays = Rays(eyes, normalize(targets - eyes, dim=-1))
    passes = torch.linalg.cross(rays.origins, rays.directions).norm(dim=-1)
    truth = (passes < 0.3)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    optimizer = torch.optim.Adam(field.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        outputs = field.training_outputs(rays, generator)
        loss = torch.stack([(each.color - truth).square().mean() for each in outputs]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < max_ratio * sum(losses[:5])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("contracted", [False, True])
def test_what_is_saved_comes_back(model, contracted):
    field = some_field(model, contracted)
    tensors, description = field.contents()
    again = NeRF.from_contents(tensors, description)
    assert again.contents()[1] == description
    assert (again.near, again.scene_box.contracted) == (field.near, contracted)
    for one, other in zip(field(*some_points(field)), again(*some_points(field)), strict=True):
        assert torch.equal(one, other)
    assert all(p.requires_grad for p in again.parameters())
    with torch.no_grad():
        again.background.fill_(0)
    assert bool((field.background == 0.5).all())


def test_damaged_contents_are_refused():
    tensors, description = some_field().contents()
    for changes, message in (
        ({"model": "hash"}, "model"),
        ({"width": 17}, "should be"),
        ({"width": 10**9}, "more weights"),
        ({"near": math.nan}, "near"),
        ({"model": "tutorial"}, "tensors differ"),
    ):
        with pytest.raises(InputError, match=message):
            NeRF.from_contents(tensors, description | changes)
    for name, value in (
        ("background", torch.full((3,), math.nan)),
        ("scene_box.half_extent", torch.full((3,), -1.0)),
        ("fine_network.density.bias", torch.zeros(2)),
    ):
        with pytest.raises(InputError, match=name.removeprefix("scene_box.")):
            NeRF.from_contents(tensors | {name: value}, description)


def test_a_picture_does_not_depend_on_how_many_rays_are_marched_at_once():
    field = some_field()
    camera = Camera.look_at(
        field.scene_box.center + torch.tensor([0.0, 0.5, 2.0]), field.scene_box.center, height=6, width=8
    )
    whole, chunked = render_field(field, camera), render_field(field, camera, rays_per_chunk=8)
    for name in ("color", "opacity", "distance"):
        torch.testing.assert_close(getattr(whole, name), getattr(chunked, name), rtol=1e-4, atol=1e-4)
    quick = field.render(camera, torch.zeros(3), quick=True)
    assert quick.color.shape == (6, 8, 3)


def test_bad_arguments_are_refused():
    space = SceneBox.cube(torch.zeros(3), 1.0)
    with pytest.raises(InputError, match="width"):
        NeRF.paper(space, width=1)
    with pytest.raises(InputError, match="near"):
        NeRF.tutorial(space, near=-1.0)
    with pytest.raises(InputError, match="model"):
        NeRF(space, "hash")
