"""Gaussian splat files in the commands that take a run."""

import json

import pytest
import torch

import scene_files
from splat_files import gaussians_on, splat_bytes, write
from unrender import Camera, Frame, ico_sphere, load_field, load_mesh, save_cameras
from unrender.cli.main import main
from unrender.fields.gaussians import GaussianField
from unrender.runs.saved_run import load_run
from unrender.runs.splat_views import NUM_CAMERAS
from unrender.runs.views import views_of_split


@pytest.fixture(scope="module")
def splats(tmp_path_factory):
    """A splat file of a sphere of radius 1."""
    folder = tmp_path_factory.mktemp("splats")
    return write(gaussians_on(ico_sphere(3), 3000, opacity=0.98), folder / "ball.spz")


def test_render(splats, tmp_path, capsys):
    assert (
        main(
            [
                "render",
                str(splats),
                "--views",
                "2",
                "--size",
                "40",
                "--video",
                "none",
                "--output",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert "views are placed around it" in capsys.readouterr().err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["views"], metrics["height"], metrics["num_gaussians"]) == (2, 40, 3000)
    assert {"view_000.png", "view_001.png", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    assert "unrender.load_field(" in (tmp_path / "report.html").read_text()


def test_quick_views_show_distance(splats, tmp_path):
    arguments = ["--quick", "--views", "1", "--size", "24", "--video", "none"]
    assert main(["render", str(splats), *arguments, "--output", str(tmp_path)]) == 0


def test_depth_of_cameras_from_a_file(splats, tmp_path):
    camera = Camera.look_at((0.0, 0.0, 4.0), fov_degrees=40.0, height=32, width=32)
    save_cameras([Frame("a.png", camera, tmp_path / "a.png")], tmp_path / "cameras.json")
    output = tmp_path / "depth"
    arguments = ["--path", str(tmp_path / "cameras.json"), "--output", str(output)]
    assert main(["depth", str(splats), *arguments]) == 0
    import numpy as np

    z = np.load(output / "depth/a/median_z.npy")
    assert abs(float(z[16, 16]) - 3) < 0.05


def test_a_mesh(splats, tmp_path):
    arguments = ["--to", "mesh", "--views", "12", "--size", "48", "--voxel-size", "0.08"]
    assert main(["export", str(splats), *arguments, "--output", str(tmp_path)]) == 0
    radii = load_mesh(tmp_path / "mesh.ply").vertices.norm(dim=-1)
    assert len(radii) > 500
    assert float((radii - 1).abs().quantile(0.9)) < 0.08


def test_inspect(splats, tmp_path, capsys):
    assert main(["inspect", str(splats), "--output", str(tmp_path)]) == 0
    assert "Gaussians      3,000" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text())["harmonics_degree"] == 0
    assert "No problems found." in (tmp_path / "report.html").read_text()


def test_opacities_that_are_no_logits_are_reported(tmp_path, capsys):
    gaussians = gaussians_on(ico_sphere(1), 40, opacity=0.9)
    activated = gaussians.replace(opacities=gaussians.opacities.sigmoid(), scales=gaussians.scales.exp())
    path = write(activated, tmp_path / "ball.ply")
    assert main(["inspect", str(path), "--output", str(tmp_path / "out")]) == 0
    assert "may hold opacities and scales instead of their logits and logarithms" in capsys.readouterr().out


def test_cameras_beside_the_file(splats, tmp_path):
    path = tmp_path / "point_cloud/iteration_7/point_cloud.splat"
    path.parent.mkdir(parents=True)
    path.write_bytes(splat_bytes(gaussians_on(ico_sphere(1), 10)))
    assert len(load_run(path).frames()) == NUM_CAMERAS
    camera = Camera.look_at((0.0, 0.0, 4.0), height=8, width=9)
    save_cameras([Frame("a.png", camera, tmp_path / "a.png")], tmp_path / "cameras.json")
    [frame] = load_run(path).frames()
    assert (frame.name, frame.split, frame.camera.width) == ("a.png", "test", 9)
    assert isinstance(load_field(path), GaussianField)
    around = load_run(splats).frames()
    forward = torch.stack([f.camera.camera_from_world[2, :3] for f in around])
    positions = torch.stack([f.camera.position for f in around])
    torch.testing.assert_close(forward, -torch.nn.functional.normalize(positions, dim=-1), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render", "BALL", "--path", "train"], "there are no training views; choose another --path"),
        (["render", "BALL", "--window", "1", "2"], "--window does not apply to a run"),
        (
            ["export", "BALL", "--to", "mesh", "--method", "density"],
            "needs a run with a field that has a density",
        ),
        (["render", "BALL", "--quick", "--samples", "8"], "--samples 8 does not apply to Gaussian splats"),
        (["inspect", "BALL", "--quick"], "--quick does not apply to a Gaussian splat file"),
        (["eval", "BALL"], "no scene is recorded; give its path: --scene FOLDER"),
        (["depth", "CUT"], "truncated or damaged"),
        (["render", "MESH"], "not a Gaussian splat file: no property f_dc_0"),
        (["render", "missing.splat"], "no such file"),
    ],
)
def test_mistakes_are_named(splats, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut.splat").write_bytes(splat_bytes(gaussians_on(ico_sphere(0), 3))[:-1])
    mesh = "\n".join(["ply", "format ascii 1.0", "element vertex 1", *(f"property float {c}" for c in "xyz")])
    (tmp_path / "mesh.ply").write_text(f"{mesh}\nend_header\n0 0 0\n")
    files = {"BALL": str(splats), "CUT": "cut.splat", "MESH": "mesh.ply"}
    assert main([files.get(argument, argument) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_points_need_perspective_views(splats, tmp_path, capsys):
    path = tmp_path / "ball.spz"
    path.write_bytes(splats.read_bytes())
    camera = Camera.look_at((0.0, 0.0, 4.0), height=8, width=8).to_equirectangular(8)
    save_cameras([Frame("a.png", camera, tmp_path / "a.png")], tmp_path / "cameras.json")
    assert main(["export", str(path), "--output", str(tmp_path / "out")]) == 2
    assert "--to points needs perspective views, got equirectangular ones" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_views_to_evaluate(splats, tmp_path):
    scene_files.write_blender(tmp_path, scene_files.cameras(4))
    frames = views_of_split(load_run(splats), "test", tmp_path)
    assert len(frames) > 0
