import pytest
import torch

from unrender.errors import InputError
from unrender.geometry.export_frame import transform_for_export
from unrender.geometry.mesh import enclosed_volume, face_normals
from unrender.geometry.shapes import ico_sphere

AXES = torch.eye(3)


def stretched():
    sphere = ico_sphere(1)
    return sphere.replace(
        vertices=sphere.vertices * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([5.0, 0.0, 1.0])
    )


@pytest.mark.parametrize("scene_up", [*AXES, *-AXES, torch.tensor([0.3, -0.5, 0.8])])
@pytest.mark.parametrize("up", ["y", "z"])
def test_scene_up_becomes_the_axis(scene_up, up):
    mesh = stretched()
    placed = transform_for_export(mesh, up=up, scene_up=scene_up)
    height = mesh.vertices @ (scene_up / scene_up.norm())
    assert torch.allclose(placed.vertices[:, "xyz".index(up)], height, atol=1e-5)
    assert torch.allclose(enclosed_volume(placed), enclosed_volume(mesh), rtol=1e-5)  # not mirrored
    assert torch.allclose(placed.vertices.norm(dim=1), mesh.vertices.norm(dim=1), rtol=1e-5)


def test_axes_are_exchanged_exactly_if_up_is_nearly_an_axis():
    placed = transform_for_export(stretched(), up="y", scene_up=torch.tensor([0.05, -0.1, 1.0]))
    x, y, z = stretched().vertices.unbind(-1)
    assert torch.equal(placed.vertices, torch.stack([x, z, -y], -1))


def test_same_axis_and_same_units_change_nothing():
    mesh = stretched()
    assert transform_for_export(mesh).vertices is mesh.vertices
    assert torch.equal(transform_for_export(mesh, up="z", scene_up=AXES[2]).vertices, mesh.vertices)


@pytest.mark.parametrize(("units", "factor"), [("mm", 1000), ("cm", 100), ("in", 39.37008), ("ft", 3.28084)])
def test_units(units, factor):
    mesh = stretched()
    placed = transform_for_export(mesh, units=units)
    assert torch.allclose(placed.vertices, mesh.vertices * factor, rtol=1e-6)
    assert torch.allclose(face_normals(placed), face_normals(mesh), atol=1e-6)


def test_bad_input():
    with pytest.raises(InputError, match="needs `scene_up`"):
        transform_for_export(stretched(), up="z")
    with pytest.raises(InputError, match="needs `scene_up`"):
        transform_for_export(stretched(), up="z", scene_up=torch.zeros(3))
    with pytest.raises(InputError, match="one of scene, y, z and `units` one of m, cm"):
        transform_for_export(stretched(), units="miles")
