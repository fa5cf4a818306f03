"""Files that lie: each answer names the file, and the line, row or byte where that is known."""

import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from unrender.errors import FileFormatError, InputError
from unrender.io import load_cloud, load_depth, load_mesh


def ply(elements, body=b"", kind="ascii"):
    return f"ply\nformat {kind} 1.0\n{elements}end_header\n".encode() + body


XYZ = "property float x\nproperty float y\nproperty float z\n"
FACE = "property list uchar int vertex_indices\n"
BINARY = "binary_little_endian"
THREE = b"0 0 0\n1 0 0\n0 1 0\n"
THREE_FLOATS = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0], "<f4").tobytes()
FACE_BYTES = struct.pack("<Biii", 3, 0, 1, 2)


def text_mesh(rows, num_faces=1):
    return ply(f"element vertex 3\n{XYZ}element face {num_faces}\n{FACE}", THREE + rows)


def binary_mesh(rows, num_faces=1, face=FACE, vertices=THREE_FLOATS):
    return ply(f"element vertex 3\n{XYZ}element face {num_faces}\n{face}", vertices + rows, BINARY)


NO_FIT = "face {}: list 'vertex_indices' extends beyond"

PLY = {
    "not ply": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "should begin with 'ply'"),
    "no end": (b"ply\nformat ascii 1.0\nelement vertex 3\n", "no end_header line"),
    "no format": (b"ply\nelement vertex 0\nend_header\n", "no format line"),
    "odd format": (b"ply\nformat utf8 1.0\nend_header\n", "line 2: .* 'format utf8 1.0'"),
    "negative count": (ply(f"element vertex -3\n{XYZ}", THREE), "line 3: .* 'element vertex -3'"),
    "no count": (ply(f"element vertex\n{XYZ}", THREE), "line 3: .* 'element vertex'"),
    "odd type": (ply("element vertex 3\nproperty real x\n", THREE), "line 4: .* 'property real x'"),
    "homeless property": (ply(XYZ, THREE), "line 3: .* 'property float x'"),
    "lengths in floats": (ply("element face 1\nproperty list float int a\n", b"1 1"), "line 4"),
    "no z": (ply("element vertex 1\nproperty float x\nproperty float y\n", b"1 2\n"), "no vertices"),
    "no vertices": (ply(f"element vertex 0\n{XYZ}"), "no vertices"),
    "declares too much": (
        ply(f"element vertex 99999999999\n{XYZ}", THREE),
        "declares 99999999999 rows .* has 3",
    ),
    "too few lines": (ply(f"element vertex 3\n{XYZ}", THREE[:12]), "declares 3 rows of 'vertex'.* has 2"),
    "a short line": (
        ply(f"element vertex 3\n{XYZ}", b"0 0 0\n1 0\n0 1 0\n"),
        "line 9: the number of columns changes from 3 to 2",
    ),
    "all lines short": (
        ply(f"element vertex 3\n{XYZ}", b"0 0\n1 0\n0 1\n"),
        "line 8: expected 3 numbers by the header, got 2",
    ),
    "a word": (ply(f"element vertex 3\n{XYZ}", b"0 0 0\n1 x 0\n0 1 0\n"), "line 9: 'x' is not a number"),
    "missing vertex": (
        text_mesh(b"3 0 1 2\n3 0 1 3\n", 2),
        "face 2 references vertex 3, but the file has 0 to 2",
    ),
    "negative vertex": (text_mesh(b"3 0 1 -1\n"), "face 1 references vertex -1"),
    "two corners": (text_mesh(b"2 0 1\n"), "face 1 should have at least 3 corners, got 2"),
    "a face cut off": (text_mesh(b"3 0 1 2\n3 0 1\n", 2), "line 14: expected 4 numbers by the header, got 3"),
    "a face too long": (
        text_mesh(b"3 0 1 2 9\n3 0 1 2\n", 2),
        "line 13: expected 4 numbers by the header, got 5",
    ),
    "binary, declares too much": (
        ply(f"element vertex 99999999999\n{XYZ}", THREE_FLOATS, BINARY),
        "declares 99999999999 rows .* has 3",
    ),
    "binary, cut off": (
        ply(f"element vertex 3\n{XYZ}", THREE_FLOATS[:-1], BINARY),
        "declares 3 rows .* has 2",
    ),
    "binary, a list too long": (binary_mesh(b"\xff" + bytes(12)), NO_FIT.format(1)),
    "binary, a negative length": (
        binary_mesh(b"\xff" + bytes(12), face=FACE.replace("uchar", "char")),
        NO_FIT.format(1),
    ),
    "binary, faces cut off": (binary_mesh((2 * FACE_BYTES)[:-1], 2), NO_FIT.format(2)),
    "binary, missing vertex": (
        binary_mesh(struct.pack("<Biii", 3, 0, 1, 1 << 30)),
        "face 1 references vertex 1073741824",
    ),
    "binary, the same name twice": (
        ply(f"element vertex 3\n{XYZ}{XYZ}", 2 * THREE_FLOATS, BINARY),
        "occurs more than once",
    ),
    "binary, not finite": (
        binary_mesh(FACE_BYTES, vertices=THREE_FLOATS[:-4] + b"\0\0\xc0\x7f"),
        "vertex 3 is not finite",
    ),
}

STL = {
    "garbage": (bytes(range(256)), "the header declares"),
    "short": (b"abc", "the header declares 0 triangles"),
    "none": (bytes(84), "no triangles"),
    "cut off": (
        bytes(80) + b"\x02\0\0\0" + bytes(99),
        "declares 2 triangles, 184 bytes, but the file has 183",
    ),
    "text cut off": (
        b"solid\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\n",
        "does not end with 'endsolid'",
    ),
    "text, two corners": (
        b"solid\nvertex 0 0 0\nvertex 1 0 0\nendfacet\nendsolid",
        "1 facets should have 3 vertices, got 2",
    ),
    "text, a word": (
        b"solid\nvertex 0 0 0\nvertex 1 0 a\nvertex 1 1 1\nendfacet\nendsolid",
        "line 3: 'a' is not a number",
    ),
    "text, two coordinates": (
        b"solid\nvertex 0 0\nvertex 1 0\nvertex 1 1\nendfacet\nendsolid",
        "line 2: a vertex should have 3",
    ),
}

OFF = {
    "not off": (b"hello", "should begin with OFF"),
    "no counts": (b"OFF\n", "expected the numbers of vertices and faces"),
    "negative counts": (b"OFF\n3 -1 0\n", "line 2: expected the numbers"),
    "declares too much": (
        b"OFF\n99999999999 1 0\n0 0 0\n",
        "declares 99999999999 vertices .* but only 1 lines follow",
    ),
    "no vertices": (b"OFF 0 0 0\n", "no vertices"),
    "short vertex": (
        b"OFF 3 1 0\n0 0 0\n1 0\n0 1 0\n3 0 1 2\n",
        "line 3: the number of columns changes from 3 to 2",
    ),
    "missing vertex": (
        b"OFF 3 1 0\n" + THREE + b"3 0 1 3\n",
        "line 5: a face references vertex 3, but the file has 0 to 2",
    ),
    "negative vertex": (b"OFF 3 1 0\n" + THREE + b"3 0 1 -1\n", "line 5: a face references vertex -1"),
    "two corners": (b"OFF 3 1 0\n" + THREE + b"2 0 1\n", "line 5: expected the number of corners"),
    "short face": (b"OFF 3 1 0\n" + THREE + b"4 0 1 2\n", "line 5: expected the number of corners"),
    "a word": (b"OFF 3 1 0\n" + THREE + b"3 0 1 two\n", "line 5: 'two' is not a number"),
}


def glb(header, body=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def glb_mesh(position, indices=None, mode=4, corners=(0, 1, 2)):
    body = THREE_FLOATS + struct.pack("<III", *corners)
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"} | position,
        {"bufferView": 1, "componentType": 5125, "count": 3, "type": "SCALAR"} | (indices or {}),
    ]
    views = [{"buffer": 0, "byteLength": 36}, {"buffer": 0, "byteOffset": 36, "byteLength": 12}]
    primitive = {"attributes": {"POSITION": 0}, "indices": 1, "mode": mode}
    return glb(
        {
            "asset": {"version": "2.0"},
            "buffers": [{"byteLength": len(body)}],
            "bufferViews": views,
            "accessors": accessors,
            "meshes": [{"primitives": [primitive]}],
            "nodes": [{"mesh": 0}],
            "scenes": [{"nodes": [0]}],
        },
        body,
    )


GLB = {
    "not glb": (b"hello, world, this is no glTF", "should begin with 'glTF'"),
    "cut off": (glb_mesh({})[:60], "damaged"),
    "odd json": (glb(b"{]"), "damaged"),
    "a deep json": (glb(b"[" * 100_000), "damaged"),
    "empty": (glb({"asset": {"version": "2.0"}}), "neither triangles nor points|damaged"),
    "declares too much": (glb_mesh({"count": 10**12}), "an array of 1000000000000 items"),
    "declares more": (glb_mesh({"count": 4}), "damaged"),
    "compressed": (glb_mesh({"bufferView": 0, "sparse": {}}), "compressed or sparse arrays"),
    "fan": (glb_mesh({}, mode=6), "triangle fans"),
    "missing vertex": (glb_mesh({}, corners=(0, 1, 7)), "references vertex 7"),
}

PCD_HEADER = (
    "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 3\nHEIGHT 1\nPOINTS 3\nDATA "
)


def pcd(body, replace=("", "")):
    return PCD_HEADER.replace(*replace).encode() + body


PCD = {
    "not pcd": (b"hello", "no line DATA"),
    "no points": (pcd(replace=("POINTS 3\n", ""), body=b"ascii\n"), "no line POINTS"),
    "zero points": (pcd(replace=("POINTS 3", "POINTS 0"), body=b"ascii\n"), "0 points"),
    "odd sizes": (
        pcd(replace=("SIZE 4 4 4", "SIZE 4 4"), body=b"ascii\n" + THREE),
        "the same number of entries",
    ),
    "odd type": (
        pcd(replace=("F F F", "F F S"), body=b"ascii\n" + THREE),
        "TYPE in the header should be F, I or U",
    ),
    "odd count": (pcd(replace=("1 1 1", "1 1 999999999"), body=b"binary\n"), "COUNT 1 1 999999999"),
    "no z": (pcd(replace=("x y z", "x y w"), body=b"ascii\n" + THREE), "no fields x y z, only x, y, w"),
    "lines missing": (
        pcd(b"ascii\n" + THREE[:12]),
        "declares 3 rows of 3 numbers, but the file has 2 rows",
    ),
    "no lines": (pcd(b"ascii\n"), "declares 3 rows of 3 numbers, but the file has 0"),
    "a line too long": (
        pcd(b"ascii\n" + THREE[:-1] + b" 7\n"),
        "line 12: the number of columns changes from 3 to 4|requires 3 columns but 4",
    ),
    "a word": (pcd(b"ascii\n0 0 0\n1 a 0\n"), "line 11: 'a' is not a number"),
    "binary cut off": (
        pcd(b"binary\n" + THREE_FLOATS[:24]),
        "byte 97: .* declares 3 points of 12 bytes, but only 24 bytes follow",
    ),
    "binary declares too much": (
        pcd(replace=("POINTS 3", "POINTS 99999999999"), body=b"binary\n" + THREE_FLOATS),
        "declares 99999999999 points",
    ),
    "compressed declares too much": (
        pcd(b"binary_compressed\n" + struct.pack("<II", 4, 4_000_000_000)),
        "cannot be decompressed from 4 bytes to 4000000000",
    ),
    "compressed cut off": (
        pcd(b"binary_compressed\n" + struct.pack("<II", 30, 36) + b"\x1f"),
        "cut off|damaged",
    ),
    "compressed without sizes": (pcd(b"binary_compressed\n\0\0"), "damaged"),
}

TEXT = {
    "words": (b"to whom it may concern\nhello world and more\n", "line 2: 'hello' is not a number"),
    "two columns": (b"1 2\n3 4\n", "should have at least 3 columns"),
    "a short line": (b"1 2 3\n4 5 6\n\n7 8\n", "line 4: the number of columns changes from 3 to 2"),
    "a word below": (b"# points\n1 2 3\n4 five 6\n", "line 3: 'five' is not a number"),
    "a gap": (b"1,2,3\n4,,6\n", "line 2: a value is missing"),
    "comments only": (b"# nothing\n\n", "only blank lines and comments"),
    "a header only": (b"x,y,z\n", "no points after its first line"),
    "too few": (b"5\n1 2 3\n4 5 6\n", "declares 5 rows, but 2 follow"),
    "garbage": (bytes(range(256)) * 20, "is not a number|no points"),
}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npy_header(shape, body=b""):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + body


def npz(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


NPY = {
    "not npy": (b"hello world", "damaged"),
    "pickled objects": (npy(np.array([{}], dtype=object)), "got an array of dtype object"),
    "complex numbers": (npy(np.zeros((2, 3), complex)), "got an array of dtype complex128"),
    "a line": (npy(np.zeros(9)), r"got \[9\]"),
    "two columns": (npy(np.zeros((9, 2))), "should have at least 3 columns"),
    "no rows": (npy(np.zeros((0, 3))), "should have at least 3 columns"),
    "lying on its side": (npy(np.zeros((3, 1000))), r"\[points, 3 to 12\], got \[3, 1000\]"),
    "declares too much": (npy_header((10**15, 3), bytes(48)), "only 48 bytes follow"),
    "a negative shape": (npy_header((-1, 3), bytes(48)), "only 48 bytes follow"),
    "cut off": (npy(np.zeros((9, 3)))[:-1], "only 215 bytes follow"),
}
NPZ = {
    "not zip": (b"hello world", "damaged"),
    "cut off": (npz(points=npy(np.zeros((9, 3))))[:-5], "damaged"),
    "other names": (npz(vertices=npy(np.zeros((9, 3)))), "no array 'points', only vertices.npy"),
    "other lengths": (
        npz(points=npy(np.zeros((9, 3))), colors=npy(np.zeros((8, 3)))),
        "'colors' should have 3 columns",
    ),
    "declares too much": (npz(points=npy_header((10**15, 3))), "only 0 bytes follow"),
    "no rows": (npz(points=npy(np.zeros((0, 3)))), "none of the 0 points"),
}

CASES = [
    pytest.param(load, suffix, *case, id=f"{suffix}: {name}")
    for load, suffix, table in [
        (load_mesh, "ply", PLY),
        (load_mesh, "stl", STL),
        (load_mesh, "off", OFF),
        (load_mesh, "glb", GLB),
        (load_cloud, "pcd", PCD),
        (load_cloud, "xyz", TEXT),
        (load_cloud, "npy", NPY),
        (load_cloud, "npz", NPZ),
    ]
    for name, case in table.items()
]


@pytest.mark.parametrize(("load", "suffix", "data", "message"), CASES)
def test_damaged_files_are_rejected_with_little_memory(tmp_path, load, suffix, data, message):
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=rf"file.{suffix}: .*({message})"):
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize("load", [load_mesh, load_cloud, lambda path: load_depth(path, 1.0)])
class TestPaths:
    def test_empty_file(self, load, tmp_path):
        for name in ("a.ply", "a.npy"):
            (tmp_path / name).touch()
        with pytest.raises((FileFormatError, InputError), match=r"the file is empty|unsupported suffix"):
            load(tmp_path / "a.ply")

    def test_missing_file(self, load, tmp_path):
        for error in (InputError, FileNotFoundError):
            with pytest.raises(error, match=r"a\.(ply|png): no such file"):
                load(tmp_path / "a.ply" if load in (load_mesh, load_cloud) else tmp_path / "a.png")

    def test_folder(self, load, tmp_path):
        name = "a.ply" if load in (load_mesh, load_cloud) else "a.png"
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match="expected a file, but it is a folder"):
            load(tmp_path / name)

    def test_null_byte_in_the_name(self, load):
        with pytest.raises(InputError, match="no such file"):
            load("a\0.ply" if load in (load_mesh, load_cloud) else "a\0.png")

    @pytest.mark.parametrize("name", ["scan.rcs", "scan", "scan.ply.gz"])
    def test_unknown_suffix(self, load, name):
        with pytest.raises(InputError, match=r"unsupported suffix '.*'; use one of \.\w+, "):
            load(name)
