"""unrender find-pose, as a user calls it."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

import unrender
from unrender.cli.main import main
from unrender.geometry.camera import Camera, transform
from unrender.geometry.points import PointCloud
from unrender.geometry.simplify import cluster_vertices

SIZE, FOV = 120, 40.0
FAST = ["--num-views", "200", "--num-starts", "12", "--resolution", "64"]
EYE = torch.tensor([2.0, 1.2, 3.0])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write the object, a photo of it with transparency around, and a scan of it."""
    mesh = cluster_vertices(unrender.demo_object(), 20).to(torch.float32)
    unrender.save_mesh(mesh, tmp_path / "object.ply")
    camera = Camera.look_at(EYE, fov_degrees=FOV, height=SIZE, width=SIZE)
    photo = unrender.render_mesh(mesh, camera, background=None, supersampling=2)
    color = photo[..., :3] / photo[..., 3:].clamp(min=1e-3)
    unrender.save_image(torch.cat([color, photo[..., 3:]], -1).clamp(0, 1), tmp_path / "photo.png")
    points = unrender.sample_points_from_mesh(mesh, 2000, generator=torch.Generator().manual_seed(0)).points
    unrender.save_cloud(PointCloud(transform(camera.camera_from_world, points)), tmp_path / "scan.ply")
    return tmp_path


def run(files: Path, *arguments: str) -> int:
    return main(
        [
            "find-pose",
            *(str(files / a) if a[0] != "-" and "." in a and a[0].isalpha() else a for a in arguments),
        ]
    )


def truth() -> torch.Tensor:
    return Camera.look_at(EYE, height=1, width=1).camera_from_world


def degrees_off(pose: list[list[float]]) -> float:
    found = torch.tensor(pose)
    return math.degrees(
        float(unrender.rotation_angle(found[:3, :3].contiguous(), truth()[:3, :3].contiguous()))
    )


def test_run_folder_of_a_photo(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = files / "run"
    options = ["--fov-degrees", str(FOV), "--output", str(folder), *FAST]
    assert run(files, "object.ply", "photo.png", *options) == 0
    names = ["config.json", "curves.json", "metrics.json", "overlay.png", "pose.json", "report.html"]
    assert sorted(path.name for path in folder.iterdir()) == names
    pose = json.loads((folder / "pose.json").read_text())
    expected = {"camera_from_object", "convention", "status", "iou", "candidates", "rotation_std_degrees"}
    assert set(pose) == expected | {"verdict", "message", "translation_std", "seconds"}
    assert pose["status"] == pose["verdict"] == "converged"
    assert pose["iou"] > 0.9
    assert degrees_off(pose["camera_from_object"]) < 3
    assert pose["candidates"][0]["camera_from_object"] == pose["camera_from_object"]
    assert set(pose["candidates"][0]) == {"camera_from_object", "score", "iou"}
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["num_views"] == 200
    assert config["photo"]["fov_degrees"] == FOV
    out = capsys.readouterr().out
    assert "Converged" in out
    assert out.strip().endswith(str(folder / "report.html"))
    html = (folder / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?(http|//)""", html.replace("xlink:href", ""))
    assert "data-video" in html
    assert "find-pose" in html


def test_run_folder_of_a_point_cloud(files: Path) -> None:
    folder = files / "run"
    assert run(files, "object.ply", "scan.ply", "--output", str(folder)) == 0
    pose = json.loads((folder / "pose.json").read_text())
    assert degrees_off(pose["camera_from_object"]) < 1
    assert pose["inlier_fraction"] > 0.9
    placed, scan = unrender.load_mesh(folder / "mesh_in_cloud.ply"), unrender.load_cloud(files / "scan.ply")
    found = unrender.closest_on_mesh(scan.points.double(), placed.vertices.double(), placed.faces)
    assert float(found.squared_distances.max()) < 1e-6


def test_a_box_replaces_the_mask(files: Path) -> None:
    photo = unrender.load_photo(files / "photo.png", fov_degrees=FOV)
    wall = torch.tensor([0.1, 0.4, 0.1])
    unrender.save_image(wall + photo.mask[..., None] * (photo.image - wall), files / "opaque.png")
    rows, columns = ((photo.mask > 0.5).any(axis).nonzero()[:, 0] for axis in (1, 0))
    box = [str(float(v)) for v in (columns[0] - 2, rows[0] - 2, columns[-1] + 3, rows[-1] + 3)]
    folder = files / "run"
    options = ["--fov-degrees", str(FOV), "--output", str(folder), *FAST]
    assert run(files, "object.ply", "opaque.png", "--box", *box, *options) == 0
    assert degrees_off(json.loads((folder / "pose.json").read_text())["camera_from_object"]) < 3
    assert json.loads((folder / "config.json").read_text())["photo"]["box"] == [float(v) for v in box]


def test_initial_guess(files: Path) -> None:
    (files / "guess.txt").write_text("\n".join(" ".join(map(str, row)) for row in truth().tolist()))
    (files / "guess.json").write_text(json.dumps({"camera_from_object": truth().tolist()}))
    for name in ("guess.txt", "guess.json"):
        folder = files / f"run from {name}"
        options = ["--fov-degrees", str(FOV), "--output", str(folder), *FAST]
        assert run(files, "object.ply", "photo.png", "--guess", str(files / name), *options) == 0
        assert degrees_off(json.loads((folder / "pose.json").read_text())["camera_from_object"]) < 3


def test_wrong_object_exits_with_1(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = torch.zeros(SIZE, SIZE)
    mask[10:110, 55:62] = 1
    unrender.save_image(mask, files / "mask.png")
    options = [
        "--fov-degrees",
        str(FOV),
        "--mask",
        str(files / "mask.png"),
        "--output",
        str(files / "run"),
        *FAST,
    ]
    assert run(files, "object.ply", "photo.png", *options) == 1
    assert "Failed" in capsys.readouterr().out
    assert json.loads((files / "run/pose.json").read_text())["status"] == "failed"


def test_missing_texture(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "square.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n"
    )
    (files / "a.mtl").write_text("newmtl m\nmap_Kd none.png\n")
    assert run(files, "square.obj", "photo.png", "--fov-degrees", "40") == 2
    error = capsys.readouterr().err
    assert "none.png" in error
    assert "--no-use-color" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.ply", "photo.png"], r"none.ply: no such file"),
        (["object.ply", "none.png", "--fov-degrees", "40"], r"none.png: no such file"),
        (["object.ply", "photo.png"], r"no focal length in the file"),
        (["object.ply", "photo.png", "--fov-degrees", "200"], r"--fov-degrees should lie between 0 and 180"),
        (["object.ply", "photo.gif"], r"unsupported suffix '.gif'"),
        (["object.ply", "scan.ply", "--fov-degrees", "40"], r"--fov-degrees does not apply to a point cloud"),
        (["object.ply", "photo.png", "--fov-degrees", "40", "--guess", "scan.ply"], r"scan.ply: "),
        (
            ["object.ply", "photo.png", "--fov-degrees", "40", "--box", "9", "9", "5", "5"],
            r"left, top, right",
        ),
        (["object.ply", "scan.ply", "--box", "9", "9", "50", "50"], r"--box does not apply to a point cloud"),
    ],
)
def test_invalid_input_exits_with_2(files, arguments, message, capsys):
    (files / "photo.gif").write_bytes(b"GIF89a")
    assert run(files, *arguments) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert re.search(message, error), error
