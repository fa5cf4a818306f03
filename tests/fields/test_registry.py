"""Fields of one's own: one class, registered under a name, works wherever fields do."""

import pytest
import torch

from unrender import (
    Camera,
    FieldOptions,
    FileFormatError,
    InputError,
    Rays,
    SceneBox,
    SceneRegion,
    TrainableField,
    extract_surface,
    load_field,
    measure_depth,
    quick_look,
    register_field,
    save_field,
)
from unrender.fields import registry
from unrender.fields.protocol import Field

CAMERA = Camera.look_at([0.0, 0.5, 3.0], fov_degrees=50.0, height=12, width=16)


class Fog(TrainableField):
    """A ball of fog, with the least that a field needs."""

    def __init__(self, scene_box: SceneBox, *, near: float = 0.0) -> None:
        super().__init__(scene_box, near=near)
        self.log_density = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, points, directions):
        inside = (points.norm(dim=-1) < 0.5).float()
        return inside * self.log_density.exp(), torch.ones_like(points) * 0.25


@pytest.fixture
def fog(monkeypatch) -> Fog:
    monkeypatch.setattr(registry, "FIELDS", dict(registry.FIELDS))
    register_field("fog", Fog)
    region = SceneRegion(SceneBox.cube(torch.zeros(3), 1.0), torch.ones(4, 4, 4, dtype=torch.bool), near=0.1)
    field = registry.field_type("fog").create(region, FieldOptions(), torch.Generator())
    assert isinstance(field, Fog)
    return field


def test_a_field_needs_no_more_than_a_forward(fog):
    assert isinstance(fog, Field)
    rendered = fog.render(CAMERA, torch.zeros(3))
    assert float(rendered.opacity.max()) > 0.95
    quick = quick_look(fog, CAMERA, torch.zeros(3), num_samples=256)
    torch.testing.assert_close(quick.opacity, rendered.opacity, atol=0.1, rtol=0)
    depth = measure_depth(fog, CAMERA)
    assert 2.3 < float(depth.median_distance[6, 8]) < 3.0
    mesh = extract_surface(fog, opacity=0.1, voxel_size=0.1)
    assert 0.4 < float(mesh.vertices.norm(dim=-1).max()) < 0.6
    assert fog.describe() == {"num_parameters": 4}


def test_a_trainable_field_is_a_field_by_its_class():
    """Python 3.12 and newer do not find parameters, such as `background`, among the attributes of an instance."""
    without_attributes = Fog.__new__(Fog)
    assert not hasattr(without_attributes, "background")
    assert isinstance(without_attributes, Field)
    assert not isinstance(torch.nn.Linear(3, 4), Field)


def test_a_field_of_ones_own_is_trained_and_saved(fog, tmp_path):
    rays = CAMERA.rays(torch.tensor([[8.0, 6.0]]).expand(20, 2))
    optimizer = torch.optim.Adam(fog.parameter_groups())
    before = float(fog.log_density.detach())
    for _ in range(3):
        fog.begin_step(0.0, FieldOptions())
        (output,) = fog.training_outputs(Rays(*rays), torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        output.opacity.sum().backward()
        optimizer.step()
        fog.end_step(0.0, FieldOptions())
    assert float(fog.log_density.detach()) < before
    save_field(fog, tmp_path / "fog.safetensors")
    again = load_field(tmp_path / "fog.safetensors")
    assert isinstance(again, Fog)
    assert again.near == 0.1
    assert torch.equal(again.log_density, fog.log_density)


def test_a_field_moves_with_its_box(fog):
    double = fog.double()
    assert double.scene_box.center.dtype == torch.float64


def test_names_are_taken_once_and_files_of_unknown_fields_are_refused(fog, tmp_path):
    register_field("fog", Fog)
    with pytest.raises(InputError, match="'voxels' is already SparseVoxels"):
        register_field("voxels", Fog)
    with pytest.raises(InputError, match="no field 'smoke'; known are hash, paper, tutorial, voxels, fog"):
        registry.field_type("smoke")
    save_field(fog, tmp_path / "fog.safetensors")
    del registry.FIELDS["fog"]
    with pytest.raises(FileFormatError, match="no field 'fog'"):
        load_field(tmp_path / "fog.safetensors")
    with pytest.raises(InputError, match="Fog is not a registered field"):
        save_field(fog, tmp_path / "fog.safetensors")
