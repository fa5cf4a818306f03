"""Folders of depth maps: what is written is what was measured, in every format, or nothing is."""

import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from unrender import (
    Camera,
    DepthFiles,
    DepthMap,
    InputError,
    Lens,
    MissingFileError,
    load_depth_views,
    save_depth,
)
from unrender.data.depth_maps import quantize_depth
from unrender.errors import FileFormatError
from unrender.io.depth import read_depth

CAMERA = Camera.look_at([0.3, 0.2, -3.0], fov_degrees=50, height=48, width=20)


def some_depth(factor: float = 1.0, camera: Camera = CAMERA) -> DepthMap:
    generator = torch.Generator().manual_seed(0)
    values = factor * (1 + torch.rand(3, 48, 20, generator=generator))
    shares = torch.rand(3, 48, 20, generator=generator)
    valid = shares[0] > 0.3
    return DepthMap(camera, *values, *shares, valid)


def test_round_trip(tmp_path):
    depth, color = some_depth(), torch.rand(48, 20, 3, generator=torch.Generator().manual_seed(1))
    save_depth(depth, tmp_path / "a" / "view", color=color, metadata={"threshold": 0.25})
    names = {path.name for path in (tmp_path / "a" / "view").iterdir()}
    kinds = {f"{k}_{a}.npy" for k in ("expected", "median", "first_surface") for a in ("z", "distance")}
    others = {
        "opacity.npy",
        "std.npy",
        "confidence.npy",
        "valid.png",
        "preview.png",
        "color.png",
        "depth.json",
    }
    assert names == kinds | others
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["view"]
    stored = np.load(tmp_path / "a" / "view" / "first_surface_z.npy")
    assert stored.dtype == np.float32
    assert np.array_equal(stored, depth.first_surface_z.numpy())
    about = json.loads((tmp_path / "a" / "view" / "depth.json").read_text())
    assert (about["invalid_value"], about["threshold"], about["camera"]["w"]) == (0, 0.25, 20)
    ((name, view),) = load_depth_views(tmp_path / "a").items()
    assert name == "view"
    assert torch.equal(view.depth, torch.where(depth.valid, depth.median_z, 0))
    torch.testing.assert_close(view.color, color, rtol=0, atol=0.003)
    torch.testing.assert_close(view.camera.camera_from_world, CAMERA.camera_from_world)
    assert list(load_depth_views(tmp_path / "a" / "view")) == ["view"]


def test_a_lens_comes_back(tmp_path):
    lens = Lens.brown([-0.1, 0.02], [0.001, -0.002])
    save_depth(some_depth(camera=CAMERA.replace(lens=lens)), tmp_path / "view")
    view = load_depth_views(tmp_path / "view")["view"]
    torch.testing.assert_close(view.camera.lens.radial, lens.radial)


def test_images_contain_the_same_depth(tmp_path):
    depth = some_depth()
    save_depth(depth, tmp_path / "view", DepthFiles(("png16", "exr", "tiff"), scale=0.0005))
    expected = torch.where(depth.valid, depth.median_z, 0).numpy()
    whole = read_depth(tmp_path / "view" / "median_z.png", 0.0005)
    assert np.abs(whole - expected).max() <= 0.000251
    assert np.array_equal(whole == 0, expected == 0)
    assert np.array_equal(read_depth(tmp_path / "view" / "median_z.tiff", None), expected)
    data = (tmp_path / "view" / "median_z.exr").read_bytes()
    assert data[:8] == struct.pack("<2i", 20000630, 2)
    lines = np.frombuffer(data[-48 * (8 + 80) :], "<f4").reshape(48, 22)[:, 2:]
    assert np.array_equal(lines, expected)
    assert json.loads((tmp_path / "view" / "depth.json").read_text())["png_scale"] == 0.0005


@pytest.mark.parametrize("colormap", ["gray", "viridis", "magma"])
def test_near_is_dark_and_far_is_bright(tmp_path, colormap):
    depth = some_depth()
    ramp = torch.linspace(1, 3, 48)[:, None].expand(48, 20)
    depth = depth.replace(median_distance=ramp, valid=torch.arange(20).expand(48, 20) < 15)
    save_depth(depth, tmp_path / "view", DepthFiles(colormap=colormap))
    image = np.asarray(Image.open(tmp_path / "view" / "preview.png")).astype(int)
    assert image.shape == (48, 96, 3)
    brightness = image[:, 5] @ [299, 587, 114]
    assert (np.diff(brightness) >= -2000).all()
    assert brightness[-1] > brightness[0] + 80_000
    assert image[20, 18].tolist() == [140, 178, 242]
    assert (image[:, 20:] < 100).any()  # letters


def test_depth_that_does_not_fit_is_refused_with_the_largest_value(tmp_path):
    save_depth(some_depth(), tmp_path / "view")
    with pytest.raises(
        InputError, match=r"the largest depth, \d+\.\d+, is \d+ steps of 0.001, and 16 bits hold 65535"
    ):
        save_depth(some_depth(100.0), tmp_path / "view", DepthFiles(("png16",)))
    assert not (tmp_path / "view" / "median_z.png").exists()  # the older one is still there, whole
    assert [path.name for path in tmp_path.iterdir()] == ["view"]


def test_what_is_there_never_becomes_nothing():
    steps = quantize_depth(np.array([0.0, 1e-7, 0.0014, 65.535], np.float32), 0.001)
    assert steps.tolist() == [0, 1, 1, 65535]


def test_nothing_valid_has_a_preview(tmp_path):
    depth = some_depth()
    save_depth(depth.replace(valid=torch.zeros_like(depth.valid)), tmp_path / "view")
    image = np.asarray(Image.open(tmp_path / "view" / "preview.png"))
    assert (image[:, :20] == [140, 178, 242]).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": 0.0}, "`scale` should be positive"),
        ({"scale": float("inf")}, "`scale` should be positive"),
        ({"formats": ("bmp",)}, "`formats` are png16, exr, tiff"),
        ({"colormap": "jet"}, "`colormap` is one of viridis"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(InputError, match=words):
        DepthFiles(**settings)


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="no such folder"):
        load_depth_views(tmp_path / "absent")
    with pytest.raises(FileFormatError, match="no depth maps"):
        load_depth_views(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written as a folder: it is a file"):
        save_depth(some_depth(), tmp_path / "file")
    for name, content, words in (
        ("depth.json", b"{", "damaged"),
        ("depth.json", b'{"camera": 5}', "damaged"),
        ("median_z.npy", b"nothing", "median_z.npy"),
        ("valid.png", b"nothing", "valid.png"),
    ):
        save_depth(some_depth(), tmp_path / "view")
        (tmp_path / "view" / name).write_bytes(content)
        with pytest.raises(FileFormatError, match=words):
            load_depth_views(tmp_path / "view")
    save_depth(some_depth(), tmp_path / "view", color=torch.zeros(48, 21, 3))
    with pytest.raises(FileFormatError, match=r"color\.png"):
        load_depth_views(tmp_path / "view")
