"""Units of depth images, and EXR."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unrender import FileFormatError, InputError, PointCloud, load_scene, save_cloud, save_demo_scene
from unrender.cli.main import main
from unrender.io.depth import read_depth
from unrender.io.exr import write_exr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    save_demo_scene(folder, size=32, num_train=10, num_test=0)
    return folder


def write(path: Path, meters: np.ndarray, scale: float) -> None:
    """Write depth in units of `scale`: as floats, or as integers for png."""
    values = (meters / scale).astype(np.float32)
    if path.suffix == ".exr":
        with path.open("wb") as file:
            write_exr(file, values)
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(np.rint(values).astype(np.uint16) if path.suffix == ".png" else values).save(path)


def rewrite(
    demo: Path, folder: Path, suffix: str, scale: float, key: str = "depth_file_path", **extra
) -> None:
    """Copy a scene, with its depth in other units."""
    shutil.copytree(demo, folder, dirs_exist_ok=True)
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        old = folder / frame.pop("depth_file_path")
        write(old.with_suffix(suffix), np.load(old) / 1000, scale)
        frame[key] = old.with_suffix(suffix).relative_to(folder).as_posix()
    (folder / "transforms.json").write_text(json.dumps(content | extra))


def depths(folder: Path, **options) -> torch.Tensor:
    return torch.stack([frame.load_depth() for frame in load_scene(folder, **options).frames])


UNITS = [(".tiff", 1.0), (".npy", 1.0), (".exr", 1.0), (".tiff", 1e-3), (".png", 1e-3), (".png", 1 / 5000)]
UNITS += [(".png", 1e-4), (".exr", 1e-3)]


@pytest.mark.parametrize(("suffix", "scale"), UNITS)
def test_units_follow_from_the_cameras(demo: Path, tmp_path: Path, suffix: str, scale: float) -> None:
    rewrite(demo, tmp_path, suffix, scale)
    scene = load_scene(tmp_path)
    torch.testing.assert_close(depths(tmp_path), depths(demo), atol=2e-3, rtol=0)
    notes = [note for note in scene.notes if "depth images are read with a scale of" in note]
    assert len(notes) == (scale != 1e-3)
    assert all(f"a scale of {scale:g}: with 0.001" in note for note in notes)


def test_a_given_scale_is_used(demo: Path, tmp_path: Path) -> None:
    rewrite(demo, tmp_path, ".tiff", 0.3048)
    assert any("give `depth_scale`" in note for note in load_scene(tmp_path).notes)
    scene = load_scene(tmp_path, depth_scale=0.3048)
    assert not scene.notes
    torch.testing.assert_close(depths(tmp_path, depth_scale=0.3048), depths(demo), atol=1e-5, rtol=0)
    for wrong in (0.0, -1.0, float("inf")):
        with pytest.raises(InputError, match="depth_scale"):
            load_scene(tmp_path, depth_scale=wrong)


@pytest.mark.parametrize("factor", [37.0, 1 / 37])
def test_depth_that_fits_no_usual_unit_is_said_and_not_read_in_another(demo, tmp_path, factor) -> None:
    rewrite(demo, tmp_path, ".npy", 0.001 / factor)
    (note,) = load_scene(tmp_path).notes
    assert "depth images with a scale of 0.001 are " in note
    assert (
        "times as deep as the point that the cameras face: give `depth_scale`, which should be about " in note
    )
    assert {frame.depth_file.scale for frame in load_scene(tmp_path).frames} == {0.001}
    suggested = float(note.rpartition(" ")[2])
    assert suggested == pytest.approx(0.001 / factor, rel=0.2)
    assert not load_scene(tmp_path, depth_scale=0.001 / factor).notes


def test_a_given_scale_that_does_not_fit_is_said(demo: Path, tmp_path: Path) -> None:
    (note,) = load_scene(demo, depth_scale=0.037).notes
    assert "depth images with a scale of 0.037 are" in note


@pytest.mark.parametrize("stated", [0.001, 1.0])
def test_instant_ngp_states_its_scale(demo: Path, tmp_path: Path, stated: float) -> None:
    rewrite(
        demo, tmp_path, ".png", 0.001, "depth_path", integer_depth_scale=stated, enable_depth_loading=True
    )
    scene = load_scene(tmp_path)
    assert {frame.depth_file.scale for frame in scene.frames} == {stated}
    assert len(scene.notes) == (stated == 1.0)  # wrong, but stated: said, and kept


def test_points_tell_units_apart_that_cameras_do_not(demo: Path, tmp_path: Path) -> None:
    frame = load_scene(demo).frames[0]
    depth = frame.load_depth()
    rows, columns = torch.nonzero(depth > 0, as_tuple=True)
    pixels = torch.stack([columns + 0.5, rows + 0.5, depth[rows, columns]], -1)
    save_cloud(PointCloud(frame.camera.unproject(pixels)), tmp_path / "points.ply")
    rewrite(demo, tmp_path, ".png", 0.0025, ply_file_path="points.ply")
    (note,) = load_scene(tmp_path).notes
    assert "times as deep as the points of the scene: give `depth_scale`" in note
    rewrite(demo, tmp_path, ".png", 0.001, ply_file_path="points.ply")
    assert not load_scene(tmp_path).notes


def test_inspect_says_the_scale_and_export_uses_it(demo: Path, tmp_path: Path, capsys) -> None:
    rewrite(demo, tmp_path / "scene", ".exr", 1.0)
    assert main(["inspect", str(tmp_path / "scene"), "--output", str(tmp_path / "i")]) == 0
    printed = capsys.readouterr().out
    assert "1 world units per unit of the files" in printed
    assert "note: depth images are read with a scale of 1" in printed
    options = ["--min-consistent-views", "1", "--tolerance", "0.1", "--depth-scale", "1"]
    assert main(["export", str(tmp_path / "scene"), *options, "--output", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["points"] > 100


def write_channels(path: Path, channels: dict[str, np.ndarray], **header) -> None:
    exr = pytest.importorskip("OpenEXR")
    with exr.File({"type": exr.scanlineimage, **header}, channels) as file:
        file.write(str(path))


COMPRESSIONS = ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "DWAA", "DWAB"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_exr_of_all_compressions(tmp_path: Path, compression: str) -> None:
    exr = pytest.importorskip("OpenEXR")
    values = np.random.default_rng(0).random((37, 53)).astype(np.float32) * 5
    values[:10] = 2.0
    channels = {"A": values.astype(np.float16), "Z": values}
    write_channels(tmp_path / "a.exr", channels, compression=getattr(exr, f"{compression}_COMPRESSION"))
    np.testing.assert_allclose(read_depth(tmp_path / "a.exr", 1.0), values, atol=1e-4)  # PXR24 rounds


def test_exr_is_read_without_the_library(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path / "a.exr", np.full((3, 4), 2.0), 1.0)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    assert (read_depth(tmp_path / "a.exr", 1.0) == 2).all()


@pytest.mark.parametrize("name", ["Z", "R", "ViewLayer.Depth.Z", "depth", "Y", "V"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint32])
def test_exr_of_other_programs(tmp_path: Path, name: str, dtype: type) -> None:
    values = np.arange(12).reshape(3, 4).astype(dtype)
    write_channels(tmp_path / "a.exr", {name: values})
    np.testing.assert_array_equal(read_depth(tmp_path / "a.exr", None), values)


def test_exr_with_colors_and_infinite_background(tmp_path: Path) -> None:
    depth = np.full((3, 4), 1e10, np.float32)
    depth[1] = 2.5
    color = np.zeros((3, 4), np.float16)
    write_channels(tmp_path / "a.exr", {"R": color, "G": color, "B": color, "Z": depth})
    expected = np.where(depth < 1e9, depth, 0)
    np.testing.assert_array_equal(read_depth(tmp_path / "a.exr", None), expected)
    write_channels(tmp_path / "b.exr", {"A": color, "normal": color})
    with pytest.raises(FileFormatError, match="name it Z"):
        read_depth(tmp_path / "b.exr", None)


def test_damaged_exr_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR")
    write(tmp_path / "a.exr", np.ones((8, 9)), 1.0)
    data = (tmp_path / "a.exr").read_bytes()
    for damaged in (
        b"no",
        data[:100],
        data[:-40],
        data.replace(b"\x08\0\0\0\x07\0\0\0", b"\xff\xff\xff\x7e" * 2),
    ):
        (tmp_path / "b.exr").write_bytes(damaged)
        with pytest.raises(FileFormatError):
            read_depth(tmp_path / "b.exr", None)
