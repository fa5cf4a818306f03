"""unrender fit-volume: a volume from posed images."""

import dataclasses
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from unrender._version import __version__
from unrender.cli import pictures
from unrender.cli.progress import take_all
from unrender.cli.report import Picture, Section, write_report
from unrender.cli.run_folder import changes, open_run_folder, write_json
from unrender.cli.watching import watched_in_browser
from unrender.errors import InputError
from unrender.fields.radiance_field import SeenField
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import orbit_path, path_between
from unrender.geometry.mesh import Mesh
from unrender.io import save_cloud, save_mesh
from unrender.io.camera_files import save_cameras
from unrender.io.films import save_video
from unrender.io.frames import Frame
from unrender.io.images import save_image
from unrender.io.scenes import Scene, load_scene
from unrender.losses.images import SSIM_WINDOW, psnr, ssim
from unrender.render.looks import distance_colors
from unrender.tasks.extract_surface import cloud_of_surface, extract_surface
from unrender.tasks.fit_volume import Background, FitVolume, FitVolumeStep, fit_volume
from unrender.tasks.saved_fields import save_field

Metrics = dict[str, Any]
log = logging.getLogger("unrender")
FILM_FRAMES, FRAMES_PER_SECOND = 48, 12.0
FILM_SIDE = 400
"""Pixels of the film's longer side, at most."""
VIEWS_SHOWN = 4
REPORT_FRAMES = 12
SHOWN_SIDE = 400
"""Pixels of the longer side of pictures in the report."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What is kept of a step: not its field, which would take memory for each."""

    index: int
    last_index: int
    psnr: float
    num_voxels: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class FilmFrame:
    """A picture on the way around."""

    index: int
    last_index: int
    color: Tensor


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A frame that was not learned from, and how it came out."""

    index: int
    last_index: int
    name: str
    pictures: tuple[Picture, ...]
    """For the report; of a few frames only."""
    psnr: float
    ssim: float | None


def command(
    scene: Annotated[Path, tyro.conf.Positional],
    /,
    config: FitVolume = FitVolume(),
    output: Path | None = None,
    mesh: bool = True,
    film: bool = True,
    view: bool = False,
) -> None:
    """Turn posed images (Blender, nerfstudio, instant-ngp, COLMAP, LLFF) into voxels with density and color.

    Example: unrender fit-volume chair/ --minutes 5

    Args:
        scene: The folder of the scene, or its json or npy file.
        config: How to fit.
        output: Folder for the results. By default runs/fit-volume/NAME-TIME.
        mesh: Whether to write the surface as a mesh and as a cloud.
        film: Whether to make the film.
        view: Whether to show it in the browser while it learns.
    """
    photos = load_scene(scene)
    steps = fit_volume(photos, config)
    folder = open_run_folder("fit-volume", photos.name, output)
    behind = _background(config.background, photos)
    if view:
        steps = watched_in_browser(steps, photos.frames, behind)
    watched = _Watched(steps)
    inputs = {
        "scene": scene,
        "config": config,
        "background": None if behind is None else behind.tolist(),
        "mesh": mesh,
        "film": film,
    }
    write_json(folder / "config.json", {"unrender": __version__, "task": "fit-volume"} | inputs)
    save_cameras(photos.frames, folder / "cameras.json")
    progress = take_all(watched, _words)
    last = watched.last
    field = last.result
    if max(field.table.shape) < config.resolution:
        log.warning(
            "the work ended at %d voxels along the longest side, not %d: give it more time or a lower --resolution",
            max(field.table.shape),
            config.resolution,
        )
    save_field(field, folder / "volume.safetensors")
    log.info("the volume is saved; now to the pictures that were held out")
    held_out = take_all(
        _evaluate_all(field, photos.split("test"), behind, folder / "held-out"),
        lambda view: f"held out {view.index + 1} of {view.last_index + 1}  {view.psnr:5.2f} dB",
    )
    metrics = _metrics(last, held_out)
    write_json(folder / "metrics.json", metrics)
    shown = _pictures(photos, field, behind, held_out, folder if film else None)
    if mesh:
        shown += _surface(field, photos, folder)
    sections = [
        Section("What came out", _verdict(photos, metrics), shown),
        Section("Figures", _protocol(photos, config), figures=_main(metrics)),
        Section("How it went", svg=_curves(progress)),
        Section("Do it again", code=_how(scene, config)),
    ]
    write_report(folder / "report.html", f"Volume from {photos.name}", sections)
    print(_verdict(photos, metrics))
    print(folder / "volume.safetensors")
    print(folder / "report.html")


class _Watched:
    """Steps without their fields, and the last one whole."""

    def __init__(self, steps: Iterator[FitVolumeStep]) -> None:
        self._steps = steps
        self._last: FitVolumeStep | None = None

    @property
    def last(self) -> FitVolumeStep:
        """The step that was taken last."""
        if self._last is None:
            raise InputError("fit-volume: there was no time for a single step; give more --minutes")
        return self._last

    def __iter__(self) -> Iterator[Progress]:
        return self

    def __next__(self) -> Progress:
        step = self._last = next(self._steps)
        return Progress(step.index, step.last_index, step.losses["psnr"], step.num_voxels, step.seconds)


def _words(step: Progress) -> str:
    return f"step {step.index:5d}  {step.psnr:5.2f} dB  {step.num_voxels:9,d} voxels  {step.seconds:5.0f} s"


def _background(background: Background, scene: Scene) -> Tensor | None:
    """Return what is behind results: None is the color that was learned."""
    alpha = next((frame.load().alpha for frame in scene.frames[:1]), None)
    if alpha is None:
        return None
    return torch.full((3,), 0.0 if background == "black" else 1.0)


def _evaluate_all(
    field: SparseVoxels, frames: Sequence[Frame], behind: Tensor | None, folder: Path
) -> Iterator[HeldOut]:
    """Render frames that were held out, save what came out, and compare it to the photos before the same color."""
    folder.mkdir(exist_ok=True)
    for index, (frame, name) in enumerate(zip(frames, _file_names(frames), strict=True)):
        view = frame.load()
        photo = view.image
        if view.alpha is not None and behind is not None:
            photo = torch.lerp(behind.expand_as(photo), photo, view.alpha[..., None])
        seen = field.render(frame.camera, behind)
        save_image(seen.color, folder / name)
        can_compare = view.mask is None and min(photo.shape[:2]) >= SSIM_WINDOW
        similarity = ssim(seen.color, photo) if can_compare else None
        error = psnr(seen.color, photo, view.mask)
        is_shown = index % max(1, -(-len(frames) // VIEWS_SHOWN)) == 0
        shown = _side_by_side(frame.name, photo, seen, error) if is_shown else ()
        yield HeldOut(index, len(frames) - 1, frame.name, shown, error, similarity)


def _side_by_side(name: str, photo: Tensor, seen: SeenField, error: float) -> tuple[Picture, ...]:
    distance = distance_colors(seen.distance, seen.opacity)
    return (
        Picture(f"{name}: the photo, not learned from", [_small(photo)]),
        Picture(f"{name}: the volume, {error:.1f} dB", [_small(seen.color)]),
        Picture(f"{name}: distance, near dark, far bright, nothing blue", [_small(distance)]),
    )


def _file_names(frames: Sequence[Frame]) -> list[str]:
    """Call pictures like their photos; with their folders, where those of several have the same names."""
    short = [Path(frame.name).stem for frame in frames]
    if len(set(short)) < len(short):
        short = ["_".join(Path(frame.name).with_suffix("").parts) for frame in frames]
    return [f"{name}.png" for name in short]


def _metrics(last: FitVolumeStep, held_out: Sequence[HeldOut]) -> Metrics:
    metrics: Metrics = {"num_held_out": len(held_out)}
    if held_out:
        similar = [view.ssim for view in held_out if view.ssim is not None]
        metrics["psnr"] = sum(view.psnr for view in held_out) / len(held_out)
        metrics["ssim"] = sum(similar) / len(similar) if similar else None
    metrics |= {
        "psnr_while_learning": last.losses["psnr"],
        "seconds": last.seconds,
        "steps": last.index,
        "num_voxels": last.num_voxels,
        "voxel_size": last.result.voxel_size,
        "longest_side": max(last.result.table.shape),
        "degree": last.result.degree,
        "peak_memory_mib": _peak_memory(),
    }
    for view in held_out:
        metrics |= {f"psnr/{view.name}": view.psnr, f"ssim/{view.name}": view.ssim}
    return metrics


def _main(metrics: Metrics) -> Metrics:
    """Leave out the figures of single views."""
    return {name: value for name, value in metrics.items() if "/" not in name}


def _peak_memory() -> float | None:
    """Return the most memory that the process has held, in MiB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _pictures(
    scene: Scene, field: SparseVoxels, behind: Tensor | None, held_out: Sequence[HeldOut], folder: Path | None
) -> list[Picture]:
    """Go around the volume, and lay some views beside their photos."""
    shown = []
    if folder is not None:
        views = _go(field, behind, _film_cameras(scene, field))
        frames = [
            view.color for view in take_all(views, lambda view: f"film {view.index + 1} of {FILM_FRAMES}")
        ]
        save_video(iter(frames), folder / "turntable.mp4", frames_per_second=FRAMES_PER_SECOND)
        few = frames[:: max(1, len(frames) // REPORT_FRAMES)]
        shown.append(Picture("on the way around", [_small(frame) for frame in few]))
    for view in held_out:
        shown += view.pictures
    return shown


def _go(field: SparseVoxels, behind: Tensor | None, cameras: Sequence[Camera]) -> Iterator[FilmFrame]:
    for index, camera in enumerate(cameras):
        yield FilmFrame(index, len(cameras) - 1, field.render(camera, behind, quick=True).color)


def _film_cameras(scene: Scene, field: SparseVoxels) -> list[Camera]:
    """Go around what has an end; in what has none, between the photos."""
    cameras = [frame.camera for frame in scene.split("train")]
    first = cameras[0]
    scale = min(1.0, FILM_SIDE / max(first.height, first.width))
    height, width = (max(2, round(side * scale)) for side in (first.height, first.width))
    between = field.contracted
    path = (
        path_between(cameras, FILM_FRAMES, order="nearest") if between else orbit_path(cameras, FILM_FRAMES)
    )
    return [path[i].resize(height, width) for i in range(FILM_FRAMES)]


def _small(image: Tensor) -> bytes:
    """Encode a picture, averaged down to fit a report."""
    step = max(1, round(max(image.shape[:2]) / SHOWN_SIDE))
    if step > 1:
        image = torch.nn.functional.avg_pool2d(image.movedim(-1, 0), step).movedim(0, -1)
    return pictures.png(pictures.to_bytes(image))


def _surface(field: SparseVoxels, scene: Scene, folder: Path) -> list[Picture]:
    """Write the surface as a mesh and as a cloud, and show it; a field without one is no error."""
    try:
        mesh = extract_surface(field)
    except InputError as error:
        log.warning("no mesh: %s", error)
        return []
    save_mesh(mesh, folder / "mesh.ply")
    save_cloud(cloud_of_surface(mesh), folder / "cloud.ply")
    return [_mesh_picture(mesh, scene, field)]


def _mesh_picture(mesh: Mesh, scene: Scene, field: SparseVoxels) -> Picture:
    cameras = _film_cameras(scene, field)[:: FILM_FRAMES // REPORT_FRAMES]
    frames = [pictures.png(pictures.show(mesh, camera)) for camera in cameras]
    return Picture(f"its surface, {len(mesh.faces):,} faces", frames)


def _verdict(scene: Scene, metrics: Metrics) -> str:
    count = metrics["num_held_out"]
    if not count:
        return "No picture was held out: nothing says how new views look. Look for yourself."
    similar = "" if metrics["ssim"] is None else f", SSIM {metrics['ssim']:.3f}"
    return (
        f"On {count} picture{'s' * (count > 1)} of {scene.name} that {'were' if count > 1 else 'was'} not learned "
        f"from: PSNR {metrics['psnr']:.2f} dB{similar}; {metrics['seconds']:.0f} s of fitting."
    )


def _protocol(scene: Scene, config: FitVolume) -> str:
    sizes = sorted({(frame.camera.width, frame.camera.height) for frame in scene.split("test")})
    size = " and ".join(f"{width} × {height}" for width, height in sizes[:3])
    behind = "black" if config.background == "black" else "white"
    return (
        "PSNR from the mean squared error over all channels of a picture (within its mask, if it has one), then the "
        f"mean over pictures; SSIM over Gaussian windows of 11 × 11 pixels. Pictures of {size or 'no'} pixels; "
        f"transparent ones lie before {behind}."
    )


def _curves(progress: Sequence[Progress]) -> str:
    errors = [10 ** (-step.psnr / 10) for step in progress]
    voxels = [float(step.num_voxels) for step in progress]
    return pictures.curves({"mean squared error of colors": errors, "voxels": voxels}, {})


def _how(source: Path, config: FitVolume) -> list[str]:
    """Write the command and the lines of Python that do the same once more."""
    settings = changes(config)
    line = ["unrender", "fit-volume", str(source)]
    for name, value in settings.items():
        line += ["--" + name.replace("_", "-"), str(value)]
    spelled = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    python = [
        "import unrender",
        "",
        f"scene = unrender.load_scene({str(source)!r})",
        f"for step in unrender.fit_volume(scene, unrender.FitVolume({spelled})):",
        "    print(step.index, step.losses)",
        'unrender.save_field(step.result, "volume.safetensors")',
        "seen = step.result.render(scene.frames[0].camera)",
        'unrender.save_image(seen.color, "view.png")',
    ]
    return [shlex.join(line), "\n".join(python)]
