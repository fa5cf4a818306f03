"""Meshes and point clouds."""

import functools
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fuzzing import layouts
from fuzzing.kinds import Kind
from fuzzing.layouts import Layout
from unrender import Mesh, PointCloud, load_cloud, load_mesh, load_textured_mesh, save_cloud, save_mesh

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]])
UVS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
MTL = "newmtl a\nKd 0.8 0.5 0.2\nmap_Kd -s 1 1 1 -o 0 0 0 t.png\nnewmtl b\nKd 1 0 0\n"
OBJ = """mtllib m.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0.5
vt 0 0
vt 1 0
vt 1 1
vt 0 1
vn 0 0 1
usemtl a
f 1/1/1 2/2/1 3/3/1 4/4/1
usemtl b
f -4 -3 -1
"""
TEXT_PLY = """ply
format ascii 1.0
comment TextureFile t.png
element vertex 4
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face 2
property list uchar int vertex_indices
property list uchar float texcoord
end_header
0 0 0 255 0 0
1 0 0 255 0 0
1 1 0 0 255 0
0 1 0.5 0 0 255
4 0 1 2 3 8 0 0 1 0 1 1 0 1
3 0 1 2 6 0 0 1 0 1 1
"""
STL = """solid one
facet normal 0 0 1
outer loop
vertex 0 0 0
vertex 1 0 0
vertex 0 1 0
endloop
endfacet
endsolid one
"""
OFF = "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n4 0 1 2 3 255 0 0\n"
CNOFF = "CNOFF 3 1 0\n0 0 0 0 0 1 255 0 0\n1 0 0 0 0 1 0 255 0\n0 1 0 0 0 1 0 0 255\n3 0 1 2\n"
PCD = """# .PCD v.7
VERSION .7
FIELDS x y z rgb
SIZE 4 4 4 4
TYPE F F F F
WIDTH 3
HEIGHT 1
POINTS 3
DATA ascii
0.5 1 2 4.2108e+06
1 0 2 4.2108e+06
nan nan nan 0
"""


def _mesh() -> Mesh:
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    return Mesh(torch.from_numpy(CORNERS).float(), faces, torch.tensor([[0.0, 0.5, 1.0]] * 4))


def _cloud() -> PointCloud:
    generator = torch.Generator().manual_seed(0)
    points, normals = (torch.randn(20, 3, generator=generator) for _ in range(2))
    colors = torch.rand(20, 3, generator=generator)
    return PointCloud(points, torch.nn.functional.normalize(normals, dim=-1), colors)


def _image(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)).save(path)


def _kind(name: str, file: str, content: str | bytes, read: Callable[[Path], object], layout: Layout) -> Kind:
    """Make a kind of a single file."""

    def make(folder: Path) -> None:
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return Kind(name, file, make, lambda folder: read(folder / file), layout)


def _saved_mesh(name: str, file: str, layout: Layout) -> Kind:
    return Kind(
        name,
        file,
        lambda folder: save_mesh(_mesh(), folder / file),
        lambda folder: _textured(folder / file),
        layout,
    )


def _saved_cloud(name: str, file: str, layout: Layout) -> Kind:
    return Kind(
        name,
        file,
        lambda folder: save_cloud(_cloud(), folder / file),
        lambda folder: load_cloud(folder / file),
        layout,
    )


def _textured(path: Path) -> object:
    return load_mesh(path), load_textured_mesh(path)


def _both(path: Path) -> object:
    """Read a file that may be a mesh or a cloud as both."""
    return load_cloud(path), load_mesh(path)


def _write_obj(folder: Path) -> None:
    (folder / "m.obj").write_text(OBJ)
    (folder / "m.mtl").write_text(MTL)
    _image(folder / "t.png")


def _write_ply(folder: Path) -> None:
    (folder / "m.ply").write_text(TEXT_PLY)
    _image(folder / "t.png")


def _big_endian_ply() -> bytes:
    header = (
        "ply\nformat binary_big_endian 1.0\nelement vertex 4\nproperty double x\nproperty double y\n"
        "property double z\nelement face 2\nproperty list uchar uint vertex_indices\nend_header\n"
    )
    faces = struct.pack(">BIIIIBIII", 4, 0, 1, 2, 3, 3, 0, 1, 2)
    return header.encode() + CORNERS.astype(">f8").tobytes() + faces


def _glb(uri: str | None = None) -> bytes:
    """Return a textured quad; its image is embedded, or in a file."""
    image = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 99, np.uint8)).save(image, "PNG")
    arrays: list[NDArray[np.generic]] = [
        CORNERS.astype("<f4"), UVS.astype("<f4"), np.array([0, 1, 2, 0, 2, 3], "<u2"),
        np.frombuffer(image.getvalue(), "u1"), np.full((4, 4), 200, "u1"),
    ]  # fmt: skip
    starts = np.cumsum([0, *((array.nbytes + 3) // 4 * 4 for array in arrays)])
    body = b"".join(array.tobytes() + bytes(-array.nbytes % 4) for array in arrays)
    accessors = [
        (0, 5126, 4, "VEC3", {}),
        (1, 5126, 4, "VEC2", {}),
        (2, 5123, 6, "SCALAR", {}),
        (4, 5121, 4, "VEC4", {"normalized": True}),
    ]
    moved = {"mesh": 0, "translation": [2, 0, 0], "rotation": [0, 0, 0, 1], "scale": [1, 2, 1]}
    attributes = {"POSITION": 0, "TEXCOORD_0": 1, "COLOR_0": 3}
    header = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "children": [1]}, moved],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 2, "material": 0, "mode": 4}]}],
        "materials": [
            {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "baseColorFactor": [1, 0.5, 1, 1]}}
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"wrapS": 10497, "wrapT": 33071}],
        "images": [{"bufferView": 3, "mimeType": "image/png"} if uri is None else {"uri": uri}],
        "buffers": [{"byteLength": len(body)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": int(start), "byteLength": array.nbytes}
            for start, array in zip(starts, arrays, strict=False)
        ],
        "accessors": [
            {"bufferView": view, "componentType": kind, "count": count, "type": shape, **more}
            for view, kind, count, shape, more in accessors
        ],
    }
    return layouts.GLB.close([json.dumps(header).encode(), body])


def _write_glb(folder: Path) -> None:
    (folder / "m.glb").write_bytes(_glb("t.png"))
    _image(folder / "t.png")


def _packed_pcd() -> bytes:
    import lzf

    packed = lzf.compress(np.zeros((3, 50), np.float32).tobytes())
    header = (
        "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 50\nHEIGHT 1\nPOINTS 50\n"
        "DATA binary_compressed\n"
    )
    return header.encode() + np.array([len(packed), 600], "<u4").tobytes() + packed


def _npy(values: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _pytorch3d_obj(path: Path) -> object:
    from unrender.compat.pytorch3d.io import load_obj, load_objs_as_meshes

    meshes = load_objs_as_meshes([path])
    return load_obj(path), meshes.verts_packed()


def _pytorch3d_ply(path: Path) -> object:
    from unrender.compat.pytorch3d.io import load_ply

    return load_ply(path)


def _tables() -> list[Kind]:
    rows = np.hstack([_cloud().points.numpy(), np.random.default_rng(0).integers(0, 256, (20, 3))])
    blanks, commas = ("\n".join(mark.join(f"{x:.6g}" for x in row) for row in rows) for mark in (" ", ","))
    text = functools.partial(_kind, read=load_cloud, layout=layouts.TEXT)
    return [
        text("cloud-txt", "c.txt", "# x y z r g b\n" + blanks),
        text("cloud-csv", "c.csv", "x,y,z,red,green,blue\n" + commas),
        text("cloud-pts", "c.pts", f"20\n{blanks}"),
        text("cloud-asc", "c.asc", blanks.replace(" ", ";")),
        text("cloud-pcd-text", "c.pcd", PCD),
    ]


KINDS = [
    _saved_mesh("mesh-ply", "m.ply", layouts.PLY),
    _saved_mesh("mesh-obj", "m.obj", layouts.TEXT),
    _saved_mesh("mesh-stl", "m.stl", layouts.BINARY),
    _saved_mesh("mesh-glb", "m.glb", layouts.GLB),
    _kind("mesh-ply-big-endian", "m.ply", _big_endian_ply(), _both, layouts.PLY),
    _kind("mesh-stl-text", "m.stl", STL, _both, layouts.TEXT),
    _kind("mesh-off", "m.off", OFF, _both, layouts.TEXT),
    _kind("mesh-cnoff", "m.off", CNOFF, _both, layouts.TEXT),
    Kind("mesh-ply-text", "m.ply", _write_ply, lambda folder: _textured(folder / "m.ply"), layouts.TEXT),
    Kind("mesh-obj-textured", "m.obj", _write_obj, lambda folder: _textured(folder / "m.obj"), layouts.TEXT),
    Kind("mesh-mtl", "m.mtl", _write_obj, lambda folder: _textured(folder / "m.obj"), layouts.TEXT),
    Kind("mesh-texture", "t.png", _write_obj, lambda folder: _textured(folder / "m.obj"), layouts.PNG),
    Kind("mesh-glb-textured", "m.glb", _write_glb, lambda folder: _textured(folder / "m.glb"), layouts.GLB),
    _kind("mesh-glb-embedded", "m.glb", _glb(), _textured, layouts.GLB),
    Kind("pytorch3d-obj", "m.obj", _write_obj, lambda folder: _pytorch3d_obj(folder / "m.obj"), layouts.TEXT),
    Kind("pytorch3d-mtl", "m.mtl", _write_obj, lambda folder: _pytorch3d_obj(folder / "m.obj"), layouts.TEXT),
    _kind("pytorch3d-ply", "m.ply", TEXT_PLY, _pytorch3d_ply, layouts.TEXT),
    _saved_cloud("cloud-ply", "c.ply", layouts.PLY),
    _saved_cloud("cloud-xyz", "c.xyz", layouts.TEXT),
    _saved_cloud("cloud-npz", "c.npz", layouts.NPZ),
    _saved_cloud("cloud-pcd", "c.pcd", layouts.PCD),
    _kind("cloud-pcd-compressed", "c.pcd", _packed_pcd(), load_cloud, layouts.PCD_COMPRESSED),
    _kind("cloud-npy", "c.npy", _npy(np.arange(24.0).reshape(4, 6)), load_cloud, layouts.NPY),
    *_tables(),
]
