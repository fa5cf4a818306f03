import math

import pytest
import torch

from unrender.errors import InputError
from unrender.geometry.demo_object import demo_object
from unrender.geometry.mesh import enclosed_volume, face_normals
from unrender.geometry.shapes import cube, ico_sphere, torus
from unrender.geometry.topology import connected_components, genus, topology


@pytest.mark.parametrize("level", [0, 1, 3])
def test_ico_sphere_is_round_and_regular(level):
    mesh = ico_sphere(level)
    assert mesh.vertices.shape == (10 * 4**level + 2, 3)
    torch.testing.assert_close(mesh.vertices.norm(dim=-1), torch.ones(len(mesh.vertices)))
    ends = mesh.vertices[topology(mesh.faces).edges]
    lengths = (ends[:, 0] - ends[:, 1]).norm(dim=-1)
    assert lengths.max() < 1.4 * lengths.min()


@pytest.mark.parametrize("mesh", [cube(), ico_sphere(2), torus(), torus(segments=3, tube_segments=3)])
def test_shapes_are_closed_with_outward_normals(mesh):
    genus(mesh)
    assert enclosed_volume(mesh) > 0
    assert face_normals(mesh).norm(dim=-1).min() == pytest.approx(1)


def test_torus_has_the_given_radii():
    vertices = torus(2.0, 0.5).vertices
    ring = (vertices[:, :2].norm(dim=-1) - 2).hypot(vertices[:, 2])
    torch.testing.assert_close(ring, torch.full_like(ring, 0.5))


def test_invalid_arguments_are_rejected():
    with pytest.raises(InputError, match="ico_sphere: `level` should be at least 0, got -1"):
        ico_sphere(-1)
    with pytest.raises(InputError, match=r"torus: `tube_radius` should be between 0 and 1.0, got 2.0"):
        torus(1.0, 2.0)
    with pytest.raises(
        InputError, match="torus: `segments` and `tube_segments` should be at least 3, got 2 and 24"
    ):
        torus(segments=2)


def test_demo_object_rejects_low_resolution():
    with pytest.raises(InputError, match="demo_object: `resolution` should be at least 48"):
        demo_object(47)


def test_sphere_volume_converges():
    assert enclosed_volume(ico_sphere(4)) == pytest.approx(4 / 3 * math.pi, rel=5e-3)


@pytest.mark.parametrize("resolution", [48, 96])
def test_demo_object_is_watertight_of_genus_one(resolution):
    mesh = demo_object(resolution)
    assert genus(mesh) == 1
    assert not connected_components(mesh.faces, len(mesh.vertices)).any()
    assert enclosed_volume(mesh) > 0.5
    assert mesh.vertices.norm(dim=-1).max() == pytest.approx(1)
    assert (mesh.vertices.dtype, mesh.vertex_colors.dtype) == (torch.float32, torch.float32)
    assert mesh.vertex_colors.min() >= 0
    assert mesh.vertex_colors.max() <= 1
    assert mesh.vertex_colors.std(0).min() > 0.1
    again = demo_object(resolution)
    assert torch.equal(again.vertices, mesh.vertices)
    assert torch.equal(again.vertex_colors, mesh.vertex_colors)


def test_demo_object_is_asymmetric():
    points = demo_object(48).vertices
    for mirrored in (points * torch.tensor([1, 1, -1]), points * torch.tensor([-1, 1, 1])):
        assert torch.cdist(mirrored, points).min(1).values.max() > 0.1
