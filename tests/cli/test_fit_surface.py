import importlib.util
import json

import pytest
import torch
import trimesh

import unrender
from unrender.cli import fit_surface
from unrender.cli.main import main
from unrender.data.camera_files import save_cameras
from unrender.reports import surface_report
from unrender.runs import surface_files
from unrender.runs.folder import create_run_folder
from unrender.runs.interruption import Interrupted
from unrender.runs.saved_run import CAMERAS
from unrender.tasks.nerf.config import FitNerf

SMALL = ("--steps", "4", "--views", "4", "--resolution", "32", "--faces", "400", "--test-views", "1")
FEW = (*SMALL, "--texture-size", "128", "--texture-steps", "2")


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """A run of fit-nerf."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    settings = {"scene": trained.scene.folder, "test_views": None, "background": [1.0, 1.0, 1.0]}
    create_run_folder(folder, "fit-nerf", settings)
    unrender.save_field(trained.field, folder / "field.safetensors")
    save_cameras(trained.scene.frames, folder / CAMERAS)
    return folder


@pytest.fixture
def few_frames(monkeypatch):
    monkeypatch.setattr(fit_surface, "NUM_FRAMES", 2)
    monkeypatch.setattr(surface_report, "IMAGE_SIZE", 32)


@pytest.mark.usefixtures("few_frames")
def test_a_run_becomes_a_mesh_that_other_programs_open(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["fit-surface", str(run), *FEW, "--format", "glb", "ply", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "faces in 1 part; PSNR" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    for name in ("mesh.glb", "mesh.ply"):
        assert str(out / name) in printed
        opened = trimesh.load(out / name, force="mesh")
        assert len(opened.faces) == metrics["num_faces"] <= 400
    _, texture = unrender.load_textured_mesh(out / "mesh.glb")
    assert texture.image.shape[:2] == (128, 128)
    assert float(texture.image.std()) > 0.02
    assert metrics["num_evaluated_views"] == 1
    assert metrics["steps"] == 4
    report = (out / "report.html").read_text()
    assert "difference" in report
    assert "unrender fit-surface" in report
    assert "unrender.bake_texture(step.result, atlas, photos, refine_steps=2)" in report
    assert "photometric" in json.loads((out / "curves.json").read_text())


@pytest.mark.usefixtures("few_frames")
def test_a_budget_that_is_spent_at_once_gives_a_mesh(run, tmp_path):
    out = tmp_path / "out"
    options = ("--minutes", "1e-6", *FEW[2:], "--test-views", "3")
    assert main(["fit-surface", str(run), *options, "--output", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 1
    assert metrics["num_evaluated_views"] == 1
    assert unrender.load_textured_mesh(out / "mesh.glb")[1] is not None


@pytest.mark.usefixtures("few_frames")
def test_vertex_colors_without_a_texture(run, tmp_path):
    out = tmp_path / "out"
    options = ("--colors", "vertex", "--format", "ply", "--unobserved", "close", "--steps", "1")
    assert main(["fit-surface", str(run), *SMALL, *options, "--output", str(out)]) == 0
    colors = unrender.load_mesh(out / "mesh.ply").vertex_colors
    assert colors is not None
    assert float(colors.std()) > 0.02
    assert trimesh.load(out / "mesh.ply").is_watertight


def test_bad_input(run, tmp_path, capsys):
    def error(*arguments: str) -> str:
        assert main(["fit-surface", *arguments]) == 2
        return capsys.readouterr().err

    assert "no such folder" in error(str(tmp_path / "nothing"))
    assert "--resolution should be at most 1000" in error(str(run), "--resolution", "1001")
    assert "at most 640 with --method density" in error(
        str(run), "--resolution", "641", "--method", "density"
    )
    assert "is the input folder" in error(str(run), "--output", str(run))
    assert "--faces should be at least 100" in error(str(run), "--faces", "7")
    assert "does not exist" in error(str(run), "--scene", str(tmp_path / "moved"))
    assert "--field-minutes does not apply" in error(str(run), "--field-minutes", "1")
    assert "--scene does not apply" in error(str(tmp_path), "--scene", str(tmp_path))
    file = tmp_path / "file"
    file.write_text("")
    assert "cannot be created" in error(str(run), *FEW, "--output", str(file / "out"))
    mesh_run = tmp_path / "mesh"
    create_run_folder(mesh_run, "fit-mesh", {})
    assert "a run of fit-mesh has no field" in error(str(mesh_run))


@pytest.mark.usefixtures("few_frames")
def test_a_texture_that_is_too_small_leaves_the_mesh_with_vertex_colors(run, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--texture-size", "16", "--format", "ply", "--steps", "1", "--output", str(out))
    assert main(["fit-surface", str(run), *SMALL, *options]) == 2
    assert "too small for" in capsys.readouterr().err
    assert unrender.load_mesh(out / "mesh.ply").vertex_colors is not None


@pytest.mark.parametrize(
    ("module", "options", "advice"),
    [
        ("fast_simplification", (), "fast-simplification is not installed"),
        ("xatlas", (), "--colors vertex"),
        ("coacd", ("--collision",), "unrender[surface]"),
    ],
)
def test_missing_packages_are_reported_before_the_fit(
    run, tmp_path, capsys, monkeypatch, module, options, advice
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find_spec(name))
    assert main(["fit-surface", str(run), *options, "--output", str(tmp_path / "out")]) == 2
    assert advice in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["surface", "texture"])
def test_ctrl_c_keeps_the_mesh(run, tmp_path, monkeypatch, stage):
    """Once in the refinement: the texture is projected only; twice, until within the texture: vertex colors."""
    stages = []

    def surface(*arguments):
        for step in fit_surface_steps(*arguments):
            yield step
            if step.num_steps == 1:
                raise KeyboardInterrupt

    def texture(mesh, photos, files, exposure, seconds):
        for step in texture_steps(mesh, photos, files, exposure=exposure, seconds=seconds):
            if stage == "texture":
                raise Interrupted
            stages.append(step.stage)
            yield step

    fit_surface_steps, texture_steps = fit_surface.fit_surface, fit_surface.texture_steps
    monkeypatch.setattr(fit_surface, "fit_surface", surface)
    monkeypatch.setattr(fit_surface, "texture_steps", texture)
    monkeypatch.setattr(fit_surface, "NUM_FRAMES", 1)
    monkeypatch.setattr(surface_report, "IMAGE_SIZE", 32)
    out = tmp_path / "out"
    assert main(["fit-surface", str(run), *FEW, "--output", str(out)]) == 130
    if stage == "surface":
        assert stages == ["unwrapping", "projected"]
        assert unrender.load_textured_mesh(out / "mesh.glb")[1] is not None
    else:
        assert unrender.load_mesh(out / "mesh.glb").vertex_colors is not None


def test_ctrl_c_keeps_the_texture_so_far(run, tmp_path, monkeypatch):
    def interrupted(mesh, photos, files, exposure, seconds):
        steps = texture_steps(mesh, photos, files, exposure=exposure, seconds=seconds)
        yield next(steps)
        yield next(steps)
        raise KeyboardInterrupt

    texture_steps = fit_surface.texture_steps
    monkeypatch.setattr(fit_surface, "texture_steps", interrupted)
    monkeypatch.setattr(fit_surface, "NUM_FRAMES", 1)
    monkeypatch.setattr(surface_report, "IMAGE_SIZE", 32)
    out = tmp_path / "out"
    assert main(["fit-surface", str(run), *FEW, "--steps", "1", "--output", str(out)]) == 130
    assert unrender.load_textured_mesh(out / "mesh.glb")[1] is not None


@pytest.mark.usefixtures("few_frames")
def test_results_are_kept_if_the_collision_mesh_fails(run, tmp_path, monkeypatch, capsys):
    def fails(mesh):
        raise RuntimeError("no convex parts")

    monkeypatch.setattr(surface_files, "convex_parts", fails)
    out = tmp_path / "out"
    options = ("--collision", "--lods", "1", "--colors", "vertex", "--steps", "1")
    assert main(["fit-surface", str(run), *SMALL, *options, "--output", str(out)]) == 1
    captured = capsys.readouterr()
    assert "--collision failed: no convex parts" in captured.err
    assert str(out / "mesh_lod1.glb") in captured.out
    assert "--collision failed: no convex parts" in json.loads((out / "metrics.json").read_text())["notes"]
    assert "--collision failed: no convex parts" in (out / "report.html").read_text()


@pytest.mark.usefixtures("few_frames")
def test_a_scene_that_was_stopped_in_training_is_continued(trained, tmp_path, monkeypatch, capsys):
    started = []

    def training(scene, config, *, checkpoints, resume):
        few = FitNerf(steps=2 + 2 * len(started), samples=2048, table_log2=10)
        for step in fit_nerf(scene, few, checkpoints=checkpoints, resume=resume):
            started.append(step.index)
            yield step
            if step.index == 1:
                raise KeyboardInterrupt

    def surface(scene, field, config):
        return fit_surface_steps(scene, trained.field, config)

    fit_surface_steps, fit_nerf = fit_surface.fit_surface, fit_surface.fit_nerf
    monkeypatch.setattr(fit_surface, "fit_nerf", training)
    monkeypatch.setattr(fit_surface, "fit_surface", surface)
    out = tmp_path / "out"
    arguments = ["fit-surface", str(trained.scene.folder), *SMALL, "--colors", "vertex", "--output", str(out)]
    assert main(arguments) == 130
    assert f"continue with: unrender {' '.join(arguments[:2])}" in capsys.readouterr().out
    assert (out / "field" / "field.safetensors").is_file()
    assert main(arguments) == 0
    assert started[0] == 1
    assert started[1] == 2
    assert (out / "mesh.glb").is_file()


@pytest.mark.usefixtures("few_frames")
def test_a_volume_becomes_a_mesh(trained, tmp_path):
    """A ball within the bounds of the scene."""
    folder, out = tmp_path / "volume", tmp_path / "out"
    create_run_folder(folder, "fit-volume", {"scene": trained.scene.folder, "background": [1.0, 1.0, 1.0]})
    axis = torch.linspace(-1, 1, 24)
    mask = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) < 0.6
    low, high = trained.scene.bounds
    box = unrender.SceneBox.cube((low + high) / 2, float((high - low).min()) / 2)
    ball = unrender.SparseVoxels.from_mask(mask, box, opacity=0.99)
    unrender.save_field(ball, folder / "volume.safetensors")
    assert main(["fit-surface", str(folder), *SMALL, "--colors", "vertex", "--output", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert 200 < metrics["num_faces"] <= 400
    assert metrics["num_parts"] == 1
