"""Rendering of hash fields by the GPU's kernels, on Warp's CPU device."""

import pytest
import torch

from check_kernel import needs_warp
from unrender import Camera, SceneBox
from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.occupancy import OccupancyGrid
from unrender.kernels.hash_grid import HashLevels

hash_renderer = pytest.importorskip("unrender.fields.hash_renderer")
pytestmark = needs_warp


@pytest.mark.parametrize("contracted", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_views_equal_those_of_the_field(contracted, precision, monkeypatch):
    monkeypatch.setattr(hash_renderer, "SAMPLES_PER_CHUNK", 3000)
    generator = torch.Generator().manual_seed(0)
    box = SceneBox.cube(torch.tensor([0.1, -0.2, 0.3]), 1.5, contracted=contracted)
    grid = OccupancyGrid(torch.rand(8, 8, 8, generator=generator) < 0.4)
    levels = HashLevels.geometric(4, 32, 4, 10)
    field = HashNeRF(box, levels, grid, step=3 / 64, near=0.1, generator=generator)
    with torch.no_grad():
        field.table.mul_(1e4)
    camera = Camera.look_at((0.0, -5.0, 1.0), (0.0, 0.0, 0.0), fov_degrees=60.0, height=24, width=32)
    background = torch.tensor([0.2, 0.9, 0.4])
    expected = field.render(camera, background)
    renderer = hash_renderer.HashRenderer(
        field.table, levels, (field.density_layers, field.color_layers), grid.cells(box), field.density_unit,
        field.near, precision,
    )  # fmt: skip
    found = hash_renderer.render_view(renderer, camera, background, field.step, grid.occupied_bounds)
    assert float(expected.opacity.max()) > 0.3
    tolerance = (
        2e-3 if precision == torch.float32 else 2e-2
    )  # the field leaves out what weighs less than 1e-3
    for name in ("color", "opacity", "distance"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        if name == "distance":  # contracted space has distant samples
            ours, theirs = ours / (1 + theirs), theirs / (1 + theirs)
        assert ours.shape == theirs.shape
        assert float((ours - theirs).abs().median()) < tolerance
        assert float((ours - theirs).abs().quantile(0.98)) < 10 * tolerance


def test_a_view_of_nothing_is_the_background():
    field = HashNeRF(
        SceneBox.cube(torch.zeros(3), 1.0), HashLevels.geometric(4, 32, 4, 10),
        OccupancyGrid(torch.ones(4, 4, 4, dtype=torch.bool)), step=0.1,
    )  # fmt: skip
    grid = field.occupancy.cells(field.scene_box)
    renderer = hash_renderer.HashRenderer(
        field.table, field.levels, (field.density_layers, field.color_layers), grid, 0.1, 0.0, torch.float32
    )
    camera = Camera.look_at((0.0, -5.0, 0.0), (0.0, -9.0, 0.0), fov_degrees=40.0, height=3, width=4)
    found = hash_renderer.render_view(
        renderer, camera, torch.tensor([0.2, 0.9, 0.4]), 0.1, field.occupancy.occupied_bounds
    )
    assert torch.equal(found.color, torch.tensor([0.2, 0.9, 0.4]).expand(3, 4, 3))
    assert not bool(found.opacity.any())
