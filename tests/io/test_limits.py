"""Files that ask for too much memory or time, and values that are not possible in the precision that is used."""

import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scene_files import cameras, write_colmap, write_json, write_llff, write_nerfstudio
from unrender import (
    FileFormatError,
    HashLevels,
    HashNeRF,
    SceneBox,
    SparseVoxels,
    load_cameras,
    load_cloud,
    load_field,
    load_mesh,
    load_scene,
    load_textured_mesh,
    load_volume,
    save_field,
)
from unrender.fields.occupancy import OccupancyGrid
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.poses import load_pose


@pytest.mark.parametrize(
    "change",
    [
        {"step": 1e-300}, {"step": 1e30}, {"step": math.nan}, {"step": "x"}, {"step": None}, {"density_unit": 0},
        {"density_unit": True}, {"density_unit": 1e400}, {"log2_hashmap_size": 28, "resolutions": [2**20] * 64},
        {"resolutions": 3},
        {"near": []},
    ],
    ids=str,
)  # fmt: skip
def test_hash_fields_with_values_out_of_range(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "field.safetensors"
    grid = OccupancyGrid(torch.ones(4, 4, 4, dtype=torch.bool))
    save_field(HashNeRF(SceneBox.cube(torch.zeros(3), 1.0), HashLevels((4, 6), 8), grid, step=0.1), path)
    assert load_field(path).step == 0.1
    tensors, description = load_tensors(path)
    save_tensors(tensors, description | change, path)
    with pytest.raises(FileFormatError):
        load_field(path)


def test_archives_of_zeros(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (30_000_000, 3)}
    )
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("points.npy", "w") as entry,
    ):
        entry.write(header.getvalue())
        for _ in range(360):
            entry.write(bytes(1_000_000))
    with pytest.raises(FileFormatError, match=r"would unpack from \d+ bytes to 360000"):
        load_cloud(tmp_path / "a.npz")
    points = np.random.default_rng(0).random((100, 3))
    np.savez_compressed(tmp_path / "b.npz", points=points)
    assert len(load_cloud(tmp_path / "b.npz").points) == 100


def test_small_images_repeated_very_often(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "i.png")
    (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd i.png\n")
    corners = (
        "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt {0} {0}\nvt 0 {0}\nusemtl a\nf 1/1 2/2 3/3\n"
    )
    for repeats, refused in ((1000, True), (1e30, True), (8, False)):
        (tmp_path / "m.obj").write_text(corners.format(repeats))
        if refused:
            with pytest.raises(FileFormatError, match="a face repeats its image too often"):
                load_textured_mesh(tmp_path / "m.obj")
        else:
            _, texture = load_textured_mesh(tmp_path / "m.obj")
            assert texture is not None
            assert texture.image.shape == (132, 132, 3)


@pytest.mark.parametrize("axis", [0.0, 1e-46, 1e-200, 1e39, math.nan])
def test_volumes_without_an_inverse(tmp_path: Path, axis: float) -> None:
    nrrd = pytest.importorskip("nrrd")
    header = {"space": "RAS", "space directions": np.diag([1.0, 1.0, axis]), "space origin": [0, 0, 0]}
    nrrd.write(str(tmp_path / "v.nrrd"), np.ones((2, 2, 2), np.float32), header)
    with pytest.raises(FileFormatError):
        load_volume(tmp_path / "v.nrrd")


@pytest.mark.parametrize(
    "change",
    [{"fl_x": 1e39}, {"fl_x": 1e308}, {"fl_x": 1e-60}, {"cx": -1e300}, {"k1": 1e300}, {"fl_y": math.inf}],
    ids=str,
)
def test_cameras_out_of_range(tmp_path: Path, change: dict) -> None:
    content = write_nerfstudio(tmp_path, cameras(3))
    content["frames"][1] |= change
    write_json(tmp_path / "transforms.json", content)
    for load in (load_scene, load_cameras):
        with pytest.raises(FileFormatError):
            load(tmp_path / "transforms.json")


def test_poses_out_of_range(tmp_path: Path) -> None:
    content = write_nerfstudio(tmp_path, cameras(3))
    content["frames"][1]["transform_matrix"][0][3] = 1e308
    write_json(tmp_path / "transforms.json", content)
    with pytest.raises(FileFormatError, match="its pose has numbers up to"):
        load_scene(tmp_path)
    rows = [[1.0, 0.0, "NaN", 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    for value in ("NaN", 1e308, math.inf, None, "x"):
        rows[0][2] = value
        (tmp_path / "pose.json").write_text(json.dumps({"camera_from_object": rows}))
        with pytest.raises(FileFormatError):
            load_pose(tmp_path / "pose.json")


def test_colmap_and_llff_out_of_range(tmp_path: Path) -> None:
    far = [camera.replace(focal=torch.tensor([1e39, 1.0], dtype=torch.float64)) for camera in cameras(3)]
    write_colmap(tmp_path / "colmap", far, text=True)
    with pytest.raises(FileFormatError, match="out of range"):
        load_scene(tmp_path / "colmap")
    write_llff(tmp_path / "llff", cameras(3))
    table = np.load(tmp_path / "llff" / "poses_bounds.npy")
    table[1, 14] = 1e39
    np.save(tmp_path / "llff" / "poses_bounds.npy", table)
    with pytest.raises(FileFormatError, match="out of range"):
        load_scene(tmp_path / "llff")


def test_colors_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "m.obj"
    path.write_text("v 0 0 0 1 1 1\nv 1 0 0 1 nan 1\nv 0 1 0 1 1 1\nf 1 2 3\n")
    for load in (load_mesh, load_cloud):
        with pytest.raises(FileFormatError, match="the color of point 2 is not finite"):
            load(path)


def test_names_longer_than_the_file_system_takes(tmp_path: Path) -> None:
    long = "a" * 300 + ".png"
    content = write_nerfstudio(tmp_path, cameras(3))
    content["frames"][1]["file_path"] = long
    content["frames"][2]["mask_path"] = long
    write_json(tmp_path / "transforms.json", content)
    assert len(load_scene(tmp_path).frames) == 2
    (tmp_path / "m.mtl").write_text(f"newmtl a\nmap_Kd {long}\n")
    (tmp_path / "m.obj").write_text(
        "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl a\nf 1/1 2/1 3/1\n"
    )
    with pytest.raises(FileNotFoundError, match="not found; use load_mesh"):
        load_textured_mesh(tmp_path / "m.obj")


@pytest.mark.parametrize(
    "shape", [[10**5] * 3, [2000, 2000, 2000], [0, 1, 1], [-1, -1, 1], [4, 4], "xyz", None]
)
def test_voxel_grids_with_shapes_out_of_range(tmp_path: Path, shape: object) -> None:
    path = tmp_path / "volume.safetensors"
    mask = torch.ones(4, 4, 4, dtype=torch.bool)
    save_field(SparseVoxels.from_mask(mask, SceneBox.cube(torch.zeros(3), 1.0)), path)
    tensors, description = load_tensors(path)
    save_tensors(tensors, description | {"shape": shape}, path)
    with pytest.raises(FileFormatError):
        load_field(path)
