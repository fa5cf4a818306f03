import io

import numpy as np
import pytest
import torch
from PIL import Image

from unrender.compat.pytorch3d.io import IO, load_obj, load_objs_as_meshes, load_ply, save_obj, save_ply
from unrender.compat.pytorch3d.io.experimental_gltf_io import _read_header
from unrender.compat.pytorch3d.renderer import Fragments
from unrender.compat.pytorch3d.structures import Pointclouds
from unrender.compat.pytorch3d.utils import ico_sphere
from unrender.errors import FileFormatError, InputError

SQUARE = """mtllib square.mtl
v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvn 0 0 1
usemtl red
f 1/1/1 2/2/1 3/3/1
usemtl plain
f 1//1 3//1 4//1
"""


@pytest.fixture
def square(tmp_path):
    (tmp_path / "square.obj").write_text(SQUARE)
    (tmp_path / "square.mtl").write_text("newmtl red\nKd 1 0 0\nmap_Kd red.png\nnewmtl plain\nKd 0 1 0\n")
    Image.fromarray(np.full((4, 4, 3), (255, 0, 0), np.uint8)).save(tmp_path / "red.png")
    return tmp_path / "square.obj"


def test_obj_as_tables(square):
    verts, faces, aux = load_obj(square)
    assert verts.shape == (4, 3)
    assert faces.verts_idx.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert faces.textures_idx.tolist() == [[0, 1, 2], [-1, -1, -1]]
    assert faces.normals_idx.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert faces.materials_idx.tolist() == [0, 1]
    assert aux.verts_uvs.shape == (3, 2)
    assert aux.normals.tolist() == [[0, 0, 1]]
    assert aux.material_colors["plain"]["diffuse_color"].tolist() == [0, 1, 0]
    assert aux.texture_images["red"].shape == (4, 4, 3)
    assert load_obj(square, load_textures=False)[2].texture_images is None


def test_all_materials_of_a_mesh_are_seen(square):
    meshes = load_objs_as_meshes([square, square])
    assert len(meshes) == 2
    weights = torch.full((2, 1, 1, 1, 3), 1 / 3)
    seen = meshes.sample_textures(
        Fragments(torch.tensor([0, 3]).view(2, 1, 1, 1), weights[..., 0], weights, None)
    )
    torch.testing.assert_close(seen[:, 0, 0, 0], torch.tensor([[1.0, 0, 0], [0, 1, 0]]))


def test_obj_and_ply_there_and_back(tmp_path):
    ball = ico_sphere(1)
    verts, faces = ball.get_mesh_verts_faces(0)
    save_obj(tmp_path / "a.obj", verts, faces)
    again, found, _ = load_obj(tmp_path / "a.obj")
    assert torch.equal(again, verts)
    assert torch.equal(found.verts_idx, faces)
    for ascii in (True, False):
        save_ply(tmp_path / "a.ply", verts, faces, ball.verts_normals_packed(), ascii=ascii)
        again, found = load_ply(tmp_path / "a.ply")
        assert torch.equal(again, verts)
        assert torch.equal(found, faces)
    uvs = torch.rand(5, 2)
    picture, corners = torch.rand(4, 6, 3), torch.randint(5, faces.shape)
    save_obj(
        tmp_path / "b.obj",
        verts,
        faces,
        4,
        normals=verts,
        verts_uvs=uvs,
        faces_uvs=corners,
        texture_map=picture,
    )
    again, found, aux = load_obj(tmp_path / "b.obj")
    torch.testing.assert_close(again, verts, rtol=0, atol=1e-4)
    assert torch.equal(found.textures_idx, corners)
    assert torch.equal(found.normals_idx, faces)
    torch.testing.assert_close(aux.texture_images["mesh"], picture, rtol=0, atol=3e-3)


def test_io(tmp_path, square):
    assert IO().load_mesh(square).textures is not None
    assert IO().load_mesh(square, include_textures=False).textures is None
    IO().save_mesh(ico_sphere(1), tmp_path / "ball.ply")
    assert len(IO().load_mesh(tmp_path / "ball.ply").faces_packed()) == 80
    cloud = Pointclouds([torch.rand(6, 3)], features=[torch.rand(6, 3)])
    IO().save_pointcloud(cloud, tmp_path / "cloud.ply")
    again = IO().load_pointcloud(tmp_path / "cloud.ply")
    assert torch.equal(again.points_packed(), cloud.points_packed())
    assert again.features_packed().shape == (6, 3)


def test_says_what_is_wrong(tmp_path, square):
    with pytest.raises(InputError, match="`texture_wrap` should be 'repeat', 'clamp' or None"):
        load_obj(square, texture_wrap="mirror")
    square.write_text(SQUARE + "f 1 2 9\n")
    with pytest.raises(FileFormatError, match="line 14: a face references vertex 9"):
        load_obj(square)
    with pytest.raises(InputError, match="a file contains one mesh"):
        IO().save_mesh(ico_sphere(0).extend(2), tmp_path / "a.ply")


@pytest.mark.parametrize("value", ["nan", "inf", "1e39", "-1e400"])
def test_colors_of_materials_that_are_not_finite_are_refused(tmp_path, value):
    (tmp_path / "square.obj").write_text(SQUARE)
    (tmp_path / "square.mtl").write_text(f"newmtl red\nKd 1 {value} 0\nnewmtl plain\nKd 0 1 0\n")
    with pytest.raises(FileFormatError, match=r"line 2: Kd should be finite, got '1"):
        load_obj(tmp_path / "square.obj")


def test_warns_of_indices_and_names_that_have_no_target(tmp_path):
    verts, faces = torch.rand(4, 3), torch.tensor([[0, 1, 7]])
    for save, name in ((save_obj, "a.obj"), (save_ply, "a.ply")):
        with pytest.warns(UserWarning, match="Faces have invalid indices: 0 to 7, but there are 4 vertices"):
            save(tmp_path / name, verts, faces)
    with pytest.warns(UserWarning, match="Empty 'verts' provided"):
        save_ply(tmp_path / "b.ply", verts[:0], faces)
    assert [t.shape[0] for t in load_ply(tmp_path / "b.ply")] == [0, 0]
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 1\nusemtl steel\nf 1/1 2/5 3/1\n"
    with (
        pytest.warns(
            UserWarning, match="Faces have invalid indices: 0 to 4, but there are 1 texture coordinates"
        ),
        pytest.warns(UserWarning, match="No mtl file provided"),
    ):
        _, found, _ = load_obj(io.StringIO(text))
    assert found.textures_idx.tolist() == [[0, -1, 0]]
    text = text.replace("usemtl steel", "").replace("2/5", "2/-9")
    with pytest.warns(
        UserWarning, match="Faces have invalid indices: -8 to 0, but there are 1 texture coordinates"
    ):
        assert load_obj(io.StringIO(text))[1].textures_idx.tolist() == [[0, -1, 0]]
    with pytest.raises(FileFormatError, match=r"a face references texture coordinate 1\.5"):
        load_obj(io.StringIO(text.replace("2/-9", "2/1.5")))


@pytest.mark.parametrize(
    ("face", "message"),
    [
        ("1/1 2 3", "Vertex properties are inconsistent"),
        ("1/1/1/1 2/1/1/1 3/1/1/1", "only have 3 properties"),
    ],
)
def test_refuses_corners_of_mixed_layouts(face, message):
    with pytest.raises(FileFormatError, match=f"line 5: .*{message}"):
        load_obj(io.StringIO(f"v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 1\nf {face}\n"))


def test_atlas_of_materials_without_texture_coordinates(tmp_path):
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl blue\nf 1 2 3\n")
    (tmp_path / "a.mtl").write_text("newmtl blue\nKd 0 0 0.75\n")
    atlas = load_obj(tmp_path / "a.obj", create_texture_atlas=True, texture_atlas_size=2)[2].texture_atlas
    assert atlas.tolist() == [[[[0, 0, 0.75]] * 2] * 2]


def test_text_ply_from_a_stream_with_colors_as_bytes():
    header = (
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty uchar blue\nproperty float x\nproperty float y\n"
    )
    header += "property float z\nproperty uchar red\nproperty uchar green\nend_header\n"
    cloud = IO().load_pointcloud(io.StringIO(header + "51 1 2 3 255 0\n"))
    assert cloud.points_packed().tolist() == [[1, 2, 3]]
    torch.testing.assert_close(cloud.features_packed(), torch.tensor([[1.0, 0.0, 0.2]]))


def test_texture_image_of_ply(tmp_path):
    Image.fromarray(np.full((4, 6, 3), (0, 255, 0), np.uint8)).save(tmp_path / "green.png")
    header = "ply\nformat ascii 1.0\ncomment TextureFile green.png\nelement vertex 3\n"
    header += "".join(f"property float {name}\n" for name in ("x", "y", "z", "s", "t"))
    header += "element face 1\nproperty list uchar int vertex_index\nend_header\n"
    (tmp_path / "a.ply").write_text(header + "0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 0.5\n3 0 1 2\n")
    textures = IO().load_mesh(tmp_path / "a.ply").textures
    assert textures.verts_uvs_padded().tolist() == [[[0, 0], [1, 0], [0, 0.5]]]
    assert textures.maps_padded().shape == (1, 4, 6, 3)
    assert IO().load_mesh(tmp_path / "a.ply", include_textures=False).textures is None
    (tmp_path / "green.png").unlink()
    with pytest.warns(UserWarning, match=r"Texture file does not exist: .*green.png"):
        assert IO().load_mesh(tmp_path / "a.ply").textures is None


def test_off_without_its_keyword(tmp_path):
    lines = ["3 1 0", "0 0 0", "1 0 0", "0 1 0", "3 0 1 2"]
    for first in ("3 1 0", "OFF 3 1 0", "OFF3 1 0", "off\n3 1 0"):
        (tmp_path / "a.off").write_text("\n".join([first, *lines[1:]]))
        assert IO().load_mesh(tmp_path / "a.off").faces_packed().tolist() == [[0, 1, 2]]
    (tmp_path / "a.off").write_text("COFF 1 0 0\n0 0 0 1 1 1 1\n")
    assert IO().load_mesh(tmp_path / "a.off").faces_packed().shape == (0, 3)
    (tmp_path / "a.off").write_text("OFF\n0 0 0\n")
    assert IO().load_mesh(tmp_path / "a.off").verts_packed().shape == (0, 3)
    for change, message in (
        ({0: "4 1 0"}, "number of columns"),
        ({0: "3 2 0"}, "Not enough face data"),
        ({4: "2 0 1"}, "line 5: Faces must have at least 3 vertices"),
        ({4: "3 0 1 2 1"}, "line 5: Unexpected number of colors"),
        ({4: "4 0 1 2"}, "line 5: A line of face data did not have the specified length"),
        ({4: "3 0 1 2\n3 0 1 2"}, "line 6: Extra data at end of file"),
    ):
        (tmp_path / "a.off").write_text("\n".join(change.get(i, line) for i, line in enumerate(lines)))
        with pytest.raises(FileFormatError, match=message):
            IO().load_mesh(tmp_path / "a.off")


def test_formats_and_channels_that_cannot_be_saved(tmp_path):
    ball = ico_sphere(0)
    with pytest.raises(InputError, match="No mesh interpreter found to write to"):
        IO().save_mesh(ball, tmp_path / "ball")
    with pytest.raises(InputError, match="No mesh interpreter found to read"):
        IO().load_mesh(tmp_path / "ball.xyz")
    cloud = Pointclouds([torch.rand(6, 3)], features=[torch.rand(6, 5)])
    with pytest.warns(UserWarning, match="will not be saved as it has 5 colors, not 3"):
        IO().save_pointcloud(cloud, tmp_path / "a.ply")


def test_glb_headers_hold_the_length(tmp_path):
    IO().save_mesh(ico_sphere(0), tmp_path / "ball.glb")
    IO().save_mesh(ico_sphere(0), tmp_path / "ball.ply")
    with open(tmp_path / "ball.glb", "rb") as glb, open(tmp_path / "ball.ply", "rb") as ply:
        assert _read_header(glb) == (2, (tmp_path / "ball.glb").stat().st_size)
        assert _read_header(ply) is None
