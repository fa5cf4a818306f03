"""unrender view: what a file, a scene or a run holds, interactive, in the browser."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from unrender.data.scenes import load_scene
from unrender.errors import FileFormatError, InputError
from unrender.io.arrays import array_from_npy
from unrender.io.clouds import load_cloud
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.io.formats import CLOUD_READERS, MESH_READERS, read_contents
from unrender.io.textures import load_textured_mesh
from unrender.io.volumes import READERS as VOLUME_READERS
from unrender.io.volumes import load_volume
from unrender.render.transfer import Preset, window_transfer
from unrender.runs.saved_run import load_run
from unrender.training.saved_fields import load_field
from unrender.viewer.drawable import VisibleVolume
from unrender.viewer.window import Window

log = logging.getLogger("unrender")
Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
Fill = Callable[[Window], None]


def command(
    source: Annotated[Path, tyro.conf.Positional],
    /,
    host: str = "127.0.0.1",
    port: int = 8080,
    up: Axis | None = None,
    window: tuple[float, float] | None = None,
    preset: Preset = "upper-half",
    path_file: Path = Path("camera-path.json"),
) -> None:
    """Show a mesh, a cloud, a scene, a volume (npy, nrrd, nii) or what a run learned in the browser, until Ctrl-C.

    Examples: unrender view cow.obj, unrender view chair/, unrender view runs/fit-volume/chair --port 9000

    Args:
        source: A file, or the folder of a scene or of a run.
        host: Who can see it: 127.0.0.1 is this machine only, 0.0.0.0 everyone in the network, without a password.
        port: Where; if it is in use, the next one that is free.
        up: What is up in meshes, clouds and volumes. By default y, in volumes z; cameras tell it themselves.
        window: Values of a volume from which matter begins to show, and at which it is densest.
        preset: A window by percentiles: of all values, the upper half, the brightest tenth.
        path_file: Where the page saves the path of a camera, over what is there, for `unrender render --path`.
    """
    if not source.exists():
        raise MissingFileError(
            f"{source}: there is no such file or folder; give a mesh, a cloud, a scene, a volume or a run"
        )
    is_volume = _is_volume(source)
    if window is not None and not is_volume:
        raise InputError(f"{source}: --window means nothing for what is no volume; leave it out")
    fill = _volume(source, window, preset) if is_volume else _other(source)
    with Window(
        host=host, port=port, up=_axis(up or ("z" if is_volume else "y")), path_file=path_file
    ) as page:
        fill(page)
        print(f"{source} is shown at {page.url}; Ctrl-C ends", flush=True)
        try:
            page.stay()
        except KeyboardInterrupt:
            print("closed")


def _is_volume(source: Path) -> bool:
    """Say whether a file holds a volume: of arrays in npy, those of three axes do."""
    name = source.name.lower()
    if source.is_dir() or name == "poses_bounds.npy" or not name.endswith(tuple(VOLUME_READERS)):
        return False
    if not name.endswith(".npy"):
        return True
    data = read_bytes(source)
    with reading(source):
        return bool(array_from_npy(data).ndim == 3)


def _volume(source: Path, window: tuple[float, float] | None, preset: Preset) -> Fill:
    volume = load_volume(source).to(torch.float32)
    shown = VisibleVolume(volume, window_transfer(volume, window, preset=preset))
    return lambda page: page.show(shown, bounds=torch.stack(volume.bounds))


def _other(source: Path) -> Fill:
    suffix = source.suffix.lower()
    if source.is_dir() and (source / "config.json").is_file():
        return _run(source)
    if source.is_dir() or suffix == ".json" or source.name.lower() == "poses_bounds.npy":
        return _scene(source)
    if suffix == ".safetensors":
        field = load_field(source)
        return lambda page: page.show(field)
    if suffix in MESH_READERS and read_contents(source, MESH_READERS).faces is not None:
        return _mesh(source)
    if suffix in MESH_READERS | CLOUD_READERS:
        cloud = load_cloud(source)
        return lambda page: page.show(cloud)
    known = ", ".join([*MESH_READERS, *CLOUD_READERS, *VOLUME_READERS, ".safetensors", ".json"])
    raise InputError(f"{source}: the suffix {suffix!r} is not one of {known}")


def _mesh(source: Path) -> Fill:
    mesh, texture = load_textured_mesh(source)
    return lambda page: page.show(mesh, texture)


def _scene(source: Path) -> Fill:
    scene = load_scene(source)

    def fill(page: Window) -> None:
        page.show_cameras(scene.frames, bounds=scene.bounds)
        if scene.points is not None:
            page.show(scene.points)

    return fill


def _run(source: Path) -> Fill:
    """Show what a run learned: the mesh of fit-mesh, otherwise a field and where its photos stood."""
    place = source / "config.json"
    data = read_bytes(place)
    with reading(place):
        config = json.loads(data)
        if not isinstance(config, dict):
            raise FileFormatError("it does not say what the run did: unrender did not write it")
    if config.get("task") == "fit-mesh":
        return _mesh(next(source.glob("mesh.*"), source / "mesh.ply"))
    run = load_run(source)
    frames = run.frames()

    def fill(page: Window) -> None:
        page.background = run.background
        page.show_cameras(frames, visible=False)
        page.show(run.field)

    return fill


def _axis(name: Axis) -> list[float]:
    return [(-1.0 if name[0] == "-" else 1.0) * (axis == name[-1]) for axis in "xyz"]
