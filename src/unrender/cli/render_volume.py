"""Pictures and a film of a volume in a file, from all around."""

import dataclasses
import logging
import math
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from unrender._version import __version__
from unrender.errors import InputError
from unrender.geometry.camera import Camera, transform
from unrender.geometry.volume import Volume
from unrender.io.files import write_whole
from unrender.io.video import save_video
from unrender.io.volumes import load_volume
from unrender.render.transfer import (
    Blocks,
    Preset,
    TransferFunction,
    render_volume,
    visible_blocks,
    window_transfer,
)
from unrender.reports import figures
from unrender.reports.html import Picture, Section, write_report
from unrender.runs.folder import as_options, changes, open_run_folder, write_json
from unrender.runs.progress import take_all
from unrender.runs.video_options import Color, Film

log = logging.getLogger("unrender")
REPORT_FRAMES = 12
FRAMES_PER_SECOND = 12.0
FOV_DEGREES = 30.0
VIEWS, SIZE, BLACK = 36, 512, (0.0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Look:
    """How to show a volume."""

    window: tuple[float, float] | None = None
    """Values from which matter begins to show, and at which it is densest. By default from --preset."""
    preset: Preset = "upper-half"
    """A window by percentiles: of all values, the upper half, the brightest tenth."""
    colormap: str = "inferno"
    """A color map of matplotlib, over the window."""
    opacity: float = 0.9
    """Share of the light, between 0 and 1, that the densest matter takes away over a 20th of the volume's diagonal."""
    spacing: tuple[float, float, float] | None = None
    """Sides of a voxel along x, y, z, instead of where the file says the voxels are."""
    elevation: float = 15.0
    """Degrees above the middle from which to look."""
    up: Literal["x", "y", "z", "-x", "-y", "-z"] = "z"
    """The axis that points up: z in medical files."""
    step: float | None = None
    """Distance between samples on rays, in units of the volume. By default a voxel's smallest side."""


class Ball(NamedTuple):
    """What the camera goes around, in the world."""

    center: Tensor
    radius: float


@dataclasses.dataclass(frozen=True)
class View:
    """One picture of the orbit."""

    index: int
    last_index: int
    image: Tensor


def render_volume_file(volume: Path, look: Look, film: Film) -> None:
    """Write pictures, a film and a report of a volume."""
    _check(look)
    views = VIEWS if film.views is None else film.views
    size = SIZE if film.size is None else film.size
    background = film.background or BLACK
    shown = load_volume(volume, spacing=look.spacing).to(torch.float32)
    transfer = window_transfer(
        shown, look.window, preset=look.preset, colormap=look.colormap, opacity=look.opacity
    )
    blocks = visible_blocks(shown, transfer)
    ball = _ball_around(blocks)
    folder = open_run_folder("render", volume.name.split(".")[0], film.output)
    inputs = {"volume": volume, "look": look, "film": film}
    write_json(folder / "config.json", {"unrender": __version__, "task": "render"} | inputs)
    cameras = [_camera(ball, look, size, 360 * index / views) for index in range(views)]
    begin = time.perf_counter()
    taken = take_all(_go_around(shown, transfer, blocks, cameras, look.step, background), _words)
    seconds = (time.perf_counter() - begin) / len(taken)
    frames = [figures.png(figures.to_bytes(view.image)) for view in taken]
    for view, frame in zip(taken, frames, strict=True):
        with write_whole(folder / f"view_{view.index:03d}.png") as file:
            file.write(frame)
    if film.video != "none":
        images = (view.image for view in taken)
        save_video(images, folder / f"turntable.{film.video}", frames_per_second=FRAMES_PER_SECOND)
    metrics = _metrics(shown, transfer, blocks, seconds)
    write_json(folder / "metrics.json", metrics)
    how = _how(volume, look, film, background, cameras[0])
    _report(folder / "report.html", f"Pictures of {volume.name}", frames, metrics, how)
    print(f"window {transfer.low:.5g} to {transfer.high:.5g}; {seconds:.2f} seconds a view")
    if film.video != "none":
        print(folder / f"turntable.{film.video}")
    print(folder / "report.html")


def _check(look: Look) -> None:
    """Refuse what cannot be drawn, before anything is read."""
    if look.spacing is not None and not all(0 < side < math.inf for side in look.spacing):
        raise InputError(f"--spacing {look.spacing}: three lengths > 0")
    if not -90 < look.elevation < 90:
        raise InputError(f"--elevation {look.elevation:g}: degrees between -90 and 90")


def _go_around(
    volume: Volume,
    transfer: TransferFunction,
    blocks: Blocks,
    cameras: list[Camera],
    step: float | None,
    background: Color,
) -> Iterator[View]:
    behind = torch.tensor(background)
    for index, camera in enumerate(cameras):
        seen = render_volume(volume, transfer, camera, step=step, background=behind, blocks=blocks)
        yield View(index, len(cameras) - 1, seen.color.clamp(0, 1))


def _camera(ball: Ball, look: Look, size: int, degrees: float) -> Camera:
    """Look from so far away that the ball touches the sides of the picture."""
    axis, sign = "xyz".index(look.up[-1]), -1.0 if look.up.startswith("-") else 1.0
    upward, forward, aside = torch.eye(3).roll(-axis, 0).unbind()
    turn, rise = math.radians(degrees), math.radians(look.elevation)
    around = math.cos(turn) * forward + sign * math.sin(turn) * aside
    direction = math.cos(rise) * around + math.sin(rise) * sign * upward
    eye = ball.center + direction * ball.radius / math.sin(math.radians(FOV_DEGREES / 2))
    return Camera.look_at(eye, ball.center, sign * upward, fov_degrees=FOV_DEGREES, height=size, width=size)


def _ball_around(blocks: Blocks) -> Ball:
    """Find a ball that all visible blocks are in."""
    places = blocks.occupied.nonzero().flip(-1)
    if len(places) == 0:
        raise InputError("nothing in the volume is in the window: give another --window or --preset")
    world_from_blocks = torch.linalg.inv(blocks.blocks_from_world)
    centers = transform(world_from_blocks, places.float() + 0.5)
    center = (centers.amin(0) + centers.amax(0)) / 2
    block = world_from_blocks[:3, :3].abs().sum(1).norm() / 2
    return Ball(center, float((centers - center).norm(dim=-1).max() + block))


def _words(view: View) -> str:
    return f"view {view.index + 1} of {view.last_index + 1}"


def _metrics(volume: Volume, transfer: TransferFunction, blocks: Blocks, seconds: float) -> dict[str, Any]:
    width, height, depth = (int(n) for n in volume.size)
    low, high = (float(value) for value in volume.density.aminmax())
    return {
        "voxels": f"{width} × {height} × {depth}",
        "voxel_sides": " × ".join(f"{side:.4g}" for side in volume.world_from_volume[:3, :3].norm(dim=0)),
        "lowest_value": low,
        "highest_value": high,
        "window_low": transfer.low,
        "window_high": transfer.high,
        "visible_share": float(blocks.occupied.float().mean()),
        "seconds_per_view": seconds,
    }


def _report(path: Path, title: str, frames: list[bytes], metrics: dict[str, Any], how: list[str]) -> None:
    chosen = frames[:: 1 + (len(frames) - 1) // REPORT_FRAMES]
    write_report(
        path,
        title,
        [
            Section("What came out", pictures=[Picture(f"the volume, from {len(chosen)} sides", chosen)]),
            Section("Figures", figures=metrics),
            Section("Do it again", code=how),
        ],
    )


def _how(source: Path, look: Look, film: Film, background: Color, camera: Camera) -> list[str]:
    """Write the command, and the lines of Python that make its first picture once more."""
    line = ["unrender", "render", str(source)]
    line += as_options(changes(look) | changes(film))
    eye, forward = camera.position.tolist(), camera.camera_from_world[2, :3].tolist()
    target = [round(start + step, 6) for start, step in zip(eye, forward, strict=True)]
    upward = [(-1 if look.up[0] == "-" else 1) * float(axis == look.up[-1]) for axis in "xyz"]
    named = ("window", "preset", "colormap", "opacity")
    given = "".join(f", {name}={value!r}" for name, value in changes(look).items() if name in named)
    python = [
        "import torch",
        "import unrender",
        "",
        f"volume = unrender.load_volume({str(source)!r}, spacing={look.spacing}).to(torch.float32)",
        f"transfer = unrender.window_transfer(volume{given})",
        f"eye, target, up = {[round(x, 6) for x in eye]}, {target}, {upward}",
        f"camera = unrender.Camera.look_at(eye, target, up, fov_degrees={FOV_DEGREES}, "
        f"height={camera.height}, width={camera.width})",
        f"background = torch.tensor({list(background)})",
        f"seen = unrender.render_volume(volume, transfer, camera, step={look.step}, background=background)",
        'unrender.save_image(seen.color.clamp(0, 1), "view.png")',
    ]
    return [shlex.join(line), "\n".join(python)]
