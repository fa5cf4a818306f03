import numpy as np
import pytest
import torch

from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io import load_cloud, load_mesh, save_cloud, save_mesh

FAR = torch.tensor([448_262.0, 4_000_123.0, 312.0], dtype=torch.float64)


def tetrahedron(dtype=torch.float32, offset=0.0):
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.125]], dtype=dtype) + offset
    return Mesh(vertices, torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]), torch.rand(4, 3))


@pytest.mark.parametrize("suffix", ["ply", "obj"])
@pytest.mark.parametrize("offset", [torch.zeros(3, dtype=torch.float64), FAR], ids=["near", "far"])
def test_mesh_comes_back(tmp_path, suffix, offset):
    mesh = tetrahedron(torch.float64, offset + 1e-3)
    save_mesh(mesh, tmp_path / f"mesh.{suffix}")
    loaded = load_mesh(tmp_path / f"mesh.{suffix}")
    assert (loaded.vertices.double() - mesh.vertices).abs().max() < 1e-7
    assert torch.equal(loaded.faces, mesh.faces)
    assert (loaded.vertex_colors - mesh.vertex_colors).abs().max() < 0.5 / 255 + 1e-6


@pytest.mark.parametrize("suffix", ["ply", "xyz", "npz"])
@pytest.mark.parametrize("extras", ["", "normals", "colors", "normals colors"])
def test_cloud_comes_back(tmp_path, suffix, extras):
    normals = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
    cloud = PointCloud(
        torch.randn(50, 3),
        normals if "normals" in extras else None,
        torch.rand(50, 3) if "colors" in extras else None,
    )
    save_cloud(cloud, tmp_path / f"cloud.{suffix}")
    loaded = load_cloud(tmp_path / f"cloud.{suffix}")
    assert torch.equal(loaded.points, cloud.points)
    for name, tolerance in (("normals", 1e-6), ("colors", 0.5 / 255 + 1e-6)):
        before, after = getattr(cloud, name), getattr(loaded, name)
        assert (before is None) == (after is None)
        assert before is None or (before - after).abs().max() < tolerance


@pytest.mark.parametrize("suffix", ["ply", "xyz", "npz"])
def test_world_coordinates_keep_a_tenth_of_a_millimetre(tmp_path, suffix):
    points = FAR + torch.rand(100, 3, dtype=torch.float64) * 50
    save_cloud(PointCloud(points), tmp_path / f"cloud.{suffix}")
    assert (load_cloud(tmp_path / f"cloud.{suffix}").points - points).abs().max() < 1e-8


def test_float64_array_stays_float64(tmp_path):
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).normal(size=(9, 3)))
    assert load_cloud(tmp_path / "cloud.npy").points.dtype == torch.float64
