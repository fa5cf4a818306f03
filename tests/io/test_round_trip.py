import numpy as np
import pytest
import torch

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io import load_cloud, load_mesh, save_cloud, save_mesh

FAR = torch.tensor([448_262.0, 4_000_123.0, 312.0], dtype=torch.float64)


def tetrahedron(dtype=torch.float32, offset=0.0):
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.125]], dtype=dtype) + offset
    return Mesh(vertices, torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]), torch.rand(4, 3))


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
@pytest.mark.parametrize("offset", [torch.zeros(3, dtype=torch.float64), FAR], ids=["near", "far"])
def test_mesh_round_trip(tmp_path, suffix, offset):
    mesh = tetrahedron(torch.float64, offset + 1e-3)
    save_mesh(mesh, tmp_path / f"mesh.{suffix}")
    loaded = load_mesh(tmp_path / f"mesh.{suffix}")
    assert (loaded.vertices.double() - mesh.vertices).abs().max() < 1e-7
    assert torch.equal(loaded.faces, mesh.faces)
    assert (loaded.vertex_colors - mesh.vertex_colors).abs().max() < 0.5 / 255 + 1e-6


@pytest.mark.parametrize("suffix", ["ply", "xyz", "npz", "pcd"])
@pytest.mark.parametrize("extras", ["", "normals", "colors", "normals colors"])
def test_cloud_round_trip(tmp_path, suffix, extras):
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


@pytest.mark.parametrize("suffix", ["ply", "xyz", "npz", "pcd"])
def test_world_coordinates_keep_a_tenth_of_a_millimeter(tmp_path, suffix):
    points = FAR + torch.rand(100, 3, dtype=torch.float64) * 50
    save_cloud(PointCloud(points), tmp_path / f"cloud.{suffix}")
    assert (load_cloud(tmp_path / f"cloud.{suffix}").points - points).abs().max() < 1e-8


def test_float64_array_stays_float64(tmp_path):
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).normal(size=(9, 3)))
    assert load_cloud(tmp_path / "cloud.npy").points.dtype == torch.float64


def test_float64_round_trip_is_exact(tmp_path):
    mesh, cloud = tetrahedron(torch.float64, 1 / 3), PointCloud(torch.rand(9, 3, dtype=torch.float64))
    save_mesh(mesh, tmp_path / "mesh.ply")
    assert torch.equal(load_mesh(tmp_path / "mesh.ply").vertices, mesh.vertices)
    for suffix in ("ply", "npz", "pcd"):
        save_cloud(cloud, tmp_path / f"cloud.{suffix}")
        assert torch.equal(load_cloud(tmp_path / f"cloud.{suffix}").points, cloud.points)


def test_stl_welds_vertices_and_warns_about_precision(tmp_path, caplog):
    save_mesh(tetrahedron(), tmp_path / "near.stl")
    loaded = load_mesh(tmp_path / "near.stl")
    assert torch.equal(loaded.vertices[loaded.faces], tetrahedron().vertices[tetrahedron().faces])
    assert len(loaded.vertices) == 4
    assert not caplog.messages
    save_mesh(tetrahedron(torch.float64, FAR), tmp_path / "far.stl")
    assert "STL stores float32" in caplog.text


def test_saving_is_deterministic(tmp_path):
    for suffix in ("ply", "obj", "stl", "glb"):
        torch.manual_seed(0)
        save_mesh(tetrahedron(), tmp_path / f"a.{suffix}")
        torch.manual_seed(0)
        save_mesh(tetrahedron(), tmp_path / f"b.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_several_parts_of_a_glb_become_one_mesh(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    box, mirrored = trimesh.creation.box(), np.diag([-2.0, 1.0, 1.0, 1.0])
    mirrored[:3, 3] = [10, 0, 0]
    scene = trimesh.Scene()
    scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([0, 5, 0]))
    scene.add_geometry(box, transform=mirrored)
    (tmp_path / "scene.glb").write_bytes(scene.export(file_type="glb"))
    mesh = load_mesh(tmp_path / "scene.glb")
    assert mesh.vertices.shape == (16, 3)
    assert mesh.faces.shape == (24, 3)
    assert mesh.vertices.amin(0).tolist() == [-0.5, -0.5, -0.5]
    assert mesh.vertices.amax(0).tolist() == [11, 5.5, 0.5]
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert (a * torch.linalg.cross(b, c)).sum() / 6 == pytest.approx(3.0)  # both turn outward: 1 + 2


@pytest.mark.parametrize("colors", [torch.rand(4, 1), torch.rand(4, 4)], ids=["gray", "with opacity"])
def test_colors_of_other_channels_become_rgb(tmp_path, colors):
    save_mesh(tetrahedron().replace(vertex_colors=colors), tmp_path / "mesh.ply")
    loaded = load_mesh(tmp_path / "mesh.ply").vertex_colors
    assert (loaded - colors[:, :3].expand(4, 3)).abs().max() < 0.5 / 255 + 1e-6


def test_padding_of_a_cloud_is_not_saved(tmp_path):
    save_cloud(PointCloud(torch.randn(9, 3), lengths=torch.tensor(5)), tmp_path / "cloud.ply")
    assert load_cloud(tmp_path / "cloud.ply").points.shape == (5, 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Mesh(torch.rand(2, 4, 3), torch.tensor([[0, 1, 2]])), "expected a single mesh"),
        (Mesh(torch.full((3, 3), torch.nan), torch.tensor([[0, 1, 2]])), "not all vertices are finite"),
        (Mesh(torch.rand(4, 3), torch.empty(0, 3, dtype=torch.long)), "it has no faces"),
        (Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]), torch.rand(3, 7)), "1, 3 or 4 channels"),
        (PointCloud(torch.rand(2, 4, 3)), "expected a single point cloud"),
        (PointCloud(torch.rand(0, 3)), "the point cloud has no points"),
    ],
)
def test_unsupported_values_are_rejected(tmp_path, value, message):
    path = tmp_path / "out.ply"
    with pytest.raises(InputError, match=message):
        (save_mesh if isinstance(value, Mesh) else save_cloud)(value, path)
    assert not list(tmp_path.iterdir())
