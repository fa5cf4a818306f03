"""The report of `unrender render`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unrender.data.frames import evenly_spaced
from unrender.geometry.camera import Camera
from unrender.io.images import load_image
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.reports.reproduce import Name, call, command_line, load_cameras_code, python_code, reproduce
from unrender.runs.options import changed_options
from unrender.runs.saved_run import CAMERAS, Run
from unrender.runs.video_options import Color
from unrender.tasks.render.field_views import QuickRender
from unrender.tasks.render.volume_turntable import FOV_DEGREES, VolumeOptions, VolumeScene

FRAMES_IN_REPORT, IMAGE_SIZE = 12, 640
TRANSFER_OPTIONS = ("window", "preset", "colormap", "opacity")


def write_render_report(
    path: Path, title: str, caption: str, images: Sequence[Path], metrics: Mapping[str, Any], how: Section
) -> None:
    """Write the report: a few of the rendered images, metrics, and how to reproduce them."""
    chosen = [load_image(image) for image in evenly_spaced(images, FRAMES_IN_REPORT)]
    shown = Figure(caption, [figures.png(figures.thumbnail(image, IMAGE_SIZE)) for image in chosen])
    write_report(path, title, [Section("Results", figures=[shown]), Section("Metrics", table=metrics), how])


def reproduce_run(
    run: Run, quick: QuickRender, background: Color | None, folder: Path, options: Mapping[str, Any]
) -> Section:
    """Show the command and the code that renders the first view of a run."""
    color = None if background is None else _color(background)
    field, camera = Name("field"), Name("frame.camera")
    if quick.quick:
        settings: dict[str, Any] = {} if quick.near is None else {"near": quick.near, "far": quick.far}
        settings["num_samples"] = quick.samples
        render = call("unrender.quick_look", field, camera, color, keywords=settings)
    else:
        render = call("field.render", camera, color)
    code = python_code(
        f"field = {call('unrender.load_field', run.field_file)}",
        f"frame = {load_cameras_code(run, folder / CAMERAS)}[0]",
        f"output = {render}",
        'unrender.save_image(output.color, "view.png")',
    )
    return reproduce(command_line("render", [run.folder], options), code)


def reproduce_volume(
    source: Path, options: VolumeOptions, background: Color, camera: Camera, changed: Mapping[str, Any]
) -> Section:
    """Show the command and the code that renders the first view of a volume."""
    eye, forward = camera.position, camera.camera_from_world[2, :3]
    target = eye + forward
    transfer = {k: v for k, v in changed_options(options).items() if k in TRANSFER_OPTIONS}
    view = {"fov_degrees": FOV_DEGREES, "height": camera.height, "width": camera.width}
    output = {"step": options.step, "background": _color(background)}
    names = [Name("volume"), Name("transfer"), Name("camera")]
    load = call("unrender.load_volume", source, keywords={"spacing": options.spacing, "frame": options.frame})
    code = python_code(
        f"volume = {load}.to(torch.float32)",
        f"transfer = {call('unrender.window_transfer', Name('volume'), keywords=transfer)}",
        f"eye, target, up = {_rounded(eye)}, {_rounded(target)}, {options.up_vector}",
        f"camera = {call('unrender.Camera.look_at', *map(Name, ('eye', 'target', 'up')), keywords=view)}",
        f"output = {call('unrender.render_volume', *names, keywords=output)}",
        'unrender.save_image(output.color.clamp(0, 1), "view.png")',
    )
    return reproduce(command_line("render", [source], changed), code)


def _color(color: Color) -> Name:
    return Name(f"torch.tensor({list(color)})")


def _rounded(point: torch.Tensor) -> list[float]:
    return [round(x, 6) for x in point.tolist()]


def volume_metrics(scene: VolumeScene) -> dict[str, Any]:
    """Return the size of a volume, its range of values, the window, and the visible fraction."""
    volume = scene.volume
    width, height, depth = (int(n) for n in volume.size)
    low, high = (float(value) for value in volume.density.aminmax())
    return {
        "voxels": f"{width} × {height} × {depth}",
        "voxel_size": " × ".join(
            f"{side:.4g}" for side in volume.world_from_volume[:3, :3].norm(dim=0).tolist()
        ),
        "lowest_value": low,
        "highest_value": high,
        "window_low": scene.transfer.low,
        "window_high": scene.transfer.high,
        "visible_fraction": float(scene.blocks.occupied.float().mean()),
    }
