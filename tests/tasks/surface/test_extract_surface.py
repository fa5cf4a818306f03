"""Surfaces of fields by their density: of callables, of voxels, and those that cannot be found."""

import math

import pytest
import torch

from unrender import InputError, SceneBox, SparseVoxels, extract_surface, vertex_normals


def ball(points, directions):
    return 400.0 * (0.7 - points.norm(dim=-1)).clamp(0, 0.1), points.abs()


def test_the_surface_of_any_callable_is_found(monkeypatch):
    box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    mesh = extract_surface(ball, voxel_size=0.05, box=box)
    level = -math.log(0.5) / 0.05
    radius = 0.7 - level / 400
    torch.testing.assert_close(
        mesh.vertices.norm(dim=-1), torch.full_like(mesh.vertices[:, 0], radius), atol=0.01, rtol=0
    )
    assert bool(((vertex_normals(mesh) * mesh.vertices).sum(-1) > 0).all())  # outward
    torch.testing.assert_close(mesh.vertex_colors, mesh.vertices.abs().clamp(max=1))
    monkeypatch.setattr("unrender.tasks.surface.extract_surface.POINTS_PER_QUERY", 300)
    again = extract_surface(ball, voxel_size=0.05, box=box)
    assert torch.equal(mesh.vertices, again.vertices)


def test_voxels_may_be_sampled_too():
    field = SparseVoxels.from_mask(
        torch.ones(8, 8, 8, dtype=torch.bool), SceneBox.cube(torch.zeros(3), 0.5), opacity=0.99
    )
    for mesh in (extract_surface(field), extract_surface(field, voxel_size=0.04)):
        assert 0.45 < float(mesh.vertices.abs().max()) < 0.6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "has no bounds; give a `box`"),
        ({"box": torch.tensor([[0.0, 0, 0], [1, -1, 1]])}, "two finite corners, the first below the second"),
        ({"box": torch.tensor([[0.0, 0, 0], [1, 1, torch.inf]])}, "two finite corners"),
        ({"box": torch.tensor([[-1.0] * 3, [1.0] * 3]), "voxel_size": 0.0}, "`voxel_size` should be positive"),
        ({"box": torch.tensor([[-1.0] * 3, [1.0] * 3]), "voxel_size": 1e-4}, "20000 × 20000 × 20000 voxels are"),
        ({"opacity": 1.0}, "`opacity` should be above 0 and below 1"),
        ({"box": torch.tensor([[2.0] * 3, [3.0] * 3])}, "the field does not reach this opacity anywhere"),
    ],
)  # fmt: skip
def test_a_surface_that_cannot_be_found_is_named(changes, words):
    with pytest.raises(InputError, match=words):
        extract_surface(ball, **changes)
