"""Valid files that few programs write."""

import base64
import json
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import scene_files
from unrender import (
    FileFormatError,
    Lens,
    MissingFileError,
    is_watertight,
    load_cloud,
    load_mesh,
    load_scene,
    load_textured_mesh,
)

POINTS = np.round(np.random.default_rng(0).normal(size=(40, 3)), 3)


def rows(table, form="{:.3f}", between=" "):
    return "\n".join(between.join(form.format(x) for x in row) for row in table) + "\n"


@pytest.mark.parametrize("between", [" ", "\t", ";", " ; "])
@pytest.mark.parametrize("head", ["", "x{0}y{0}z\n"])
def test_decimal_commas(tmp_path, between, head, caplog):
    path = tmp_path / "scan.xyz"
    path.write_text(head.format(between) + rows(POINTS, between=between).replace(".", ","))
    np.testing.assert_allclose(load_cloud(path).points, POINTS, atol=1e-6)
    assert "read commas as decimal points" in caplog.text


def test_commas_between_columns_are_not_decimal(tmp_path, caplog):
    path = tmp_path / "scan.csv"
    path.write_text("1,2,3\n4,5,6\n7,8,10\n")
    assert load_cloud(path).points.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 10]]
    assert not caplog.text


def test_decimal_commas_elsewhere_are_named(tmp_path):
    path = tmp_path / "mesh.obj"
    path.write_text("v 0,5 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(
        FileFormatError, match="line 1: '0,5' is not a number; write numbers with decimal points"
    ):
        load_mesh(path)


def ply_text(names, element="vertex", table=POINTS):
    kinds = "".join(f"property float {name}\n" for name in names)
    return (
        f"ply\nformat ascii 1.0\nelement {element} {len(table)}\n{kinds}end_header\n{rows(table, '{:.6f}')}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + ply_text("xyz"),
        ply_text("XYZ"),
        ply_text("xyz", "point"),
        "sep=;\nx;y;z\n" + rows(POINTS, between=";"),
        'name,"x","y","z"\n' + "".join(f'car,"{x}",{y},{z}\n' for x, y, z in POINTS),
        "x\ty\tz\n" + rows(POINTS, between="\t"),
    ],
    ids=["byte-order mark", "capitals", "element point", "sep=", "column of text", "tabs"],
)
def test_points_under_other_names(tmp_path, text):
    path = tmp_path / f"a.{'ply' if 'ply' in text else 'tsv'}"
    path.write_text(text, "utf-8")
    np.testing.assert_allclose(load_cloud(path).points, POINTS, atol=1e-6)


def test_text_in_a_column_of_coordinates_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("kind,x,y,z\n" + "car,1,2,3\n" * 3 + "car,1,two,3\n")
    with pytest.raises(FileFormatError, match="line 5: 'two' is not a number"):
        load_cloud(path)
    path.write_text("kind,x,y,z\n" + "car,1,2,3\n" * 3 + "car,1,2\n")
    with pytest.raises(FileFormatError, match="line 5: the number of columns changes from 4 to 3"):
        load_cloud(path)


def test_normals_in_ply(tmp_path):
    directions = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    for normals, expected in ((directions, directions), (0 * directions, None)):
        table = np.concatenate([POINTS, normals], axis=1)
        text = ply_text(["x", "y", "z", "normal_x", "normal_y", "normal_z"], table=table)
        (tmp_path / "a.ply").write_text(text)
        found = load_cloud(tmp_path / "a.ply").normals
        assert (found is None) == (expected is None)
        if expected is not None:
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_scans_in_a_pts_file(tmp_path):
    table = np.hstack([POINTS, np.full((40, 1), -500), np.tile([10, 20, 30], (40, 1))])
    path = tmp_path / "scan.pts"
    path.write_text(f"25\n{rows(table[:25], '{:g}')}15\n{rows(table[25:], '{:g}')}0\n")
    cloud = load_cloud(path)
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-6)
    np.testing.assert_allclose(cloud.colors[0], np.array([10, 20, 30]) / 255, atol=1e-6)
    path.write_text(f"25\n{rows(table[:20], '{:g}')}15\n{rows(table[25:], '{:g}')}")
    with pytest.raises(FileFormatError, match="line 1: a scan of 25 points, but 20 rows follow"):
        load_cloud(path)


def ptx(points, matrix, shape, extra=""):
    pose = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
    return f"{shape[0]}\n{shape[1]}\n{pose}{rows(matrix, '{:.6f}')}" + "".join(
        f"{x:.3f} {y:.3f} {z:.3f} 0.5{extra}\n" for x, y, z in points
    )


def test_scans_of_a_ptx_file_are_placed_in_the_world(tmp_path):
    turn = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [5, 6, 7, 1]])
    first = POINTS[:20].copy()
    first[::4] = 0
    path = tmp_path / "scan.ptx"
    path.write_text(ptx(first, np.eye(4), (4, 5)) + ptx(POINTS[20:], turn, (10, 2)))
    kept = first[(first != 0).any(1)]
    expected = np.concatenate([kept, POINTS[20:] @ turn[:3, :3] + turn[3, :3]])
    np.testing.assert_allclose(load_cloud(path).points, expected, atol=1e-6)
    path.write_text(ptx(POINTS, np.eye(4), (4, 10), " 255 0 51"))
    np.testing.assert_allclose(load_cloud(path).colors[0], [1, 0, 0.2], atol=1e-6)
    path.write_text(ptx(POINTS, np.eye(4), (4, 11)))
    with pytest.raises(FileFormatError, match="truncated: a scan of 4 × 11 points, but 40 rows follow"):
        load_cloud(path)
    path.write_text("4\n10\n0 0 0\n")
    with pytest.raises(FileFormatError, match="should begin with 10 lines"):
        load_cloud(path)


def test_an_esri_grid_is_a_point_for_each_cell(tmp_path):
    path = tmp_path / "terrain.asc"
    head = "ncols 3\nnrows 2\nxllcorner 100\nyllcorner 200\ncellsize 2\nNODATA_value -1\n"
    path.write_text(head + "1 2 3\n4 -1 6\n")
    assert load_cloud(path).points.tolist() == [
        [101, 203, 1],
        [103, 203, 2],
        [105, 203, 3],
        [101, 201, 4],
        [105, 201, 6],
    ]
    path.write_text(head + "1 2 3\n")
    with pytest.raises(FileFormatError, match=r"declares \[2, 3\] heights, but the file has \[1, 3\]"):
        load_cloud(path)
    path.write_text(rows(POINTS))
    assert len(load_cloud(path).points) == 40


def test_pcd_with_the_names_of_pdal(tmp_path):
    path = tmp_path / "scan.pcd"
    table = np.hstack([POINTS, np.tile([0, 0, 1, 255, 0, 51], (40, 1))])
    path.write_text(
        "VERSION 0.7\nFIELDS X Y Z NormalX NormalY NormalZ Red Green Blue\nSIZE 8 8 8 4 4 4 1 1 1\n"
        "TYPE F F F F F F U U U\nWIDTH 40\nHEIGHT 1\nPOINTS 40\nDATA ascii\n" + rows(table, "{:g}")
    )
    cloud = load_cloud(path)
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-6)
    assert cloud.normals[0].tolist() == [0, 0, 1]
    np.testing.assert_allclose(cloud.colors[0], [1, 0, 0.2], atol=1e-6)


def strips_of_a_tube(sides=8, rings=5):
    """Return the points of a closed tube, and strips around it: the faces of a torus."""
    u, v = np.meshgrid(np.arange(rings), np.arange(sides), indexing="ij")
    a, b = 2 * np.pi * u / rings, 2 * np.pi * v / sides
    ring = 2 + np.cos(b)
    points = np.stack([ring * np.cos(a), ring * np.sin(a), np.sin(b)], -1).reshape(-1, 3)
    strips = []
    for i in range(rings):
        for j in range(sides + 1):
            strips += [i * sides + j % sides, (i + 1) % rings * sides + j % sides]
        strips.append(-1)
    return points, strips


@pytest.mark.parametrize("one_row", [True, False])
def test_triangle_strips_in_ply(tmp_path, one_row):
    points, strips = strips_of_a_tube()
    lists = (
        [strips]
        if one_row
        else [part.split() for part in " ".join(map(str, strips)).split("-1") if part.strip()]
    )
    path = tmp_path / "strips.ply"
    path.write_text(
        f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element tristrips {len(lists)}\nproperty list int int vertex_indices\nend_header\n"
        + rows(points, "{:.6f}")
        + "".join(f"{len(strip)} {' '.join(map(str, strip))}\n" for strip in lists)
    )
    mesh = load_mesh(path)
    assert len(mesh.faces) == 80
    assert is_watertight(mesh)  # also: neighbors have the same orientation
    path.write_text(
        path.read_text().replace(" -1", " 99") if one_row else path.read_text().replace("39 ", "99 ")
    )
    with pytest.raises(FileFormatError, match="references vertex 99"):
        load_mesh(path)


@pytest.mark.parametrize(("materials", "textured"), [(1, True), (2, False)])
def test_obj_without_usemtl(tmp_path, caplog, materials, textured):
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    names = [f"newmtl m{i}\nmap_Kd red.png\n" for i in range(materials)]
    (tmp_path / "mesh.mtl").write_text("".join(names))
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    path = tmp_path / "mesh.obj"
    path.write_text("mtllib mesh.mtl\n" + text)
    assert (load_textured_mesh(path)[1] is not None) == textured
    assert ("2 materials, but no usemtl" in caplog.text) != textured
    path.write_text(text)
    assert load_textured_mesh(path)[1] is None
    assert "no material file (mtllib)" in caplog.text


@pytest.mark.parametrize("name", ["EXT_meshopt_compression", "KHR_draco_mesh_compression"])
def test_compressed_glb_is_named(tmp_path, name):
    header = json.dumps(
        {"asset": {"version": "2.0"}, "extensionsRequired": ["KHR_mesh_quantization", name]}
    ).encode()
    path = tmp_path / "packed.glb"
    path.write_bytes(b"glTF" + bytes(8) + len(header).to_bytes(4, "little") + b"JSON" + header)
    with pytest.raises(FileFormatError, match=f"compressed with {name}.*export it without compression"):
        load_mesh(path)


@pytest.mark.parametrize(
    ("values", "lens"),
    [
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.1}, Lens.brown([0.1])),
        ({"camera_model": "RADIAL", "k1": 0.1, "k2": 0.02}, Lens.brown([0.1, 0.02])),
        ({"camera_model": "SIMPLE_RADIAL_FISHEYE", "k1": 0.1}, Lens.fisheye([0.1])),
        (
            {"camera_model": "FULL_OPENCV", "k1": 0.1, "p1": 0.01, "k3": 0.02, "k5": 0.03},
            Lens.brown([0.1, 0, 0.02], [0.01, 0], [0, 0.03, 0]),
        ),
    ],
)
def test_camera_models_of_colmap_in_transforms_json(tmp_path, values, lens):
    scene_files.write_nerfstudio(tmp_path, scene_files.cameras(2), **values)
    found = load_scene(tmp_path).frames[0].camera.lens
    assert found.model == lens.model
    for name in ("radial", "tangential", "denominator"):
        torch.testing.assert_close(getattr(found, name).float(), getattr(lens, name).float())


def test_colmap_with_known_poses_and_without_points(tmp_path):
    scene_files.write_colmap(tmp_path, scene_files.cameras(), text=True)
    model = tmp_path / "sparse/0"
    (model / "points3D.txt").write_bytes(b"")
    poses = [line for line in (model / "images.txt").read_text().splitlines() if line.endswith(".png")]
    assert len(poses) == 9
    for text in ("\n".join(poses), "\n\n".join(poses), "# comment\n" + "\n\n".join(poses) + "\n\n"):
        (model / "images.txt").write_text(text)
        scene = load_scene(tmp_path)
        assert len(scene.frames) == 9
        assert scene.bounds_from == "cameras"


def gltf(folder, embedded):
    """Write a triangle in two buffers."""
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32).tobytes()
    indices = np.array([0, 1, 2], np.uint16).tobytes()
    buffers = []
    for name, data in (("my positions.bin", positions), ("indices.bin", indices)):
        (folder / name).write_bytes(data)
        uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
        buffers.append({"uri": uri if embedded else name.replace(" ", "%20"), "byteLength": len(data)})
    header = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 3, "type": "SCALAR"},
        ],
        "bufferViews": [{"buffer": 0, "byteLength": 36}, {"buffer": 1, "byteLength": 6}],
        "buffers": buffers,
    }
    (folder / "mesh.gltf").write_text(json.dumps(header))
    return folder / "mesh.gltf"


@pytest.mark.parametrize("embedded", [True, False])
def test_plain_gltf(tmp_path, embedded):
    path = gltf(tmp_path, embedded)
    mesh = load_mesh(path)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert load_textured_mesh(path)[1] is None
    (tmp_path / "indices.bin").write_bytes(b"\0")
    if not embedded:
        with pytest.raises(FileFormatError, match=r"buffer indices\.bin: truncated"):
            load_mesh(path)
        (tmp_path / "indices.bin").unlink()
        with pytest.raises(MissingFileError, match=r"indices\.bin: no such file"):
            load_mesh(path)
    path.write_text("[]")
    with pytest.raises(FileFormatError, match="not a glTF file"):
        load_mesh(path)


@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_las(tmp_path, suffix):
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = [0.001] * 3, [437_000.0, 4_478_000.0, 600.0]
    scan = laspy.LasData(header)
    points = POINTS + header.offsets
    scan.x, scan.y, scan.z = points.T
    scan.red = scan.green = np.arange(40) * 1000
    path = tmp_path / f"scan.{suffix}"
    scan.write(path)
    cloud = load_cloud(path)
    assert cloud.points.dtype == torch.float64
    np.testing.assert_allclose(cloud.points, points, atol=6e-4)
    np.testing.assert_allclose(cloud.colors[1], [1000 / 65535, 1000 / 65535, 0], atol=1e-6)
    data = path.read_bytes()
    path.write_bytes(data[:300])
    with pytest.raises(FileFormatError, match="truncated"):
        load_cloud(path)
    path.write_bytes(data[:100] + b"\xff" * 4 + data[104:])
    with pytest.raises(FileFormatError, match="more records than the file can hold"):
        load_cloud(path)


def test_a_laz_with_too_many_chunks_is_refused_before_memory_is_taken(tmp_path):
    laspy = pytest.importorskip("laspy")
    scan = laspy.LasData(laspy.LasHeader(point_format=3, version="1.2"))
    scan.x, scan.y, scan.z = POINTS.T
    path = tmp_path / "scan.laz"
    scan.write(path)
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 96)
    (table,) = struct.unpack_from("<q", data, start)
    data[table + 4 : table + 8] = struct.pack("<I", 200_000_000)
    data[107:111] = struct.pack("<I", 4_000)  # so many points are declared, too
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="damaged: 200,000,000 chunks in"):
        load_cloud(path)


def test_e57(tmp_path):
    pye57 = pytest.importorskip("pye57")
    path = tmp_path / "scan.e57"
    file = pye57.E57(str(path), mode="w")
    for part in (POINTS[:20], POINTS[20:]):
        columns = dict(
            zip(("cartesianX", "cartesianY", "cartesianZ"), np.ascontiguousarray(part.T), strict=True)
        )
        colors = {
            f"color{name}": np.full(20, i * 50, np.uint8) for i, name in enumerate(("Red", "Green", "Blue"))
        }
        file.write_scan_raw(columns | colors, translation=np.array([100.0, 0, 0]))
    file.close()
    cloud = load_cloud(path)
    np.testing.assert_allclose(cloud.points, POINTS + np.array([100, 0, 0]), atol=1e-5)
    np.testing.assert_allclose(cloud.colors[0], [0, 50 / 255, 100 / 255], atol=1e-6)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match="damaged"):
        load_cloud(path)
    assert path.exists()


@pytest.mark.parametrize("columns", [4, 5])
def test_bin_of_kitti_and_nuscenes(tmp_path, columns):
    table = np.hstack([POINTS, np.full((40, columns - 3), 0.5)]).astype(np.float32)
    path = tmp_path / ("000000.bin" if columns == 4 else "lidar.pcd.bin")
    table[:39].tofile(path)
    np.testing.assert_array_equal(load_cloud(path).points, table[:39, :3])
    path.write_bytes(bytes(range(256)))
    with pytest.raises(FileFormatError, match="not a lidar scan"):
        load_cloud(path)


@pytest.mark.parametrize(("module", "name"), [("laspy", "a.laz"), ("pye57", "a.e57")])
def test_missing_libraries_of_scans_are_named(tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"LASF")
    with pytest.raises(FileFormatError, match=rf"{module}.*pip install 'unrender\[scans\]'"):
        load_cloud(tmp_path / name)
