"""Scenes that are wrong in the ways in which real ones are."""

import contextlib
import json
import math
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

import scene_files
from unrender import FileFormatError, InputError, PixelSource, load_scene


def change(folder, index=3, **changes):
    path = folder / "transforms.json"
    content = json.loads(path.read_text())
    content["frames"][index] |= changes
    path.write_text(json.dumps(content))


@pytest.fixture
def scene(tmp_path):
    scene_files.write_nerfstudio(tmp_path, scene_files.cameras())
    return tmp_path


def pose(index=3):
    return scene_files.cameras()[index].to_opengl().double()


def sheared():
    shear = torch.eye(4, dtype=torch.float64)
    shear[:2, 1] = torch.tensor([0.6, 0.8])
    return pose() @ shear


def refused(folder, match):
    with pytest.raises(FileFormatError, match=match) as caught:
        load_scene(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (pose()[:2], r"should be 4 × 4 numbers, got \[2, 4\]"),
        (pose() * torch.tensor([2.0, 2.0, 2.0, 1.0]), "is scaled by 2; divide its first three columns"),
        (
            pose() * torch.tensor([1.0, 1.01, 1.0, 1.0]),
            "is not a rotation: its columns have lengths 1, 1.01, 1",
        ),
        (sheared(), "is not a rotation: its columns are not perpendicular"),
        (pose() * torch.tensor([-1.0, 1.0, 1.0, 1.0]), "is left-handed"),
        (pose() * torch.tensor([1.0, 1.0, 1.0, math.nan]), "is not finite; leave the frame out"),
        (pose() + torch.tensor([[0.0] * 4] * 3 + [[0.5, 0, 0, 0]]), "the last row of its pose"),
    ],
)
def test_wrong_poses_are_refused_by_name(scene, matrix, match):
    change(scene, transform_matrix=matrix.tolist())
    assert "frame images/003.png" in refused(scene, match)


def test_poses_that_are_words(scene):
    change(scene, transform_matrix="identity")
    refused(scene, "frame images/003.png: its pose should be 4 × 4 numbers")
    change(scene, transform_matrix=[[1, 2, 3, 4], [1, 2, 3]])
    refused(scene, "frame images/003.png: its pose should be 4 × 4 numbers")
    change(scene, transform_matrix=None)
    refused(scene, "frame images/003.png: its pose should be 4 × 4 numbers")


def test_poses_that_are_nearly_rigid_become_so(scene):
    change(scene, transform_matrix=(pose() * torch.tensor([1.0002, 1.0, 1.0, 1.0])).tolist())
    loaded = load_scene(scene)
    rotation = loaded.frames[3].camera.camera_from_world[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), rtol=0, atol=1e-6)
    assert loaded.notes == ("nearly rigid poses were orthonormalized",)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "broken JSON"),
        ("[1, 2]", "a list 'frames' of objects"),
        ('{"frames": 3}', "a list 'frames' of objects"),
        ('{"frames": [3]}', "a list 'frames' of objects"),
        ('{"frames": [{}]}', "frame 0 has no 'file_path'"),
        ('{"frames": []}', "the scene lists no images"),
        ("", "the file is empty"),
    ],
)
@pytest.mark.parametrize("name", ["transforms.json", "transforms_train.json"])
def test_invalid_json(tmp_path, text, match, name):
    (tmp_path / name).write_text(text)
    refused(tmp_path, match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"fl_x": "long"}, "'fl_x' should be a number, got 'long'"),
        ({"fl_x": -5}, "should be positive"),
        ({"fl_x": None}, "'fl_x' should be a number, got None"),
        ({"k1": math.inf}, "'k1' should be a number, got inf"),
        ({"camera_model": "EQUIRECTANGULAR"}, "an equirectangular image should be twice as wide as high"),
        ({"w": 30}, "the image has 16 × 12 pixels, its camera 30 × 12"),
    ],
)
def test_wrong_intrinsics_are_refused_by_name(scene, changes, match):
    change(scene, **changes)
    assert "frame images/003.png" in refused(scene, match)


def test_no_focal_length(scene):
    content = json.loads((scene / "transforms.json").read_text())
    del content["frames"][0]["fl_x"]
    scene_files.write_json(scene / "transforms.json", content)
    refused(scene, "expected 'fl_x' or 'camera_angle_x'")


def test_a_field_of_view_that_is_none(tmp_path):
    scene_files.write_blender(tmp_path, scene_files.cameras(2))
    path = tmp_path / "transforms_test.json"
    path.write_text(path.read_text().replace('"camera_angle_x": ', '"camera_angle_x": 9'))
    refused(tmp_path, r"frame \./test/r_0: 'camera_angle_x' should lie between 0 and π")


def test_missing_images_are_listed(scene):
    (scene / "images/003.png").unlink()
    loaded = load_scene(scene)
    assert loaded.missing == ("images/003.png",)
    assert len(loaded.frames) == 8
    for path in (scene / "images").iterdir():
        path.unlink()
    refused(scene, "none of the 9 listed images exists")


def test_absent_masks_and_depths_are_noted(scene):
    change(scene, mask_path="masks/3.png", depth_file_path="depth/3.png")
    change(scene, 5, mask_path="masks/5.png")
    loaded = load_scene(scene)
    assert loaded.frames[3].load().mask is None
    absent = "do not exist and are ignored; the first is"
    assert loaded.notes == (
        f"files listed as 'mask_path' {absent} masks/3.png, of frame images/003.png",
        f"files listed as 'depth_file_path' {absent} depth/3.png, of frame images/003.png",
    )


def test_a_point_cloud_that_cannot_be_read_is_named_itself(scene):
    path = scene / "transforms.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"ply_file_path": "points.dat"}))
    (scene / "points.dat").write_bytes(b"points")
    with pytest.raises(InputError, match=r"^[^:]*points\.dat: unsupported suffix '\.dat'"):
        load_scene(scene)


@pytest.mark.parametrize("changes", [{"aabb_scale": 1e300}, {"aabb_scale": 1, "scale": 1e-300}])
def test_a_box_without_a_finite_size_is_refused(scene, changes):
    path = scene / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    refused(scene, "the cube of 'aabb_scale', 'scale' and 'offset' exceeds")


def test_truncated_images_are_refused_when_loaded(scene):
    path = scene / "images/003.png"
    path.write_bytes(path.read_bytes()[:200])
    frame = load_scene(scene).frames[3]
    with pytest.raises(FileFormatError, match=r"003\.png: damaged"):
        frame.load()
    with pytest.raises(FileFormatError, match=r"003\.png: damaged"):
        PixelSource([frame])
    path.write_bytes(b"not an image")
    with pytest.raises(FileFormatError, match=r"003\.png: damaged"):
        load_scene(scene)


def test_images_that_change_after_loading(scene):
    frame = load_scene(scene).frames[3]
    scene_files.write_image(frame.image_path, scene_files.pixels(0, 3, (5, 6)))
    with pytest.raises(
        FileFormatError, match=r"003\.png: an image of \[5, 6\] pixels, but its camera has \[12, 16\]"
    ):
        frame.load()


def test_masks_and_depths_of_another_size(scene):
    scene_files.write_image(scene / "other.png", np.full((5, 6), 255, np.uint8))
    change(scene, mask_path="other.png")
    with pytest.raises(FileFormatError, match=r"the mask has \[5, 6\]"):
        load_scene(scene).frames[3].load()
    scene_files.write_image(scene / "other.png", np.full((5, 6), 255, np.uint16))
    change(scene, 4, depth_file_path="other.png")
    with pytest.raises(FileFormatError, match=r"other\.png: a depth image has \[5, 6\]"):
        load_scene(scene).frames[4].load()


@pytest.mark.parametrize("mode", ["grey", "grey16", "palette"])
def test_images_of_other_modes(scene, mode):
    values = np.arange(12 * 16).reshape(12, 16)
    deep = mode == "grey16"
    image = Image.fromarray((values * 300).astype(np.uint16) if deep else values.astype(np.uint8))
    image = image.convert("RGB").quantize(256) if mode == "palette" else image
    image.save(scene / "images/003.png")
    view = load_scene(scene).frames[3].load()
    assert view.image.shape == (12, 16, 3)
    assert float(view.image[0, 5, 0]) == pytest.approx(5 * 300 / 65535 if deep else 5 / 255, abs=1e-6)


def test_llff_of_other_numbers(tmp_path):
    scene_files.write_llff(tmp_path, scene_files.cameras())
    path = tmp_path / "poses_bounds.npy"
    table = np.load(path)
    np.save(path, table[:5])
    refused(tmp_path, "5 poses for 9 images")
    np.save(path, table[:, :10])
    refused(tmp_path, r"expected rows of 17 numbers, got float64 of shape \[9, 10\]")
    table[2, 3] = np.nan
    np.save(path, table)
    refused(tmp_path, r"frame images/002\.png: its pose is not finite")
    path.write_bytes(b"\x93NUMPY and no more")
    refused(tmp_path, "damaged")


@pytest.fixture
def model(tmp_path):
    scene_files.write_colmap(tmp_path, scene_files.cameras())
    return tmp_path


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_colmap_files_cut_short(model, name):
    path = model / f"sparse/0/{name}.bin"
    data = path.read_bytes()
    for length in (*range(1, 40, 7), len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        refused(model, f"{name}.bin: byte .* the file is truncated")


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("count", [2**40, 2**63, 2**64 - 1])
def test_colmap_counts_that_lie(model, name, count):
    path = model / f"sparse/0/{name}.bin"
    path.write_bytes(struct.pack("<Q", count) + path.read_bytes()[8:])
    tracemalloc.start()
    refused(model, f"{name}.bin: byte")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_wrong_inner_counts_of_colmap(model):
    path = model / "sparse/0/images.bin"
    data = path.read_bytes()
    place = data.index(b"000.png\0") + 8
    path.write_bytes(data[:place] + struct.pack("<Q", 2**62) + data[place + 8 :])
    refused(model, "its counts are wrong")


@pytest.mark.parametrize("seed", range(40))
def test_colmap_files_with_a_changed_byte(model, seed):
    random = np.random.default_rng(seed)
    path = model / f"sparse/0/{['cameras', 'images', 'points3D'][seed % 3]}.bin"
    data = bytearray(path.read_bytes())
    data[random.integers(len(data))] = random.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(FileFormatError):
        loaded = load_scene(model)
        assert all(frame.camera.camera_from_world.isfinite().all() for frame in loaded.frames)


def test_colmap_text_cut_short(tmp_path):
    scene_files.write_colmap(tmp_path, scene_files.cameras(), text=True)
    path = tmp_path / "sparse/0/images.txt"
    text = path.read_text()
    path.write_text(text[: text.index("003.png") - 20])
    refused(tmp_path, "line 7: expected at least 10 values")
    path.write_text(text.replace(" 1 004.png", " one 004.png"))
    refused(tmp_path, r"images\.txt: damaged")
    path.write_text(text.replace(" 1 004.png", " 8 004.png"))
    refused(tmp_path, r"frame 004\.png: there is no camera 8")


def test_many_megapixels_do_not_fill_memory(tmp_path):
    """Two images of 20 MB each; with a budget of 8 MiB they are read in bands."""
    view = scene_files.cameras(1)[0].resize(2000, 2500)
    content = scene_files.write_nerfstudio(tmp_path, scene_files.cameras(1))
    content["frames"] = [content["frames"][0] | {"w": 2500, "h": 2000, "fl_x": float(view.focal[0])}] * 2
    scene_files.write_json(tmp_path / "transforms.json", content)
    scene_files.write_image(tmp_path / "images/000.png", np.full((2000, 2500, 3), 51, np.uint8))
    source = PixelSource(load_scene(tmp_path).frames, memory_mib=8)
    assert source.is_streaming
    assert source._store.numel() * source._store.element_size() <= 8 * 2**20
    for _ in range(9):
        torch.testing.assert_close(source.draw(64, 4).colors, torch.full((1024, 3), 0.2))


@pytest.mark.parametrize("seed", range(60))
def test_json_with_changed_bytes(scene, seed):
    random = np.random.default_rng(seed)
    path = scene / "transforms.json"
    data = bytearray(path.read_bytes())
    for _ in range(3):
        data[random.integers(len(data))] = random.choice([*b'0123456789-.eE"{}[],:', 0, 200])
    path.write_bytes(data)
    with contextlib.suppress(FileFormatError):
        loaded = load_scene(scene)
        assert all(frame.camera.camera_from_world.isfinite().all() for frame in loaded.frames)


@pytest.mark.parametrize(
    "changes",
    [
        {"file_path": "a\0b"},
        {"file_path": "x" * 5000},
        {"w": 10**400},
        {"w": 1e300, "h": 1e300},
        {"fl_x": [1, 2]},
        {"mask_path": 7},
        {"depth_file_path": {"a": 1}},
        {"camera_model": 5},
    ],
)
def test_values_that_nobody_expects(scene, changes):
    change(scene, **changes)
    with contextlib.suppress(FileFormatError):
        load_scene(scene)
