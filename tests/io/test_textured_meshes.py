"""Known texels at known points of meshes written here; real files where they are present."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unrender.errors import FileFormatError
from unrender.io import MissingFileError, load_mesh, load_textured_mesh

trimesh = pytest.importorskip("trimesh")

DATA = Path(__file__).parents[3] / "shared" / "data"
RED, GREEN, BLUE, GREY = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.4, 0.4, 0.4]
QUARTERS = np.array([[RED, GREEN], [BLUE, GREY]]).repeat(8, 0).repeat(8, 1)
"""Red and green above blue and grey."""
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
FACE = "f 1/1 2/2 3/3 4/4\n"


def png(values=QUARTERS, mode=None, kind="PNG"):
    image = Image.fromarray(np.rint(255 * values).astype(np.uint8))
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def obj(folder, body=SQUARE + "usemtl m\n" + FACE, mtl="newmtl m\nmap_Kd a.png\n", **pictures):
    write(folder, {"a.png": png(), "m.mtl": mtl, "mesh.obj": "mtllib m.mtl\n" + body} | pictures)
    return load_checked(folder / "mesh.obj")


def load_checked(path):
    mesh, texture = load_textured_mesh(path)
    alone = load_mesh(path)
    assert torch.equal(mesh.vertices, alone.vertices)
    assert torch.equal(mesh.faces, alone.faces)
    assert texture is None or texture.faces.shape == mesh.faces.shape
    return mesh, texture


def color(textured, x, y):
    """The color at a point of a mesh in the plane z = 0."""
    mesh, texture = textured
    corners = torch.cat([mesh.vertices[..., :2], torch.ones(len(mesh.vertices), 1)], 1)[mesh.faces]
    inside = torch.linalg.solve(corners.mT, torch.tensor([x, y, 1.0]).expand(len(corners), 3))
    face = int(inside.amin(1).argmax())
    assert inside[face].amin() > -1e-6
    uv = inside[face] @ texture.uvs[texture.faces[face]]
    return [round(value, 2) for value in texture.sample(uv[None])[0].tolist()]


def assert_quarters(textured):
    points = [(0.2, 0.8), (0.8, 0.8), (0.2, 0.2), (0.8, 0.2)]
    assert [color(textured, *point) for point in points] == [RED, GREEN, BLUE, GREY]


def test_obj_keeps_its_image_and_coordinates(tmp_path):
    textured = obj(tmp_path)
    assert_quarters(textured)
    assert np.abs(textured[1].image.numpy() - QUARTERS).max() < 1e-6
    assert textured[1].uvs.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert textured[1].faces.tolist() == [[0, 1, 2], [0, 2, 3]]


BODIES = {
    "relative indices": SQUARE + "usemtl m\nf -4/-4 -3/-3 -2/-2 -1/-1\n",
    "normals": SQUARE + "vn 0 0 1\nusemtl m\nf 1/1/1 2/2/1 3/3/1 4/4/1\n",
    "another order": SQUARE.replace("vt 0 0\nvt 1 0", "vt 1 0 0\nvt 0 0 0") + "usemtl m\nf 1/2 2/1 3/3 4/4\n",
    "a polygon folded over its fan": SQUARE + "v 0.7 0.6 0\nvt 0.7 0.6\nusemtl m\nf 1/1 2/2 5/5 3/3 4/4\n"
    "f 2/2 3/3 5/5\n",
    "whole pictures away": SQUARE.replace("vt 0", "vt 7").replace("vt 1", "vt 8") + "usemtl m\n" + FACE,
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_obj_corners(tmp_path, body):
    assert_quarters(obj(tmp_path, BODIES[body]))


MAPS = {
    "a name with blanks": ("map_Kd my picture.png", "my picture.png"),
    "a folder, as on Windows": ("map_Kd maps\\wood.png", "maps/wood.png"),
    "a path of another machine": ("map_Kd C:\\work\\maps\\wood.png", "wood.png"),
    "another case": ("map_Kd Maps/WOOD.png", "maps/wood.PNG"),
    "a name that is not ASCII": ("map_Kd Häuser.png", "Häuser.png"),
    "options": ("map_Kd -s 1 1 1 -o 0 0 -clamp on -blendu on -texres 512 -colorspace sRGB 2.png", "2.png"),
    "small letters and a comment": ("  map_kd b.png # the front", "b.png"),
}


@pytest.mark.parametrize("case", MAPS)
def test_mtl_file_names(tmp_path, case):
    line, name = MAPS[case]
    assert_quarters(obj(tmp_path, mtl=f"# made by hand\nnewmtl m\nKd 0 0 0\n{line}\n", **{name: png()}))


def test_scale_and_offset(tmp_path):
    textured = obj(tmp_path, mtl="newmtl m\nmap_Kd -s 2 2 1 -o 0.5 a.png\n")
    assert [color(textured, x, 0.4) for x in (0.1, 0.3, 0.6, 0.9)] == [GREEN, RED, GREEN, RED]
    assert color(textured, 0.1, 0.1) == GREY


def test_images_repeat(tmp_path):
    textured = obj(tmp_path, SQUARE.replace("vt 1", "vt 3") + "usemtl m\n" + FACE)
    assert [color(textured, x, 0.8) for x in (0.1, 0.25, 0.4, 0.6, 0.75, 0.9)] == [RED, GREEN] * 3


def test_clamped_images(tmp_path):
    body = SQUARE.replace("vt 1", "vt 3") + "usemtl m\n" + FACE
    textured = obj(tmp_path, body, "newmtl m\nmap_Kd -clamp on a.png\n")
    assert [color(textured, x, 0.8) for x in (0.1, 0.25, 0.4, 0.9)] == [RED, GREEN, GREEN, GREEN]


def test_several_materials_do_not_bleed(tmp_path):
    body = SQUARE + "v 2 0 0\nv 2 1 0\nv 3 0 0\nv 3 1 0\n"
    body += "f 1 2 3 4\nusemtl all green\nf 2/1 5/2 6/3 3/4\nusemtl b\nf 5/1 7/2 8/3 6/4\n"
    body += "v 3 2 0\nv 2 2 0\nusemtl kd\nf 6/1 8/2 9/3 10/4\nusemtl b\nv 1 2 0\nf 3 6 10 11"
    mtl = "newmtl all green\nmap_Kd g.png\nnewmtl b\nKd 0 0 1\nmap_Kd a.png\nnewmtl kd\nKd 0.5 0.25 0"
    textured = obj(tmp_path, body, mtl, **{"g.png": png(np.full((5, 3, 3), GREEN))})
    assert color(textured, 0.5, 0.5) == [1, 1, 1]  # before the first material
    assert {tuple(color(textured, x, y)) for x in (1, 1.5, 2) for y in (0.002, 0.5, 0.998)} <= {
        tuple(GREEN), (1.0, 1.0, 1.0), tuple(BLUE), tuple(RED)
    }  # fmt: skip
    assert {tuple(color(textured, x, y)) for x in (1.01, 1.5, 1.99) for y in (0, 0.5, 1)} == {tuple(GREEN)}
    assert [color(textured, x, 0.999) for x in (2.01, 2.9)] == [RED, GREEN]
    assert color(textured, 2.5, 1.5) == [0.5, 0.25, 0]
    assert color(textured, 1.5, 1.5) == BLUE  # no vt: the color of its material
    assert textured[1].image.shape[0] < 50


def test_files_without_textures(tmp_path, caplog):
    assert obj(tmp_path, mtl="newmtl m\nKd 1 0 0\n")[1] is None
    assert obj(tmp_path, SQUARE + "usemtl m\nf 1 2 3\n")[1] is None
    assert not caplog.records
    textured = obj(tmp_path, SQUARE + "usemtl m\nf 1/1 2/2 3/3\nusemtl n\nf 1/1 3/3 4/4\n")
    assert color(textured, 0.2, 0.8) == [1, 1, 1]
    assert "line 12: undefined material 'n'; using white" in caplog.text


def test_several_libraries(tmp_path):
    write(tmp_path, {"my own.mtl": "newmtl m\nmap_Kd a.png\n", "a.png": png()})
    for line in ("my own.mtl", "none.mtl my\\ own.mtl"):
        write(tmp_path, {"mesh.obj": f"mtllib {line}\n{SQUARE}usemtl m\n{FACE}"})
        assert_quarters(load_checked(tmp_path / "mesh.obj"))


PLY = """ply
format ascii 1.0
comment TextureFile my picture.png
element vertex 4
property float x
property float y
property float z
{vertex}element face 1
property list uchar int vertex_indices
{face}end_header
"""


@pytest.mark.parametrize("names", [("texture_u", "texture_v"), ("u", "v"), ("s", "t")])
def test_ply_with_vertex_coordinates(tmp_path, names):
    header = PLY.format(vertex="".join(f"property float {name}\n" for name in names), face="")
    write(tmp_path, {"my picture.png": png()})
    write(tmp_path, {"mesh.ply": header + "0 0 0 0 0\n1 0 0 1 0\n1 1 0 1 1\n0 1 0 0 1\n4 0 1 2 3\n"})
    assert_quarters(load_checked(tmp_path / "mesh.ply"))


def test_ply_with_corner_coordinates(tmp_path):
    header = PLY.format(vertex="", face="property list uchar float texcoord\nproperty int texnumber\n")
    body = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3 8 0 0 1 0 1 1 0 1 {}\n"
    header = header.replace("comment", "comment TextureFile other.png\ncomment", 1)
    write(tmp_path, {"my picture.png": png(), "mesh.ply": header + body.format(1)})
    assert_quarters(load_checked(tmp_path / "mesh.ply"))
    write(tmp_path, {"mesh.ply": header + body.format(-1)})
    assert load_checked(tmp_path / "mesh.ply")[1] is None
    write(tmp_path, {"mesh.ply": header + body.format(2)})
    with pytest.raises(
        FileFormatError, match=r"mesh.ply: face 1 references texture 2, but the header declares 0 to 1"
    ):
        load_textured_mesh(tmp_path / "mesh.ply")
    write(tmp_path, {"mesh.ply": header + body.format(1).replace(" 8 0 0 ", " 6 ")})
    with pytest.raises(
        FileFormatError, match=r"face 1 has 4 corners and should have 8 numbers in 'texcoord', got 6"
    ):
        load_textured_mesh(tmp_path / "mesh.ply")


def glb(factor=None, picture=True):
    image = Image.open(io.BytesIO(png())) if picture else None
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image, baseColorFactor=factor)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    visual = trimesh.visual.TextureVisuals(uv=corners, material=material)
    square = np.hstack([corners, np.zeros((4, 1))])
    mesh = trimesh.Trimesh(square, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    plain = trimesh.Trimesh(square + np.array([1, 0, 0]), [[0, 1, 2], [0, 2, 3]], process=False)
    scene = trimesh.Scene([plain, mesh])
    return scene.export(file_type="glb")


def test_glb(tmp_path):
    (tmp_path / "mesh.glb").write_bytes(glb())
    textured = load_checked(tmp_path / "mesh.glb")
    assert_quarters(textured)
    assert color(textured, 1.5, 0.7) == color(textured, 1.9, 0.1)
    (tmp_path / "mesh.glb").write_bytes(glb([51, 255, 102, 255]))
    textured = load_checked(tmp_path / "mesh.glb")
    assert [color(textured, 0.2, 0.8), color(textured, 0.8, 0.2)] == [[0.2, 0, 0], [0.08, 0.4, 0.16]]
    (tmp_path / "mesh.glb").write_bytes(glb(picture=False))
    assert load_checked(tmp_path / "mesh.glb")[1] is None


def test_damaged_glb(tmp_path):
    whole = glb()
    at = whole.index(b"\x89PNG")
    (tmp_path / "mesh.glb").write_bytes(whole[:at] + b"oops" + whole[at + 4 :])
    with pytest.raises(FileFormatError, match=r"mesh.glb, image 0: damaged"):
        load_textured_mesh(tmp_path / "mesh.glb")


MODES = [("RGB", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("RGB", "TIFF"), ("RGB", "BMP"), ("RGB", "TGA")]


@pytest.mark.parametrize(("mode", "kind"), [*MODES, ("CMYK", "TIFF")])
def test_image_formats(tmp_path, mode, kind):
    assert_quarters(obj(tmp_path, **{"a.png": png(mode=mode, kind=kind)}))


@pytest.mark.parametrize("deep", [False, True])
def test_gray_images(tmp_path, deep):
    gray = np.full((4, 4), 0.5 * (65535 if deep else 255)).astype(np.uint16 if deep else np.uint8)
    stream = io.BytesIO()
    Image.fromarray(gray).save(stream, "PNG")
    image = obj(tmp_path, **{"a.png": stream.getvalue()})[1].image
    assert image.shape == (4, 4, 3)
    assert image.unique().tolist() == pytest.approx([0.5], abs=3e-3 if not deep else 1e-5)


def bomb():
    stream = io.BytesIO()
    Image.new("1", (13500, 13500)).save(stream, "PNG")
    return stream.getvalue()


WRONG = {
    "no library": ({"mesh.obj": "mtllib no.mtl\n" + SQUARE + "usemtl m\n" + FACE}, r"mesh.obj, line 1: .*no.mtl"),
    "no picture": ({"m.mtl": "newmtl m\n\nmap_Kd no.png\n"}, r"mesh.obj: .*m.mtl, line 3: .*no.png not found"),
    "no name": ({"m.mtl": "newmtl m\nmap_Kd -s 1 1 1\n"}, r"m.mtl: line 2: map_Kd has no file name"),
    "an option": ({"m.mtl": "newmtl m\nmap_Kd -mm 0 2 a.png\n"}, r"m.mtl: line 2: option -mm of map_Kd is not"),
    "no number": ({"m.mtl": "newmtl m\nmap_Kd -s big a.png\n"}, r"m.mtl: line 2: option -s of map_Kd should have"),
    "no material": ({"m.mtl": "Kd 1 1 1\n"}, r"m.mtl: line 1: kd without material"),
    "no color": ({"m.mtl": "newmtl m\nKd red\n"}, r"m.mtl: line 2: Kd should have 3 numbers .* 'red'"),
    "an empty library": ({"m.mtl": ""}, r"m.mtl: the file is empty"),
    "a damaged picture": ({"a.png": png()[:60]}, r"mesh.obj: .*a.png: damaged"),
    "no picture at all": ({"a.png": b"hello"}, r"mesh.obj: .*a.png: damaged"),
    "a huge picture": ({"a.png": bomb()}, r"a.png: the image is too large"),
    "a picture repeated too often": (
        {"mesh.obj": "mtllib m.mtl\n" + SQUARE.replace("vt 1", "vt 1e6") + "usemtl m\n" + FACE},
        r"mesh.obj: .* texels, more than .*m.mtl, line 2: a face repeats its image",
    ),
    "no such coordinate": (
        {"mesh.obj": "mtllib m.mtl\n" + SQUARE + "usemtl m\nf 1/1 2/2 3/5\n"},
        r"mesh.obj: line 11: a face references texture coordinate 5, but the file has 1 to 4",
    ),
    "a coordinate that is not finite": (
        {"mesh.obj": "mtllib m.mtl\n" + SQUARE.replace("vt 1 1", "vt nan 1") + "usemtl m\n" + FACE},
        r"mesh.obj: .*m.mtl, line 2: .* not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_damaged_files_are_rejected(tmp_path, case):
    files, message = WRONG[case]
    obj(tmp_path)
    write(tmp_path, files)
    kind = MissingFileError if case in ("no library", "no picture") else FileFormatError
    with pytest.raises(kind, match=message):
        load_textured_mesh(tmp_path / "mesh.obj")
    assert len(load_mesh(tmp_path / "mesh.obj").faces) in (1, 2)


REAL = {
    "meshes/cow/cow.obj": (916, 1081),  # a part of 1024 × 1024, which repeats at the left
    "meshes/spot_bob/spot/spot.obj": (916, 1081),
    "meshes/spot_bob/bob/bob_tri.obj": (2048, 2048),
    "pose/hope/mesh/AlphabetSoup.ply": (2048, 2048),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
def test_real_mesh_has_no_seams(name):
    """Edges whose faces lie at different places of the picture show the same colors from both sides."""
    mesh, texture = load_checked(DATA / name)
    assert texture.image.shape == (*REAL[name], 3)
    corners = texture.sample(texture.uvs)[texture.faces].flatten(0, 1)
    at = mesh.faces.flatten()
    means = torch.zeros(len(mesh.vertices), 3).index_add_(0, at, corners)
    means /= at.bincount(minlength=len(mesh.vertices))[:, None]
    assert (corners - means[at]).abs().mean() < 0.01


ODD = sorted((DATA / "malformed_obj").glob("*.obj"))


@pytest.mark.parametrize("path", ODD, ids=lambda path: path.stem)
def test_odd_file(path):
    """Those with pictures have no coordinates for them; the rest is refused in the words of `load_mesh`."""
    with contextlib.suppress(FileFormatError):
        load_mesh(path)
        assert load_checked(path)[1] is None
        return
    with pytest.raises(FileFormatError, match=re.escape(str(path))):
        load_textured_mesh(path)
