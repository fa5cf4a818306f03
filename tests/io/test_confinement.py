"""Files outside of a folder, however scenes, meshes and materials name them."""

import os
import threading
from pathlib import Path

import pytest

from fuzzing.geometry_kinds import _glb
from scene_files import cameras, pixels, write_colmap, write_image, write_json, write_llff, write_nerfstudio
from unrender import FileAccessError, confined_reads, load_cloud, load_mesh, load_scene, load_textured_mesh
from unrender.io.confinement import confinable_writes, confine_writes, recorded_reads
from unrender.io.files import atomic_write, read_bytes

OUTSIDE = "not read, as it is outside of"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """An image beside the folder `scene`."""
    path = tmp_path / "elsewhere" / "secret.png"
    write_image(path, pixels(7))
    (tmp_path / "scene").mkdir()
    return path


def names_of(path: Path, folder: Path) -> dict[str, str]:
    (folder / "link.png").symlink_to(path)
    (folder / "linked").symlink_to(path.parent)
    relative = os.path.relpath(path, folder)
    return {
        "absolute": str(path),
        "parent": relative,
        "link": "link.png",
        "linked folder": "linked/secret.png",
    }


NAMES = ["absolute", "parent", "link", "linked folder"]


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("key", ["file_path", "mask_path", "depth_file_path", "ply_file_path"])
def test_scenes(secret, kind, key, tmp_path):
    folder = tmp_path / "scene"
    content = write_nerfstudio(folder, cameras(3))
    table = content if key == "ply_file_path" else content["frames"][1]
    table[key] = names_of(secret, folder)[kind]
    write_json(folder / "transforms.json", content)
    if key != "ply_file_path":
        assert len(load_scene(folder).frames) == 3  # stays allowed
    with confined_reads(folder), pytest.raises(FileAccessError, match=OUTSIDE):
        load_scene(folder)
    with confined_reads(folder, secret.parent):
        assert key == "ply_file_path" or len(load_scene(folder).frames) == 3


def test_missing_files_are_not_told_apart(secret, tmp_path):
    folder = tmp_path / "scene"
    content = write_nerfstudio(folder, cameras(3))
    for name in (
        str(secret),
        str(secret.with_name("none.png")),
        "../../../../../../etc/passwd",
        "//host/share/x.png",
    ):
        content["frames"][1]["mask_path"] = name
        write_json(folder / "transforms.json", content)
        with confined_reads(folder), pytest.raises(FileAccessError, match=OUTSIDE):
            load_scene(folder)


def test_colmap_and_llff(secret, tmp_path):
    colmap, llff = tmp_path / "colmap", tmp_path / "llff"
    write_colmap(colmap, cameras(3))
    write_llff(llff, cameras(3))
    for folder in (colmap, llff):
        with confined_reads(folder):
            assert len(load_scene(folder).frames) == 3
        image = next((folder / "images").iterdir())
        image.unlink()
        image.symlink_to(secret)
        with confined_reads(folder), pytest.raises(FileAccessError, match=OUTSIDE):
            load_scene(folder)


@pytest.mark.parametrize("kind", NAMES)
def test_textures(secret, kind, tmp_path):
    folder = tmp_path / "scene"
    name = names_of(secret, folder)[kind]
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 1\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3\n"
    (folder / "m.obj").write_text("mtllib m.mtl\n" + corners)
    (folder / "m.mtl").write_text(f"newmtl a\nmap_Kd {name}\n")
    (folder / "library.obj").write_text(f"mtllib {name.replace('.png', '.mtl')}\n" + corners)
    (folder / "m.glb").write_bytes(_glb(name))
    ply = "ply\nformat ascii 1.0\ncomment TextureFile {}\nelement vertex 3\nproperty float x\nproperty float y\n"
    ply += "property float z\nproperty float u\nproperty float v\nelement face 1\n"
    ply += "property list uchar int vertex_indices\n"
    (folder / "m.ply").write_text(ply.format(name) + "end_header\n0 0 0 0 0\n1 0 0 1 0\n0 1 0 0 1\n3 0 1 2\n")
    for file in ("m.obj", "m.glb", "m.ply"):
        assert load_textured_mesh(folder / file)[1] is not None
    for file in ("m.obj", "m.glb", "m.ply", *(["library.obj"] if kind in ("absolute", "parent") else [])):
        with confined_reads(folder):
            load_mesh(folder / file)
            with pytest.raises(FileAccessError, match=OUTSIDE):
                load_textured_mesh(folder / file)


def test_threads_are_confined_too(secret, tmp_path):
    answers: list[BaseException | None] = []

    def read() -> None:
        try:
            read_bytes(secret)
            with atomic_write(tmp_path / "x") as file:
                file.write(b"x")
        except FileAccessError as error:
            answers.append(error)

    def run() -> None:
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()

    with confined_reads(tmp_path / "scene"):
        run()
    with confinable_writes():
        confine_writes(tmp_path / "scene")
        run()
    assert [str(error).partition(":")[0] for error in answers] == [str(secret), str(tmp_path / "x")]
    run()
    assert (tmp_path / "x").exists()


def test_results_can_be_read_where_they_are_written(secret, tmp_path):
    with confinable_writes(), confined_reads(tmp_path / "scene"):
        confine_writes(tmp_path / "out")
        (tmp_path / "out").mkdir()
        with atomic_write(tmp_path / "out" / "a.xyz") as file:
            file.write(b"1 2 3\n")
        assert len(load_cloud(tmp_path / "out" / "a.xyz").points) == 1


def test_recorded_reads(secret, tmp_path):
    folder = tmp_path / "scene"
    content = write_nerfstudio(folder, cameras(2))
    content["frames"][1]["mask_path"] = str(secret)
    write_json(folder / "transforms.json", content)
    with recorded_reads() as paths:
        load_scene(folder)
    assert {folder / "transforms.json", folder / "images/000.png", secret} <= paths


def test_commands(secret, tmp_path, monkeypatch, capsys):
    from unrender.cli.main import main

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "scene"
    content = write_nerfstudio(folder, cameras(3))
    write_json(folder / "transforms.json", content)
    assert main(["inspect", str(folder), "--confine", "--output", "a"]) == 0
    assert "outside" not in capsys.readouterr().out
    content["frames"][1]["mask_path"] = str(secret)
    write_json(folder / "transforms.json", content)
    assert main(["inspect", str(folder), "--output", "b"]) == 0
    assert f"1 file outside of the scene's folder: {secret}" in capsys.readouterr().out
    assert main(["inspect", "scene", "--confine", "--output", "c"]) == 2
    assert OUTSIDE in capsys.readouterr().err
    assert main(["fit-volume", "scene", "--confine", "--output", "d", "--steps", "1"]) == 2
    assert OUTSIDE in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
