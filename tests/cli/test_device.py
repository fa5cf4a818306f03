"""`--device`: commands compute where they are told, and write files from there."""

import json
from pathlib import Path

import pytest
import torch
from pretended_gpu import DEVICE, pretended_gpu

import unrender
from unrender import devices
from unrender.cli import depth, evaluate, export, render
from unrender.cli.main import main
from unrender.devices import Hardware
from unrender.runs.folder import RUN_FORMAT

COMMANDS = (depth, evaluate, export, render)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """Let `--device auto` be the pretended GPU."""
    for command in COMMANDS:
        monkeypatch.setattr(command, "resolve_device", lambda name: DEVICE)
    with pretended_gpu() as pretended:
        yield pretended


def test_a_gpu_that_is_not_there_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "find_hardware", lambda: Hardware((), "1.19.0"))
    unrender.save_cloud(unrender.PointCloud(torch.rand(9, 3)), tmp_path / "cloud.ply")
    assert main(["fit-mesh", str(tmp_path / "cloud.ply"), "--device", "cuda"]) == 2
    assert "device cuda: there is no such GPU; torch finds no GPU" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a field that is small and opaque, on a scene of a few small images."""
    scene = unrender.save_demo_scene(tmp_path / "scene", size=16, num_train=3, num_test=1)
    folder = tmp_path / "run"
    folder.mkdir()
    mask = torch.zeros(8, 8, 8, dtype=torch.bool)
    mask[2:6, 2:6, 2:6] = True
    field = unrender.SparseVoxels.from_mask(
        mask, unrender.SceneBox.cube(torch.zeros(3), 1.0), degree=0, opacity=0.95
    )
    unrender.save_field(field, folder / "volume.safetensors")
    unrender.save_cameras(scene.frames, folder / "cameras.json")
    config = {
        "task": "fit-volume",
        "scene": str(tmp_path / "scene"),
        "background": [1, 1, 1],
        "format": RUN_FORMAT,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["render", "--views", "2", "--video", "none", "--size", "8"],
        ["render", "--views", "1", "--video", "none", "--size", "8", "--quick"],
        ["depth", "--size", "12", "--path", "train", "--min-opacity", "0.2"],
        ["eval"],
        ["export", "--to", "mesh", "--size", "16", "--voxel-size", "0.2"],
        ["export", "--to", "mesh", "--method", "density"],
    ],
    ids=" ".join,
)
def test_commands_of_a_run(arguments, run, tmp_path, gpu):
    command, *options = arguments
    assert main([command, str(run), *options, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/report.html").is_file()
    assert gpu.waits["to the host"] > 0


def test_a_volume_is_rendered(tmp_path, gpu):
    values = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(0))
    unrender.save_volume(unrender.Volume.in_box(values, -torch.ones(3), torch.ones(3)), tmp_path / "v.npy")
    arguments = ["render", str(tmp_path / "v.npy"), "--views", "1", "--size", "8", "--video", "none"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert gpu.waits["to the host"] > 0
