"""Files that trimesh and pypcd4 write are read, and the other way round."""

import logging

import numpy as np
import pytest
import torch

from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.shapes import ico_sphere
from unrender.io import load_cloud, load_mesh, save_cloud, save_mesh

trimesh = pytest.importorskip("trimesh")
pypcd4 = pytest.importorskip("pypcd4")

EXPORTS = {
    "binary ply": ("ply", {"file_type": "ply"}),
    "ascii ply": ("ply", {"file_type": "ply", "encoding": "ascii"}),
    "binary stl": ("stl", {"file_type": "stl"}),
    "ascii stl": ("stl", {"file_type": "stl_ascii"}),
    "off": ("off", {"file_type": "off"}),
    "obj": ("obj", {"file_type": "obj"}),
    "glb": ("glb", {"file_type": "glb"}),
}


def corners(mesh):
    return mesh.vertices[mesh.faces].numpy()


@pytest.mark.parametrize("export", EXPORTS)
def test_reads_what_trimesh_writes(tmp_path, export):
    suffix, options = EXPORTS[export]
    sphere = ico_sphere(2)
    written = trimesh.Trimesh(sphere.vertices.numpy(), sphere.faces.numpy(), process=False).export(**options)
    (tmp_path / f"mesh.{suffix}").write_bytes(written if isinstance(written, bytes) else written.encode())
    mesh = load_mesh(tmp_path / f"mesh.{suffix}")
    assert mesh.vertices.shape == sphere.vertices.shape
    assert np.abs(corners(mesh) - corners(sphere)).max() < 1e-6


def test_colors_of_trimesh_are_srgb_in_glb_files(tmp_path):
    box = trimesh.creation.box()
    box.visual.vertex_colors = np.full((8, 4), (128, 20, 250, 255), np.uint8)
    (tmp_path / "box.glb").write_bytes(box.export(file_type="glb"))
    assert np.abs(load_mesh(tmp_path / "box.glb").vertex_colors.numpy() * 255 - (128, 20, 250)).max() < 0.01


def test_trimesh_reads_vertex_colors_of_glb_files(tmp_path):
    gray = ico_sphere(0)
    save_mesh(gray.replace(vertex_colors=torch.full((12, 3), 0.5)), tmp_path / "gray.glb")
    colors = trimesh.load_mesh(tmp_path / "gray.glb").visual.vertex_colors[:, :3]
    assert np.abs(colors / 255 - 0.214).max() < 0.003  # linear


@pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "glb"])
def test_trimesh_reads_what_is_written(tmp_path, suffix):
    sphere = ico_sphere(2)
    save_mesh(sphere.replace(vertex_colors=torch.rand(len(sphere.vertices), 3)), tmp_path / f"mesh.{suffix}")
    mesh = trimesh.load_mesh(tmp_path / f"mesh.{suffix}")
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert np.abs(mesh.triangles - corners(sphere)).max() < 1e-6


def test_stl_whose_name_has_the_word_vertex_in_it(tmp_path):
    written = trimesh.creation.box().export(file_type="stl_ascii").replace("solid", "solid vertex_0", 1)
    (tmp_path / "box.stl").write_text(written)
    assert load_mesh(tmp_path / "box.stl").vertices.shape == (8, 3)


def test_glb_with_a_texture_seam_is_welded(tmp_path):
    flat = trimesh.creation.box()
    flat.unmerge_vertices()
    (tmp_path / "box.glb").write_bytes(trimesh.Scene(flat).export(file_type="glb"))
    mesh = load_mesh(tmp_path / "box.glb")
    assert mesh.vertices.shape == (8, 3)
    assert mesh.faces.shape == (12, 3)


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("kind", [np.float32, np.uint32])
def test_reads_what_pypcd4_writes(tmp_path, encoding, kind):
    generator = np.random.default_rng(0)
    points, rgb = (
        generator.integers(-2, 3, (500, 3)).astype(np.float32) + 0.5,  # none at the origin
        generator.integers(1, 255, (500, 3), dtype=np.uint8),
    )
    packed = pypcd4.PointCloud.encode_rgb(rgb).view(kind)
    cloud = pypcd4.PointCloud.from_points(
        [*points.T, packed.reshape(-1)], ("x", "y", "z", "rgb"), (np.float32, np.float32, np.float32, kind)
    )
    cloud.save(tmp_path / "cloud.pcd", pypcd4.Encoding(encoding))
    assert f"DATA {encoding}\n".encode() in (tmp_path / "cloud.pcd").read_bytes()
    loaded = load_cloud(tmp_path / "cloud.pcd")
    torch.testing.assert_close(loaded.points, torch.from_numpy(points), atol=1e-9, rtol=1e-6)
    if encoding != "ascii" or kind is np.uint32:  # its text drops the digits of packed floats
        assert (loaded.colors * 255).round().int().tolist() == rgb.tolist()


def test_pypcd4_reads_what_is_written(tmp_path):
    cloud = PointCloud(torch.rand(9, 3), None, torch.rand(9, 3))
    save_cloud(cloud, tmp_path / "cloud.pcd")
    loaded = pypcd4.PointCloud.from_path(tmp_path / "cloud.pcd")
    assert np.array_equal(loaded.numpy(("x", "y", "z")), cloud.points.numpy())
    rgb = pypcd4.PointCloud.decode_rgb(loaded.pc_data["rgb"])
    assert np.abs(rgb / 255 - cloud.colors.numpy()).max() < 0.5 / 255 + 1e-6


def test_other_libraries_log_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    save_mesh(Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]])), tmp_path / "mesh.glb")
    load_mesh(tmp_path / "mesh.glb")
    assert not caplog.records
