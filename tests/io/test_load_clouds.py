import io

import numpy as np
import pytest
import torch

from unrender.errors import FileFormatError
from unrender.geometry.mesh import Mesh
from unrender.geometry.shapes import ico_sphere
from unrender.io import load_cloud, load_mesh, save_mesh
from unrender.io.clouds import NUM_SAMPLES

NORMALS = [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]
COLORS = [[0.2, 0.4, 1.0], [0.0, 0.6, 0.8]]

TABLES = {
    "plain": ("xyz", "1 2 3\n4 5 6", ""),
    "tabs, blank lines, no last line end": ("xyz", "\n\t1\t 2 3 \n\n4 5 6", ""),
    "comments": ("txt", "# hellö\n1 2 3 # one\n// two\n4 5 6\n", ""),
    "byte-order mark": ("xyz", "\ufeff1 2 3\n4 5 6", ""),
    "other line ends": ("xyz", "1 2 3\r\n4 5 6\r\n", ""),
    "commas": ("csv", "1,2,3\n4, 5, 6\n", ""),
    "semicolons": ("csv", "1;2;3\n4;5;6\n", ""),
    "an intensity": ("txt", "1 2 3 0.7\n4 5 6 0.8", ""),
    "normals": ("xyz", "1 2 3 0.6 0.8 0\n4 5 6 0 0 1", "normals"),
    "normals of other length, named": (
        "xyz",
        "x y z nx ny nz\n1 2 3 -6 -8 0\n4 5 6 0 0 -3",
        "opposite normals",
    ),
    "vectors of other length": ("xyz", "1 2 3 -6 -8 0\n4 5 6 0 0 -3", ""),
    "colors in 0..1": ("xyz", "1 2 3 0.2 0.4 1\n4 5 6 0 0.6 0.8", "colors"),
    "colors in 0..255": ("xyz", "1 2 3 51 102 255\n4 5 6 0 153 204", "colors"),
    "normals, then colors": ("xyz", "1 2 3 0.6 0.8 0 51 102 255\n4 5 6 0 0 1 0 153 204", "normals colors"),
    "colors, then normals": ("xyz", "1 2 3 51 102 255 0.6 0.8 0\n4 5 6 0 153 204 0 0 1", "normals colors"),
    "count, intensity, colors": ("pts", "2\n1 2 3 -870 51 102 255\n4 5 6 -900 0 153 204\n", "colors"),
    "normals and curvature": ("txt", "1 2 3 0.6 0.8 0 0.01\n4 5 6 0 0 1 0.02", "normals"),
    "names": ("csv", "x,y,z,red,green,blue\n1,2,3,51,102,255\n4,5,6,0,153,204", "colors"),
    "names in another order": (
        "csv",
        '"Intensity";"Z";"Y";"X";"nx";"ny";"nz"\n9;3;2;1;0.6;0.8;0\n9;6;5;4;0;0;1\n',
        "normals",
    ),
    "names that say nothing": ("txt", "east north up\n1 2 3\n4 5 6", ""),
    "ascii pcd": (
        "pcd",
        "VERSION .5\nFIELDS x y z _ normal_x normal_y normal_z\nSIZE 4 4 4 1 4 4 4\nTYPE F F F U F F F\n"
        "COUNT 1 1 1 2 1 1 1\nWIDTH 2\nHEIGHT 1\nPOINTS 2\nDATA ascii\n1 2 3 0 0  0.6 0.8 0\n4 5 6 0 0 0 0 1\n",
        "normals",
    ),
    "obj without faces": (
        "obj",
        "v 1 2 3 0.2 0.4 1\nvn 0.6 0.8 0\nv 4 5 6 0 0.6 0.8\nvn 0 0 1",
        "normals colors",
    ),
    "ply without faces": (
        "ply",
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty float nx\nproperty float ny\n"
        "property float nz\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n"
        "1 2 3 51 102 255 0.6 0.8 0\n4 5 6 0 153 204 0 0 1\n",
        "normals colors",
    ),
    "off without faces": (
        "off",
        "CNOFF2 0 0\n1 2 3 0.6 0.8 0 51 102 255\n4 5 6 0 0 1 0 153 204\n",
        "normals colors",
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_table(tmp_path, case):
    suffix, text, extras = TABLES[case]
    (tmp_path / f"cloud.{suffix}").write_text(text, encoding="utf-8", newline="")
    cloud = load_cloud(tmp_path / f"cloud.{suffix}")
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert cloud.points.dtype == torch.float32
    for name, expected in (("normals", NORMALS), ("colors", COLORS)):
        value = getattr(cloud, name)
        assert (value is not None) == (name in extras)
        if value is not None:
            sign = -1 if "opposite" in extras else 1
            torch.testing.assert_close(value, sign * torch.tensor(expected))


ARRAYS = {
    "float32": (np.arange(6, dtype=np.float32).reshape(2, 3), torch.float32),
    "float64": (np.arange(6.0).reshape(2, 3), torch.float64),
    "whole numbers": (np.arange(6).reshape(2, 3), torch.float64),
    "short numbers": (np.arange(6, dtype=np.uint8).reshape(2, 3), torch.float32),
    "column by column": (np.asfortranarray(np.arange(6.0).reshape(2, 3)), torch.float64),
    "most significant byte first": (np.arange(6, dtype=">f4").reshape(2, 3), torch.float32),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_array(tmp_path, case):
    array, dtype = ARRAYS[case]
    np.save(tmp_path / "cloud.npy", array)
    np.savez_compressed(tmp_path / "cloud.npz", points=array, normals=np.ones((2, 3)), other=np.zeros(7))
    for name in ("cloud.npy", "cloud.npz"):
        cloud = load_cloud(tmp_path / name)
        assert cloud.points.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert cloud.points.dtype == dtype
    torch.testing.assert_close(cloud.normals, torch.full((2, 3), 3**-0.5, dtype=dtype))


@pytest.mark.parametrize("big_endian", [False, True])
def test_binary_ply_of_mixed_polygons_and_other_elements(tmp_path, big_endian):
    order = ">" if big_endian else "<"
    header = f"""ply
format binary_{"big" if big_endian else "little"}_endian 1.0
element camera 1
property list uchar float view
element vertex 5
property double x
property double y
property double z
element face 3
property uchar flag
property list uchar int vertex_indices
property list uchar float texcoord
element edge 1
property int vertex1
property int vertex2
end_header
"""
    body = io.BytesIO()
    for kind, *values in [
        ("u1", 2), ("f4", 0.5, 0.5), ("f8", 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0.5, 2, 0),
        ("u1", 7, 3), ("i4", 0, 1, 2), ("u1", 0),
        ("u1", 7, 5), ("i4", 0, 1, 2, 4, 3), ("u1", 2), ("f4", 0, 1),
        ("u1", 7, 4), ("i4", 0, 1, 2, 3), ("u1", 1), ("f4", 0), ("i4", 0, 1),
    ]:  # fmt: skip
        body.write(np.array(values, dtype=order + kind).tobytes())
    (tmp_path / "mesh.ply").write_bytes(header.encode() + body.getvalue())
    mesh = load_mesh(tmp_path / "mesh.ply")
    assert mesh.vertices.dtype == torch.float64
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 1, 2], [0, 2, 4], [0, 4, 3], [0, 1, 2], [0, 2, 3]]


BINARY_HEADERS = {
    "ply": "ply\nformat binary_little_endian 1.0\nelement vertex 2\n{0}end_header\n",
    "pcd": "VERSION .7\nFIELDS x y z\nSIZE {1} {1} {1}\nTYPE I I I\nCOUNT 1 1 1\nWIDTH 2\nHEIGHT 1\nPOINTS 2\n"
    "DATA binary\n",
}


@pytest.mark.parametrize("suffix", BINARY_HEADERS)
@pytest.mark.parametrize(("kind", "dtype"), [("int16", torch.float32), ("int32", torch.float64)])
def test_integers_become_floats_of_sufficient_precision(tmp_path, suffix, kind, dtype):
    values = np.array([[1, 2, 3], [4, 5, 32_767]], kind)
    properties = "".join(f"property {kind} {name}\n" for name in "xyz")
    header = BINARY_HEADERS[suffix].format(properties, values.itemsize)
    (tmp_path / f"cloud.{suffix}").write_bytes(header.encode() + values.tobytes())
    cloud = load_cloud(tmp_path / f"cloud.{suffix}")
    assert cloud.points.tolist() == values.tolist()
    assert cloud.points.dtype == dtype


def test_non_finite_points_are_removed_with_a_warning(tmp_path, caplog):
    (tmp_path / "cloud.xyz").write_text("1 2 3 0 0 1\nnan 0 0 0 0 1\n4 5 6 0 0 1\n0 -inf 0 0 0 1\n")
    cloud = load_cloud(tmp_path / "cloud.xyz")
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert cloud.normals.shape == (2, 3)
    assert "removed 2 of 4 points that are not finite" in caplog.text


def test_cloud_without_finite_points_is_rejected(tmp_path):
    (tmp_path / "cloud.xyz").write_text("nan nan nan\n")
    with pytest.raises(FileFormatError, match="none of the 1 points is finite"):
        load_cloud(tmp_path / "cloud.xyz")


def test_invalid_normals_are_zero(tmp_path):
    np.savez(
        tmp_path / "c.npz",
        points=np.zeros((4, 3)),
        normals=[[0, 0, 0], [0, 0, np.nan], [0, np.inf, 0], [0, 1e300, 0]],
    )
    assert load_cloud(tmp_path / "c.npz").normals.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("suffix", ["ply", "obj", "stl", "glb"])
def test_meshes_are_sampled(tmp_path, caplog, suffix):
    sphere = ico_sphere(3)
    save_mesh(sphere.replace(vertex_colors=sphere.vertices * 0.5 + 0.5), tmp_path / f"mesh.{suffix}")
    cloud, again = (load_cloud(tmp_path / f"mesh.{suffix}") for _ in range(2))
    assert "sampled 20000 points from its surface" in caplog.text
    assert cloud.points.shape == (NUM_SAMPLES, 3)
    assert torch.equal(cloud.points, again.points)
    assert (cloud.points.norm(dim=-1) - 1).abs().max() < 0.02
    assert (cloud.points * cloud.normals).sum(-1).min() > 0.98
    if suffix != "stl":
        assert (cloud.colors - (cloud.points * 0.5 + 0.5)).abs().max() < 0.01


def test_mesh_without_area_is_rejected(tmp_path):
    save_mesh(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), tmp_path / "mesh.ply")
    with pytest.raises(FileFormatError, match="cannot sample points from the mesh: it has no surface area"):
        load_cloud(tmp_path / "mesh.ply")


def test_rays_without_return_are_dropped(tmp_path, caplog):
    points = np.random.default_rng(0).random((30, 3)).astype(np.float32)
    points[::3] = 0
    np.save(tmp_path / "scan.npy", points)
    cloud = load_cloud(tmp_path / "scan.npy")
    assert np.array_equal(cloud.points, points[(points != 0).any(axis=1)])
    assert "removed 10 of 30 points at the origin" in caplog.text


@pytest.mark.parametrize("zeros", [1, 5])
def test_a_point_at_the_origin_is_kept_if_it_is_alone(tmp_path, zeros, caplog):
    points = np.zeros((5, 3), np.float32)
    points[zeros:] = 1
    np.save(tmp_path / "scan.npy", points)
    assert len(load_cloud(tmp_path / "scan.npy").points) == 5
    assert not caplog.text
