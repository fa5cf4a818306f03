"""unrender view: interactive 3D viewer in the browser."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import torch

from unrender.cli.arguments import OPTION, Address, Device, Source, ValueWindow
from unrender.cli.confine import confinable
from unrender.data.scenes import load_scene
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.io.arrays import array_from_npy
from unrender.io.clouds import load_cloud
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.io.formats import CLOUD_READERS, MESH_READERS, read_geometry_data
from unrender.io.splats import SPLAT_READERS, is_splat_file
from unrender.io.textures import load_textured_mesh
from unrender.io.volumes import READERS as VOLUME_READERS
from unrender.io.volumes import load_volume
from unrender.render.transfer import Preset, window_transfer
from unrender.runs.folder import CONFIG
from unrender.runs.interruption import handled_signals
from unrender.runs.saved_run import load_run, read_config
from unrender.training.saved_fields import load_field
from unrender.viewer.renderable import VolumeRenderable
from unrender.viewer.window import Window

log = logging.getLogger("unrender")
Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
Show = Callable[[Window], None]


@confinable
def command(
    source: Source,
    /,
    host: Address = "127.0.0.1",
    port: int = 8080,
    up: Annotated[Axis | None, OPTION] = None,
    window: ValueWindow = None,
    preset: Preset = "upper-half",
    frame: Annotated[int | None, OPTION] = None,
    path_file: Path = Path("camera-path.json"),
    device: Device = "auto",
) -> None:
    """View a mesh, a point cloud, a scene, a volume, Gaussian splats or a run interactively in the browser.

    Examples:
        unrender view cow.obj
        unrender view chair/
        unrender view runs/chair --port 9000

    Args:
        source: File, or folder of a scene or a run.
        host: Address to listen on. 127.0.0.1: this machine only; 0.0.0.0: everyone with the printed address.
        port: Port to listen on; the next free one if it is in use.
        up: Up axis of meshes, point clouds and volumes. Default: y, z for volumes; scenes: from the cameras.
        window: Volumes: values that become visible, and values of full opacity. Default: chosen by --preset.
        preset: Volumes: intensity window by percentiles: all values, the upper half, or the brightest tenth.
        frame: Volumes: which volume of a file with several, from 0 on.
        path_file: File for camera paths (`unrender render --path`); the page asks before overwriting a file.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    if not source.exists():
        raise MissingFileError(
            f"{source}: no such file or folder; give a mesh, a point cloud, a scene, a volume, splats or a run"
        )
    is_volume = _is_volume(source)
    if not is_volume and (window is not None or frame is not None):
        raise InputError(f"{source}: --{'frame' if window is None else 'window'} applies to volumes only")
    target = resolve_device(device)
    show = _volume(source, window, preset, frame, target) if is_volume else _other(source, target)
    with Window(
        host=host, port=port, up=_axis(up or ("z" if is_volume else "y")), path_file=path_file
    ) as page:
        show(page)
        print(f"viewer running at {page.url}; press Ctrl-C to quit", flush=True)
        with handled_signals() as interruption:
            try:
                page.run()
            except KeyboardInterrupt:  # the way to end this command
                interruption.is_incomplete = False
                print("closed")


def _is_volume(source: Path) -> bool:
    """Tell whether a file is a volume; an npy file is one if its array has three axes."""
    name = source.name.lower()
    if source.is_dir() or name == "poses_bounds.npy" or not name.endswith(tuple(VOLUME_READERS)):
        return False
    if not name.endswith(".npy"):
        return True
    data = read_bytes(source)
    with reading(source):
        return bool(array_from_npy(data, "iufb").ndim == 3)


def _volume(
    source: Path,
    window: tuple[float, float] | None,
    preset: Preset,
    frame: int | None,
    device: torch.device,
) -> Show:
    volume = load_volume(source, frame=frame).to(torch.float32).to(device)
    renderable = VolumeRenderable(volume, window_transfer(volume, window, preset=preset))
    return lambda page: page.show(renderable, bounds=torch.stack(volume.bounds).cpu())


def _other(source: Path, device: torch.device) -> Show:
    suffix = source.suffix.lower()
    if source.is_dir() and (source / CONFIG).is_file():
        return _run(source, device)
    if source.is_dir() or suffix == ".json" or source.name.lower() == "poses_bounds.npy":
        return _scene(source)
    if suffix == ".safetensors" or is_splat_file(source):
        field = load_field(source, device=device)
        return lambda page: page.show(field)
    if suffix in MESH_READERS and read_geometry_data(source, MESH_READERS).faces is not None:
        return _mesh(source)
    if suffix in MESH_READERS | CLOUD_READERS:
        cloud = load_cloud(source)
        return lambda page: page.show(cloud)
    suffixes = [*MESH_READERS, *CLOUD_READERS, *VOLUME_READERS, *SPLAT_READERS, ".safetensors", ".json"]
    known = ", ".join(dict.fromkeys(suffixes))
    raise InputError(f"{source}: the suffix {suffix!r} is not one of {known}")


def _mesh(source: Path) -> Show:
    mesh, texture = load_textured_mesh(source)
    return lambda page: page.show(mesh, texture)


def _scene(source: Path) -> Show:
    scene = load_scene(source)

    def show(page: Window) -> None:
        page.set_origin(scene.origin)
        page.show_cameras(scene.frames, bounds=scene.bounds)
        if scene.points is not None:
            page.show(scene.points)

    return show


def _run(source: Path, device: torch.device) -> Show:
    """Show the mesh of a fit-mesh run; of other runs the field and the training cameras."""
    if read_config(source)["task"] == "fit-mesh":
        return _mesh(next(source.glob("mesh.*"), source / "mesh.ply"))
    run = load_run(source, device=device)
    frames = run.frames()

    def show(page: Window) -> None:
        page.background = run.background
        page.show_cameras(frames, visible=False)
        page.show(run.field)

    return show


def _axis(name: Axis) -> list[float]:
    return [(-1.0 if name[0] == "-" else 1.0) * (axis == name[-1]) for axis in "xyz"]
