"""Damage at random places: the answer is a value or one of our errors, soon."""

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unrender.errors import UnrenderError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io import load_cloud, load_depth, load_mesh, save_cloud, save_mesh

ASCII_PLY = b"""ply
format ascii 1.0
comment made by hand
element vertex 4
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face 3
property list uchar int vertex_indices
end_header
0 0 0 255 0 0
1 0 0 255 0 0
1 1 0 255 0 0
0 1 0.5 255 0 0
4 0 1 2 3
3 0 1 2
3 2 3 0
"""
ASCII_STL = b"""solid one
facet normal 0 0 1
outer loop
vertex 0 0 0
vertex 1 0 0
vertex 0 1 0
endloop
endfacet
endsolid one
"""
ASCII_PCD = b"""# .PCD v.7
VERSION .7
FIELDS x y z rgb
SIZE 4 4 4 4
TYPE F F F F
WIDTH 2
HEIGHT 1
POINTS 2
DATA ascii
0.5 1 2 4.2108e+06
nan nan nan 0
"""


def _saved(folder, suffix):
    if suffix in ("ply", "obj", "stl", "glb"):
        faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
        mesh = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), faces, torch.rand(4, 3))
        save_mesh(mesh, folder / f"mesh.{suffix}")
        return (folder / f"mesh.{suffix}").read_bytes()
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(20, 3, generator=generator), dim=-1)
    cloud = PointCloud(
        torch.randn(20, 3, generator=generator), normals, torch.rand(20, 3, generator=generator)
    )
    save_cloud(cloud, folder / f"cloud.{suffix}")
    return (folder / f"cloud.{suffix}").read_bytes()


def _image(kind, values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def _array(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _compressed_pcd():
    import lzf

    values = np.zeros((3, 50), np.float32)
    packed = lzf.compress(values.tobytes())
    header = ASCII_PCD.replace(b" rgb", b"").replace(b"4 4 4 4", b"4 4 4").replace(b"F F F F", b"F F F")
    header = (
        header.replace(b"POINTS 2", b"POINTS 50").replace(b"ascii", b"binary_compressed").split(b"0.5 1")[0]
    )
    return header + np.array([len(packed), 600], "<u4").tobytes() + packed


def load_depth_image(path):
    return load_depth(path, 10.0)


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """One small valid file of each kind: loader, suffix, bytes."""
    folder = tmp_path_factory.mktemp("valid")
    depth = np.full((8, 9), 800, np.uint16)
    files = {
        f"saved {suffix}": (load_mesh, suffix, _saved(folder, suffix))
        for suffix in ("ply", "obj", "stl", "glb")
    }
    files |= {
        f"saved {suffix}": (load_cloud, suffix, _saved(folder, suffix)) for suffix in ("xyz", "pcd", "npz")
    }
    return files | {
        "ascii ply": (load_mesh, "ply", ASCII_PLY),
        "mesh as cloud": (load_cloud, "ply", ASCII_PLY),
        "ascii stl": (load_mesh, "stl", ASCII_STL),
        "off": (
            load_mesh,
            "off",
            b"OFF # cube corner\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n4 0 1 2 3 255 0 0\n",
        ),
        "csv": (load_cloud, "csv", b"x,y,z,r,g,b\n1,2,3,0,128,255\n4,5,6,1,2,3\n"),
        "ascii pcd": (load_cloud, "pcd", ASCII_PCD),
        "compressed pcd": (load_cloud, "pcd", _compressed_pcd()),
        "npy": (load_cloud, "npy", _array(np.arange(24.0).reshape(4, 6))),
        "depth png": (load_depth_image, "png", _image("PNG", depth)),
        "depth tiff": (load_depth_image, "tiff", _image("TIFF", depth.astype(np.float32))),
        "depth npy": (load_depth_image, "npy", _array(depth.astype(np.float32))),
    }


KINDS = [
    *(f"saved {suffix}" for suffix in ("ply", "obj", "stl", "glb", "xyz", "pcd", "npz")),
    *("ascii ply", "mesh as cloud", "ascii stl", "off", "csv", "ascii pcd", "compressed pcd", "npy"),
    *("depth png", "depth tiff", "depth npy"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_files_are_valid(valid, kind, tmp_path):
    load, suffix, data = valid[kind]
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(data)
    load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_load_or_raise_our_errors(valid, kind, tmp_path_factory):
    load, suffix, data = valid[kind]
    path = tmp_path_factory.mktemp("damaged") / f"file.{suffix}"

    @settings(max_examples=25, deadline=2000, database=None, derandomize=True)
    @given(
        st.integers(0, len(data)),
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4),
    )
    def check(length, changes):
        damaged = bytearray(data)
        for place, value in changes:
            damaged[place] = value
        path.write_bytes(damaged if len(changes) % 2 else damaged[:length])
        with contextlib.suppress(UnrenderError):
            load(path)

    check()
