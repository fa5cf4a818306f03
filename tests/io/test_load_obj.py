from pathlib import Path

import pytest
import torch

from unrender.errors import FileFormatError
from unrender.io import load_mesh

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"

GOOD = {
    "a polygon": (SQUARE + "f 1 2 3 4", [[0, 1, 2], [0, 2, 3]]),
    "texture seams and normals": (SQUARE + "vt 0 0\nvt 1 1\nvn 0 0 1\nf 1/1/1 2/2/1 3/1/1\nf 1/2/1 3/2/1 4/2/1", None),
    "normals without textures": (SQUARE + "vn 0 0 1\nf 1//1 2//1 3//1\nf 1//1 3//1 4//1", None),
    "corners of different kinds": (SQUARE + "vt 0 0\nf 1/1 2/1 3/1\nf 1 3 4", None),
    "a hexagon as wide as a textured triangle": (
        SQUARE + "v 0 2 0\nv -1 1 0\nvt 0 0\nf 1/1 2/1 3/1\nf 1 2 3 5 4 6",
        [[0, 1, 2], [0, 1, 2], [0, 2, 4], [0, 4, 3], [0, 3, 5]],
    ),
    "relative indices": (SQUARE + "f -4 -3 -2\nf -4 -2 -1", None),
    "relative indices between vertices": ("v 0 0 0\nv 1 0 0\nv 1 1 0\nf -3 -2 -1\nv 0 1 0\nf -4 -2 -1", None),
    "faces before their vertices": ("f 1 2 3\n" + SQUARE + "f 1 3 4", None),
    "groups and materials, in the order of the file": (
        SQUARE + "mtllib none.mtl\ng b\nusemtl red\nf 1 2 3\ng a\nusemtl blue\nf 1 3 4\n",
        None,
    ),
    "other line ends": (SQUARE.replace("\n", "\r\n") + "f 1 2 3\r\nf 1 3 4\r\n", None),
    "old line ends": (SQUARE.replace("\n", "\r") + "f 1 2 3\rf 1 3 4", None),
    "tabs and indents": (SQUARE.replace("v ", "  v\t") + "\tf\t1  2 3 \nf 1 3 4\n", None),
    "a joined line": (SQUARE + "f 1 \\\n2 3\nf 1 3 4", None),
    "comments": ("# première\n" + SQUARE + "f 1 2 3 # one\n#f 9 9 9\nf 1 3 4", None),
    "a weight": (SQUARE.replace(" 0\n", " 0 0.5\n") + "f 1 2 3\nf 1 3 4", None),
    "unknown words": (SQUARE + "vp 1 2\ncurv 0 1 1 2\nl 1 2\np 1\ns off\nvw 1 0 1\nf 1 2 3\nf 1 3 4", None),
    "short exponents": (SQUARE.replace("v 1 0 0", "v .1e+1 -0.0e-007 0") + "f 1 2 3\nf 1 3 4", None),
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_reads(tmp_path, text):
    text, faces = GOOD[text]
    (tmp_path / "mesh.obj").write_text(text, encoding="latin-1", newline="")
    mesh = load_mesh(tmp_path / "mesh.obj")
    assert mesh.faces.tolist() == (faces or [[0, 1, 2], [0, 2, 3]])
    assert mesh.vertices[:4].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.vertices.dtype == torch.float32


BAD = {
    SQUARE + "f 0 1 2": "line 5: a face references vertex 0, but the file has 1 to 4",
    SQUARE + "f 1 2 5": "line 5: a face references vertex 5",
    SQUARE + "f 1 2 -5": "line 5: a face references vertex -5",
    "v 0 0 0\nf -1 -2 -3\nv 1 0 0\nv 0 1 0": "line 2: a face references vertex -2",
    SQUARE + "f 1 2": "line 5: a face should have at least 3 corners, got 2",
    SQUARE + "f": "line 5: a face should have at least 3 corners, got 0",
    SQUARE + "f 1 2 3.5": "line 5: a face references vertex 3.5",
    SQUARE + "f 1 2 99999999999999999999999": "line 5: a face references vertex 1e\\+23",
    SQUARE + "f 1 2 x": "line 5: 'x' is not a number",
    "v 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3": r"line 1: the vertex does not have 3 values \(found 2\)",
    "v 0 0 0\nv 1 zero 0\nv 0 1 0\nf 1 2 3": "line 2: 'zero' is not a number",
    "v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3": "vertex 2 is not finite",
    "v 0 0 0\nv 1.#INF 0 0\nv 0 1 0\nf 1 2 3": "line 2: '1.#INF' is not a number",
    "v 0 0 0\nv 1 0 0\nv 0 1 0\n": "3 points but no faces; use load_cloud",
    "mtllib a.mtl\n": "no vertices",
    "\0\1\2\3": "no vertices",
}


@pytest.mark.parametrize("text", BAD)
def test_damaged_files_are_rejected(tmp_path, text):
    (tmp_path / "mesh.obj").write_text(text)
    with pytest.raises(FileFormatError, match=f"mesh.obj: .*{BAD[text]}"):
        load_mesh(tmp_path / "mesh.obj")


@pytest.mark.parametrize(("colors", "expected"), [("0 0.5 1", [0, 0.5, 1]), ("0 51 255", [0, 0.2, 1])])
def test_colors_follow_coordinates(tmp_path, colors, expected):
    (tmp_path / "mesh.obj").write_text(f"v 0 0 0 {colors}\nv 1 0 0 {colors}\nv 0 1 0 {colors}\nf 1 2 3")
    assert load_mesh(tmp_path / "mesh.obj").vertex_colors.tolist() == [pytest.approx(expected)] * 3


def test_colors_of_some_vertices_are_ignored(tmp_path):
    (tmp_path / "mesh.obj").write_text("v 0 0 0 1 1 1\nv 1 0 0\nv 0 1 0 1 1 1\nf 1 2 3")
    assert load_mesh(tmp_path / "mesh.obj").vertex_colors is None


ODD = Path(__file__).parents[3] / "shared" / "data" / "malformed_obj"
ODD_BAD = {
    "invalid-face-definition": "line 15: a face should have at least 3 corners, got 1",
    "invalid-relative-texture-index": "no vertices",
    "invalid-relative-vertex-index": "no vertices",
    "issue-140-zero-face-idx": "line 16: a face references vertex 0",
    "issue-356-leading-spaces-newmtl": "no vertices",
    "line-prim": "8 points but no faces",
    "points-prim": "8 points but no faces",
    "test-nan": "line 14: '1.#IND' is not a number",
}


@pytest.mark.parametrize("path", sorted(ODD.glob("*.obj")), ids=lambda path: path.stem)
def test_odd_file(path):
    if path.stem in ODD_BAD:
        with pytest.raises(FileFormatError, match=ODD_BAD[path.stem]):
            load_mesh(path)
        return
    lines = [line.split() for line in path.read_text(encoding="latin-1").splitlines()]
    mesh = load_mesh(path)
    assert len(mesh.vertices) == sum(line[:1] == ["v"] for line in lines)
    assert len(mesh.faces) == sum(len(line) - 3 for line in lines if line[:1] == ["f"])
