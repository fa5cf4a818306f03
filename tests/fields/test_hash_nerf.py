"""The field in a hash table, and the cells it remembers."""

import math

import pytest
import torch

from unrender import Camera, FileFormatError, InputError, Rays, SceneBox, composite, load_field, save_field
from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.occupancy import OccupancyGrid
from unrender.kernels.hash_grid import HashLevels


def field_of(contracted=False, cells=8, **settings):
    space = SceneBox.cube(torch.tensor([0.1, -0.2, 0.3]), 1.5, contracted=contracted)
    occupancy = OccupancyGrid(torch.ones(cells, cells, cells, dtype=torch.bool))
    generator = torch.Generator().manual_seed(0)
    levels = HashLevels.geometric(4, 32, 4, 10)
    return HashNeRF(space, levels, occupancy, step=3 / 64, generator=generator, **settings)


def rays_into(field, count=64):
    generator = torch.Generator().manual_seed(1)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1) * 4
    targets = 0.5 * torch.randn(count, 3, generator=generator)
    return Rays(origins, torch.nn.functional.normalize(targets - origins, dim=1))


@pytest.mark.parametrize("contracted", [False, True])
def test_density_is_that_of_fog_at_first_and_ends_with_the_field(contracted):
    field = field_of(contracted)
    points = torch.tensor([[0.1, -0.2, 0.3], [50.0, 0.0, 0.0]])
    density, color = field(points, torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3))
    assert float(density[0].detach()) * field.step == pytest.approx(0.01, rel=0.05)
    assert bool(density[1] > 0) == contracted
    assert torch.equal(density, field.density(points))
    assert bool(((color >= 0) & (color <= 1)).all())


@pytest.mark.parametrize("contracted", [False, True])
def test_a_cropped_field_has_density_in_the_box_only(contracted):
    field = field_of(contracted, cells=16)
    low, high = torch.tensor([0.1, -1.7, -1.2]), torch.tensor([1.6, 1.3, 1.8])
    cropped = field.crop(low, high)
    points = torch.tensor([[0.5, -0.2, 0.3], [-0.5, -0.2, 0.3], [30.0, 0.0, 0.0]])
    assert torch.equal(cropped.density(points)[:1], field.density(points)[:1])
    assert cropped.density(points)[1:].tolist() == [0, 0]
    assert float(field.density(points)[1].detach()) > 0  # it is not changed
    assert cropped.table is field.table
    assert field.crop(high + 1e9, high + 2e9) is None


@pytest.mark.parametrize("contracted", [False, True])
def test_marching_is_compositing_of_what_the_field_gives_at_its_samples(contracted):
    field = field_of(contracted)
    rays = rays_into(field)
    (seen,) = field.training_outputs(rays, torch.Generator().manual_seed(2))
    samples = field.sample(rays, generator=torch.Generator().manual_seed(2))
    ray = torch.repeat_interleave(samples.offsets.diff())
    points = rays.origins[ray] + samples.distances[:, None] * rays.directions[ray]
    density, color = field(points, rays.directions[ray])
    expected = composite(density, samples.lengths, color, samples.distances, offsets=samples.offsets)
    torch.testing.assert_close(seen.color, expected.color)
    torch.testing.assert_close(seen.opacity, expected.opacity)
    seen.color.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for n, p in field.named_parameters() if n != "background")
    assert float(field.table.grad.abs().max()) > 0


def test_a_field_that_is_huge_has_finite_gradients():
    field = field_of()
    with torch.no_grad():
        field.density_layers[-1].bias[0] = 80.0
    (seen,) = field.training_outputs(rays_into(field), torch.Generator().manual_seed(0))
    seen.color.sum().backward()
    assert bool(field.table.grad.isfinite().all())
    assert torch.allclose(seen.opacity[seen.opacity > 0], torch.tensor(1.0))


def test_samples_lie_in_occupied_cells_only():
    field = field_of()
    occupied = torch.zeros(8, 8, 8, dtype=torch.bool)
    occupied[3:5, 3:5, 3:5] = True
    field.occupancy = OccupancyGrid(occupied)
    rays = rays_into(field)
    samples = field.sample(rays)
    ray = torch.repeat_interleave(samples.offsets.diff())
    places = field.scene_box.normalize(rays.origins[ray] + samples.distances[:, None] * rays.directions[ray])
    assert len(places) > 0
    assert bool(((places >= 3 / 8) & (places <= 5 / 8)).all())
    assert len(field.sample(rays, quick=True).distances) < 0.6 * len(samples.distances)


def test_rays_along_an_axis_may_miss():
    field = field_of()
    rays = Rays(
        torch.tensor([[9.0, 9.0, -9.0], [0.0, 0.0, -9.0]]), torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3)
    )
    counts = field.sample(rays).offsets.diff()
    assert counts[0] == 0
    assert counts[1] > 0


def test_cells_that_no_ray_saw_are_given_up_but_for_neighbours():
    grid = OccupancyGrid(torch.ones(8, 8, 8, dtype=torch.bool))
    grid.record(torch.tensor([[0.55, 0.55, 0.55], [0.1, 0.1, 0.1]]), torch.tensor([0.5, 0.001]))
    grid.prune(0.01)
    assert grid.occupied.sum() == 27
    assert bool(grid.occupied[3:6, 3:6, 3:6].all())
    fine = grid.split()
    assert fine.shape == (16, 16, 16)
    assert fine.occupied.sum() == 8 * 27
    grid.prune(0.01)  # no ray has met density yet: pruning all voxels would leave nothing to train
    assert grid.occupied.sum() == 27


def test_saved_fields_are_the_same(tmp_path):
    field = field_of(contracted=True, near=0.2)
    occupied = torch.ones(8, 8, 8, dtype=torch.bool)
    occupied[:4] = False
    field.occupancy = OccupancyGrid(occupied)
    save_field(field, tmp_path / "field.safetensors")
    other = load_field(tmp_path / "field.safetensors")
    camera = Camera.look_at((0, 0, 4), (0, 0, 0), fov_degrees=40.0, height=12, width=16)
    one, two = field.render(camera), other.render(camera)
    assert torch.equal(one.color, two.color)
    assert torch.equal(one.distance, two.distance)


def test_fields_without_a_layer_are_refused():
    tensors, description = field_of().contents()
    tensors.pop("density_layers.1.weight")
    with pytest.raises(InputError, match=r"density_layers.1.weight"):
        HashNeRF.from_contents(tensors, description)


def test_bad_values_are_refused(tmp_path):
    field = field_of()
    with torch.no_grad():
        field.table[0, 0] = math.nan
    save_field(field, tmp_path / "field.safetensors")
    with pytest.raises(FileFormatError, match="table has values that are not finite"):
        load_field(tmp_path / "field.safetensors")
