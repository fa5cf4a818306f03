"""Disks that are too small, fill up, limit files or become read-only."""

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import unrender
from unrender import PointCloud
from unrender.cli.main import main
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.files import DiskFullError, atomic_write
from unrender.runs.last_resort import save_in_need

KIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    unrender.save_demo_scene(folder, size=24, num_train=4, num_test=1)
    return folder


@pytest.fixture
def limited_files() -> Iterator[None]:
    """No file of this process may have more than 64 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * KIB, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def fit_volume(scene: Path, output: Path, *options: str) -> list[str]:
    few = ["--steps", "4", "--rays", "256", "--no-video", "--no-mesh"]
    return ["fit-volume", str(scene), *few, *options, "--output", str(output)]


def save(size: int, path: Path) -> None:
    save_tensors({"x": torch.ones(size, dtype=torch.uint8)}, {}, path)


def fill(folder: Path, left: int) -> None:
    """Write a file that leaves so many bytes."""
    usage = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(usage.f_bavail * usage.f_frsize - left))


def test_a_volume_that_will_not_fit_is_refused_before_training(disk, scene, capsys) -> None:
    assert main(fit_volume(scene, disk / "out", "--resolution", "128")) == 1
    said = capsys.readouterr().err
    assert "out: the field cannot be saved: " in said
    assert "KiB are free" in said
    assert "are missing; free some space, or choose another folder" in said
    assert "step" not in said


def test_results_that_may_not_all_fit_are_announced(disk, scene, caplog) -> None:
    main(fit_volume(scene, disk / "out", "--resolution", "32", "--degree", "0"))
    assert "not all results may be saved (about 1 MiB for the field, 1 for a checkpoint, 1 for views)" in (
        caplog.text
    )


def test_a_field_of_a_nerf_that_will_not_fit_is_refused(disk, scene, capsys) -> None:
    command = ["fit-nerf", str(scene), "--steps", "2", "--samples", "512", "--output", str(disk / "out")]
    assert main(command) == 1
    assert "the field cannot be saved" in capsys.readouterr().err


def test_a_mesh_that_will_not_fit_is_refused(disk, tmp_path, capsys) -> None:
    points = torch.nn.functional.normalize(
        torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    unrender.save_cloud(PointCloud(points), tmp_path / "ball.ply")
    command = ["fit-mesh", str(tmp_path / "ball.ply"), "--edge-length", "0.02", "--output", str(disk / "out")]
    assert main(command) == 1
    assert "the mesh cannot be saved" in capsys.readouterr().err


def test_a_result_takes_the_space_of_an_older_checkpoint(disk, caplog) -> None:
    save(300 * KIB, disk / "checkpoint.safetensors")
    fill(disk, 50 * KIB)
    full = DiskFullError("the disk is full")
    save_in_need(
        lambda path: save(200 * KIB, path), disk / "field.safetensors", disk / "checkpoint.safetensors", full
    )
    assert len(load_tensors(disk / "field.safetensors")[0]["x"]) == 200 * KIB
    assert "field.safetensors took the space of the checkpoint" in caplog.text


def test_a_result_that_fits_nowhere_else_is_in_the_temporary_folder(disk, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    save(100 * KIB, disk / "checkpoint.safetensors")
    before = (disk / "checkpoint.safetensors").read_bytes()
    fill(disk, 50 * KIB)
    full, path = DiskFullError("the disk is full"), disk / "field.safetensors"
    with pytest.raises(
        DiskFullError, match=r"the disk is full\. The result was saved as .*field\.safetensors instead"
    ):
        save_in_need(lambda path: save(400 * KIB, path), path, disk / "checkpoint.safetensors", full)
    [saved] = tmp_path.glob("unrender-*/field.safetensors")
    assert len(load_tensors(saved)[0]["x"]) == 400 * KIB
    assert (disk / "checkpoint.safetensors").read_bytes() == before


def test_a_disk_that_fills_during_training_keeps_the_newest_field(disk, scene, monkeypatch, capsys) -> None:
    from unrender.reports import fit_report

    save_field, newest = fit_report._save, []

    def full_at_the_end(run, last) -> None:
        save_tensors(
            {"x": torch.ones(20_000)}, {"numbers": {"index": 1}}, run.folder / "checkpoint.safetensors"
        )
        fill(disk, 0)
        newest.append(last.result.log_density.detach().clone())
        save_field(run, last)

    monkeypatch.setattr(fit_report, "_save", full_at_the_end)
    main(fit_volume(scene, disk / "out", "--resolution", "16", "--degree", "0"))
    assert "volume.safetensors took the space of the checkpoint" in capsys.readouterr().err
    field = unrender.load_field(disk / "out" / "volume.safetensors")
    assert torch.equal(field.log_density, newest[0])


def test_a_limit_of_files_is_seen_before_training(limited_files, scene, tmp_path, capsys) -> None:
    assert main(fit_volume(scene, tmp_path / "out", "--resolution", "64")) == 1
    said = capsys.readouterr().err
    assert "the field cannot be saved: a file of" in said
    assert "the limit of files is 64 KiB here; raise it with `ulimit -f unlimited`" in said


def test_a_file_above_the_limit_is_a_full_disk(limited_files, tmp_path) -> None:
    with (
        pytest.raises(DiskFullError, match=r"larger than files may be here; raise the limit \(ulimit -f\)"),
        atomic_write(tmp_path / "x.bin") as file,
    ):
        file.write(bytes(100 * KIB))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_read_only_is_refused_at_the_start(disk, scene, capsys) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert main(fit_volume(scene, disk / "out", "--resolution", "16")) == 2
    assert "cannot be created: Read-only file system" in capsys.readouterr().err


def test_a_folder_without_permission_is_refused_at_the_start(scene, tmp_path, capsys) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "locked").mkdir(mode=0o555)
    assert main(fit_volume(scene, tmp_path / "locked" / "out", "--resolution", "16")) == 2
    assert "cannot be created: Permission denied" in capsys.readouterr().err
