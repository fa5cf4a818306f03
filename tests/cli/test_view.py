import json

import numpy as np
import pytest
import torch

from unrender import (
    Camera,
    Frame,
    PointCloud,
    SceneBox,
    SparseVoxels,
    cube,
    save_cameras,
    save_cloud,
    save_demo_scene,
    save_field,
    save_mesh,
)
from unrender.cli.main import main
from unrender.runs.folder import RUN_FORMAT
from unrender.viewer.window import Window


@pytest.fixture
def shown(monkeypatch):
    """Windows that close immediately."""
    windows = []

    def run(window) -> None:
        window.draw()
        windows.append(window)
        raise KeyboardInterrupt

    monkeypatch.setattr(Window, "run", run)
    return windows


def view(path, *options) -> int:
    return main(["view", str(path), "--port", "0", *options])


def node(window, name):
    return window._server.scene.get_handle_by_name(name)


@pytest.mark.parametrize("name", ["cube.obj", "cube.ply", "cube.stl", "cube.glb"])
def test_mesh(tmp_path, shown, capsys, name):
    save_mesh(cube(), tmp_path / name)
    assert view(tmp_path / name) == 0
    assert node(shown[0], "/mesh") is not None
    out = capsys.readouterr().out
    assert "viewer running at http://localhost:" in out
    assert out.endswith("closed\n")


@pytest.mark.parametrize("name", ["points.ply", "points.xyz", "points.npy"])
def test_points(tmp_path, shown, name):
    points = torch.rand(20, 3)
    if name.endswith("npy"):
        np.save(tmp_path / name, points.numpy())
    else:
        save_cloud(PointCloud(points), tmp_path / name)
    assert view(tmp_path / name) == 0
    assert len(node(shown[0], "/cloud").points) == 20


def test_volume_with_z_up(tmp_path, shown):
    np.save(tmp_path / "head.npy", np.random.default_rng(0).random((6, 7, 8), np.float32))
    assert view(tmp_path / "head.npy", "--window", "0.2", "0.9") == 0
    assert shown[0]._cropped is not None
    assert shown[0]._up.tolist() == [0, 0, 1]
    assert shown[0]._crop._sliders[0].max > 7


def test_one_of_several_volumes(tmp_path, shown, capsys):
    nibabel = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).random((4, 5, 6, 3)).astype(np.float32)
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / "series.nii")
    assert view(tmp_path / "series.nii") == 2
    assert "has 3 volumes; choose one, 0 to 2, with --frame" in capsys.readouterr().err
    assert view(tmp_path / "series.nii", "--frame", "2") == 0
    assert len(shown) == 1


def test_scene(tmp_path, shown):
    save_demo_scene(tmp_path / "scene", size=16, num_train=3, num_test=1)
    assert view(tmp_path / "scene") == 0
    assert node(shown[0], "/cameras/3") is not None


def test_runs(tmp_path, shown):
    field = SparseVoxels.from_mask(torch.ones(8, 8, 8, dtype=torch.bool), SceneBox.cube(torch.zeros(3), 1.0))
    save_field(field, tmp_path / "volume.safetensors")
    camera = Camera.look_at([0.0, 1.0, -3.0], fov_degrees=50, height=12, width=16)
    save_cameras([Frame("0.png", camera, tmp_path / "0.png")], tmp_path / "cameras.json")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"format": RUN_FORMAT, "task": "fit-volume", "background": [0.0, 0.0, 1.0]}))
    assert view(tmp_path) == 0
    assert shown[0].background == (0, 0, 1)
    assert isinstance(shown[0]._cropped, SparseVoxels)
    assert view(tmp_path / "volume.safetensors") == 0
    save_mesh(cube(), tmp_path / "mesh.obj")
    config.write_text(json.dumps({"format": RUN_FORMAT, "task": "fit-mesh"}))
    assert view(tmp_path) == 0
    assert node(shown[2], "/mesh") is not None


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("absent.ply", None, [], "no such file or folder; give a mesh"),
        ("notes.doc", "text", [], "the suffix '.doc' is not one of .ply"),
        ("points.xyz", "1 2 3", ["--window", "0", "1"], "--window applies to volumes only"),
        ("points.xyz", "1 2 3", ["--frame", "0"], "--frame applies to volumes only"),
        ("head.npy", "text", [], "head.npy: damaged"),
        ("config.json", "{", [], "broken JSON"),
    ],
)
def test_invalid_input(tmp_path, capsys, name, content, options, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert view(tmp_path / name, *options) == 2
    assert message in capsys.readouterr().err


def test_folder_without_a_run(tmp_path, capsys):
    assert view(tmp_path) == 2
    assert "no scene found" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("[1]")
    assert view(tmp_path) == 2
    assert "no `task`: not written by unrender" in capsys.readouterr().err
