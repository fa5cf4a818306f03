import dataclasses
import html
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ball_field import Ball
from scene_files import cameras
from unrender import (
    Camera,
    Frame,
    SceneBox,
    SparseVoxels,
    load_cameras,
    save_cameras,
    save_demo_scene,
    save_field,
)
from unrender.cli.main import main
from unrender.io.depth_preview import LEGEND_WIDTH
from unrender.runs.folder import RUN_FORMAT

SIZE = ["--size", "24"]


def fog(contracted: bool = False) -> SparseVoxels:
    """A cube about the origin, red and dense, in voxels."""
    generator = torch.Generator().manual_seed(0)
    field = SparseVoxels.from_mask(
        torch.ones(8, 8, 8, dtype=torch.bool),
        SceneBox.cube(torch.zeros(3), 1.0 if contracted else 0.5, contracted=contracted),
        opacity=0.5,
    )
    noise = 0.1 * torch.randn(field.harmonics.shape, generator=generator)
    field.harmonics.data = noise + torch.eye(27)[0] - torch.eye(27)[9] - torch.eye(27)[18]
    return field


def write_run(folder, **changes):
    folder.mkdir()
    splits = ["test", "train", "train"]
    frames = [
        Frame(f"{i}.png", view, folder / f"{i}.png", splits[i % 3]) for i, view in enumerate(cameras(9))
    ]
    save_cameras(frames, folder / "cameras.json")
    save_field(fog(), folder / "volume.safetensors")
    config = {"format": RUN_FORMAT, "task": "fit-volume", "scene": "gone", "background": [1.0, 1.0, 1.0]}
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "ship")


def read_image(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize("path", ["auto", "orbit", "interpolate", "test"])
def test_camera_paths(run, tmp_path, capsys, path):
    out = tmp_path / "out"
    assert main(["render", str(run), *SIZE, "--views", "3", "--path", path, "--output", str(out)]) == 0
    names = {file.name for file in out.iterdir()}
    views = {f"view_{i:03d}.png" for i in range(3)}
    assert names == {"config.json", "metrics.json", "cameras.json", "report.html", "video.mp4"} | views
    for view in views:
        image = read_image(out / view)
        assert image.shape == (18, 24, 3)
        assert image[9, 12, 0] > image[9, 12, 1] + 50  # red, in the center
        assert image[0, 0].tolist() == [255] * 3
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["views"], metrics["height"], metrics["width"], metrics["num_voxels"]) == (3, 18, 24, 512)
    assert str(out / "report.html") in capsys.readouterr().out


def test_test_views_have_the_cameras_of_the_photos(run, tmp_path):
    out = tmp_path / "out"
    assert main(["render", str(run), "--path", "test", "--video", "none", "--output", str(out)]) == 0
    kept = [frame for frame in load_cameras(run / "cameras.json") if frame.split == "test"]
    shown = load_cameras(out / "cameras.json")
    assert len(kept) == len(shown) == 3
    for mine, theirs in zip(shown, kept, strict=True):
        torch.testing.assert_close(mine.camera.camera_from_world, theirs.camera.camera_from_world)
        assert (mine.camera.height, mine.camera.width) == (theirs.camera.height, theirs.camera.width)
    field = fog()
    expected = (field.render(kept[1].camera, torch.ones(3)).color * 255).round().numpy()
    assert np.abs(read_image(out / "view_001.png") - expected).max() <= 1


def test_quick_views_show_distance_beside_color(run, tmp_path):
    out = tmp_path / "out"
    options = ["--quick", "--views", "2", "--video", "gif", "--size", "40", "--output", str(out)]
    assert main(["render", str(run), *options]) == 0
    image = read_image(out / "view_000.png")
    assert image.shape == (30, 80 + LEGEND_WIDTH, 3)
    distance = image[:, 40:80]
    assert distance[0, 0, 2] > distance[0, 0, 0] + 20  # empty: blue
    grey = distance[(distance == distance[..., :1]).all(-1)][:, 0]
    assert grey.max() > 150 > 80 > grey.min()
    with Image.open(out / "video.gif") as video:
        assert video.size == (80 + LEGEND_WIDTH, 30)
        assert video.n_frames == 2


def test_quick_near_and_far(run, tmp_path):
    images = []
    for name, options in (
        ("all", ["--near", "0.5", "--far", "6"]),
        ("before", ["--near", "0.5", "--far", "1"]),
    ):
        out = tmp_path / name
        options = ["--quick", "--views", "1", "--video", "none", *options, "--output", str(out)]
        assert main(["render", str(run), *options]) == 0
        images.append(read_image(out / "view_000.png"))
    width = images[0].shape[1] - LEGEND_WIDTH
    assert images[0][6, width // 4].tolist() != [255] * 3
    assert (images[1][:, : width // 2] == 255).all()


@pytest.fixture
def nerf(run, monkeypatch) -> Ball:
    """The field of a run of fit-nerf, which is no grid of voxels."""
    (run / "volume.safetensors").rename(run / "field.safetensors")
    config = {"format": RUN_FORMAT, "task": "fit-nerf", "scene": "gone", "background": None}
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("unrender.runs.saved_run.load_field", lambda path, device: field)
    field = Ball(0.8)
    return field


@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_other_fields(run, nerf, tmp_path, options):
    out = tmp_path / "out"
    assert main(["render", str(run), "--views", "2", *options, "--output", str(out)]) == 0
    image = read_image(out / "view_000.png")
    assert image.shape == (12, 32 + LEGEND_WIDTH if options else 16, 3)
    assert image[6, 8].tolist() == [255, 0, 0]
    assert image[0, 0].tolist() == [128] * 3
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["views"] == 2
    assert "num_voxels" not in metrics
    assert "field.safetensors" in (out / "report.html").read_text()


def test_quick_views_of_slow_fields_are_small(run, nerf, tmp_path, monkeypatch, caplog):
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(
        "unrender.tasks.render.field_views.time.perf_counter", lambda: next(clock)
    )  # 4 s, 16 pixels
    with caplog.at_level("INFO", "unrender"):
        assert main(["render", str(run), "--views", "1", "--quick", "--output", str(tmp_path / "out")]) == 0
    assert read_image(tmp_path / "out/view_000.png").shape == (6, 16 + LEGEND_WIDTH, 3)
    assert "rendering previews of 8 pixels; change it with --size" in caplog.text


def test_unfinished_run_can_be_resumed(run, nerf, capsys):
    (run / "field.safetensors").rename(run / "checkpoint.safetensors")
    assert main(["render", str(run)]) == 2
    assert f"resume it with: unrender fit-nerf --resume {run}" in capsys.readouterr().err


def test_cameras_of_a_file(run, tmp_path):
    some = load_cameras(run / "cameras.json")[4:6]
    save_cameras([dataclasses.replace(f, camera=f.camera.resize(6, 8)) for f in some], tmp_path / "mine.json")
    out = tmp_path / "out"
    file = ["--path", str(tmp_path / "mine.json")]
    assert main(["render", str(run), *file, "--background", "0", "0", "1", "--output", str(out)]) == 0
    assert sorted(path.name for path in out.glob("view*")) == ["view_000.png", "view_001.png"]
    assert read_image(out / "view_001.png").shape == (6, 8, 3)
    assert read_image(out / "view_001.png")[0, 0].tolist() == [0, 0, 255]


def test_views_of_different_sizes_have_no_video(run, tmp_path, caplog):
    one, other = load_cameras(run / "cameras.json")[:2]
    other = dataclasses.replace(other, camera=other.camera.resize(16, 12))
    save_cameras([one, other], tmp_path / "mine.json")
    out = tmp_path / "out"
    assert main(["render", str(run), "--path", str(tmp_path / "mine.json"), "--output", str(out)]) == 0
    assert not (out / "video.mp4").exists()
    assert "different sizes" in caplog.text


def test_unbounded_fields_are_rendered_between_the_cameras(tmp_path):
    run, out = write_run(tmp_path / "park", background=None), tmp_path / "out"
    save_field(fog(contracted=True), run / "volume.safetensors")
    options = ["--views", "12", "--size", "8", "--video", "none", "--output", str(out)]
    assert main(["render", str(run), *options]) == 0
    given = torch.stack([frame.camera.position for frame in load_cameras(run / "cameras.json")])
    first = load_cameras(out / "cameras.json")[0].camera.position
    assert float((given - first).norm(dim=-1).min()) < 1e-5


def test_spiral_for_forward_facing_scenes(run, tmp_path):
    eyes = torch.tensor([[-0.5, 0.0, -3.0], [0.5, 0.1, -3.0], [0.0, 0.4, -3.1], [0.0, -0.4, -2.9]])
    views = [Camera.look_at(eye, fov_degrees=50, height=12, width=16) for eye in eyes]
    save_cameras([Frame(f"{i}", view, run / f"{i}") for i, view in enumerate(views)], run / "cameras.json")
    out = tmp_path / "out"
    assert main(["render", str(run), "--views", "6", "--video", "none", "--output", str(out)]) == 0
    positions = torch.stack([frame.camera.position for frame in load_cameras(out / "cameras.json")])
    assert bool((positions[:, 2] < -2.8).all())
    assert float(positions[:, 0].max() - positions[:, 0].min()) > 0.5


def test_cameras_of_the_scene_as_a_fallback(tmp_path):
    scene = save_demo_scene(tmp_path / "scene", size=16, num_train=4, num_test=2)
    run = write_run(tmp_path / "ship", scene=str(scene.folder))
    (run / "cameras.json").unlink()
    out = tmp_path / "out"
    options = ["--path", "test", "--video", "none", "--output", str(out)]
    assert main(["render", str(run), *options]) == 0
    assert len(list(out.glob("view*"))) == 2


def test_code_in_the_report_reproduces_the_first_view(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    assert main(["render", str(run), *SIZE, "--views", "2", "--video", "none", "--output", str(out)]) == 0
    code = re.findall(
        r"<pre>(?:<code>)?(import torch.*?)(?:</code>)?</pre>", (out / "report.html").read_text(), re.S
    )
    exec(html.unescape(code[0]), {})
    assert np.abs(read_image(out / "view_000.png") - read_image(tmp_path / "view.png")).max() <= 1


def test_ctrl_c_keeps_finished_views(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    render, calls = SparseVoxels.render, []

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render(*arguments, **named)

    monkeypatch.setattr(SparseVoxels, "render", interrupted)
    assert main(["render", str(run), *SIZE, "--views", "5", "--output", str(out)]) == 130
    assert len(list(out.glob("view*"))) == len(load_cameras(out / "cameras.json")) == 2
    assert (out / "video.mp4").stat().st_size > 0
    assert json.loads((out / "metrics.json").read_text())["views_missing"] == 3
    assert main(["render", str(run), *SIZE, "--views", "5", "--output", str(out)]) == 0
    assert len(calls) == 6
    assert len(load_cameras(out / "cameras.json")) == 5
    assert "views_missing" not in json.loads((out / "metrics.json").read_text())
    assert main(["render", str(run), *SIZE, "--views", "5", "--output", str(out)]) == 2
    assert "it holds the finished results of the same command" in capsys.readouterr().err


def damage(run, what) -> None:
    volume, config = run / "volume.safetensors", run / "config.json"
    if what == "no config":
        config.unlink()
    elif what == "broken config":
        config.write_text("{")
    elif what == "another config":
        config.write_text("[1]")
    elif what == "another task":
        config.write_text(json.dumps({"format": RUN_FORMAT, "task": "fit-mesh"}))
    elif what == "no volume":
        volume.unlink()
    elif what == "half a volume":
        volume.write_bytes(volume.read_bytes()[:2000])
    elif what == "wrong background":
        config.write_text(json.dumps({"format": RUN_FORMAT, "task": "fit-volume", "background": [1, 2]}))
    elif what == "a number for a scene":
        config.write_text(json.dumps({"format": RUN_FORMAT, "task": "fit-volume", "scene": 5}))
        (run / "cameras.json").unlink()
    elif what == "no cameras":
        (run / "cameras.json").unlink()
    elif what == "broken cameras":
        (run / "cameras.json").write_text("{}")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no config", "not a run: no config.json; `unrender fit-volume SCENE` creates a run"),
        ("broken config", "config.json: damaged"),
        ("another config", "no `task`: not written by unrender"),
        ("another task", "a run of fit-mesh has no field"),
        ("no volume", "no volume.safetensors: the run did not finish"),
        ("half a volume", "damaged safetensors file"),
        ("wrong background", "config.json: damaged"),
        ("a number for a scene", "the scene 5 does not exist"),
        ("no cameras", "no cameras.json, and the scene gone does not exist; give cameras: --path FILE.json"),
        ("broken cameras", "cameras.json: expected an object with a list 'frames'"),
    ],
)
def test_damaged_runs(run, tmp_path, capsys, what, message):
    damage(run, what)
    assert main(["render", str(run), "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--path", "round"], "--path round: must be one of auto, orbit, interpolate, spiral, test, train"),
        (["--path", "absent.json"], "--path absent.json: no such file"),
        (["--path", "spiral"], "spiral_path: the cameras face different directions"),
        (["--views", "0"], "--views 0: must be at least 1"),
        (["--size", "9000"], "--size 9000: must be 1 to 8192 pixels"),
        (["--background", "1", "2", "0"], "must be three numbers in [0, 1]"),
        (["--window", "0", "1"], "--window does not apply to a run"),
        (["--quick", "--near", "4", "--far", "2"], "0 ≤ near < far, got 4.0 and 2.0"),
        (["--quick", "--near", "4"], "0 ≤ near < far, got 4.0 and None"),
        (["--quick", "--samples", "0"], "--samples 0: must be 1 to 4096"),
        (["--near", "1", "--far", "2"], "--near 1.0 --far 2.0: applies to --quick only"),
    ],
)
def test_invalid_options(run, tmp_path, capsys, options, message):
    assert main(["render", str(run), *options, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_an_unfinished_render_keeps_its_views(run, tmp_path):
    out = tmp_path / "out"
    arguments = ["render", str(run), "--views", "3", "--video", "none", *SIZE, "--output", str(out)]
    assert main(arguments) == 0
    whole = (out / "view_001.png").read_bytes()
    (out / "metrics.json").unlink()
    (out / "view_001.png").unlink()
    Image.new("RGB", (24, 24)).save(out / "view_000.png")
    kept = (out / "view_000.png").read_bytes()
    assert main(arguments) == 0
    assert (out / "view_001.png").read_bytes() == whole
    assert (out / "view_000.png").read_bytes() == kept
    assert main(arguments) == 2  # finished
    (out / "metrics.json").unlink()
    assert main([*arguments, "--background", "0", "0", "0"]) == 2  # of another command


def test_runs_are_not_overwritten(run, capsys):
    before = (run / "config.json").read_text()
    assert main(["render", str(run), "--output", str(run)]) == 2
    assert "is the input folder" in capsys.readouterr().err
    assert (run / "config.json").read_text() == before


def test_missing_run(tmp_path, capsys):
    assert main(["render", str(tmp_path / "ship")]) == 2
    assert "no such file or folder; give a run" in capsys.readouterr().err
