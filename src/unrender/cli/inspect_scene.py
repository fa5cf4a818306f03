"""unrender inspect: check a scene before training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unrender._wording import counted
from unrender.cli import arguments
from unrender.cli.confine import confinable
from unrender.data.scenes import Scene, SceneFormat, load_scene
from unrender.errors import InputError
from unrender.fields.gaussians import GaussianField
from unrender.io.confinement import outside, recorded_reads
from unrender.io.splats import SPLAT_READERS
from unrender.reports import scene_report, splat_report
from unrender.reports.reproduce import call, command_line, python_code, reproduce
from unrender.runs.folder import start_run, write_json
from unrender.runs.options import as_arguments
from unrender.runs.saved_run import load_run
from unrender.tasks.scene.inspect_scene import (
    ImageSummary,
    describe_cameras,
    find_duplicates,
    find_warnings,
    inspect_image,
)

MAX_OUTSIDE = 5
"""Maximum number of paths in one note."""


@confinable
def command(
    scene: arguments.Scene,
    /,
    format: SceneFormat = "auto",
    inverted_depth_range: arguments.Number = None,
    depth_scale: arguments.Number = None,
    quick: arguments.Flag = False,
    output: arguments.Folder = None,
) -> None:
    """Summarize a scene (Blender, nerfstudio, instant-ngp, COLMAP, LLFF) and report likely problems before training.

    Of a Gaussian splat file (ply, splat, spz), it summarizes the Gaussians.

    Examples:
        unrender inspect chair/
        unrender inspect garden.ply

    Args:
        scene: Folder of images with camera poses, its JSON or npy file, or a Gaussian splat file.
        format: Scene format, if the folder contains several.
        inverted_depth_range: Range of 8-bit inverted depth images in world units; 8 for NeRF-synthetic.
        depth_scale: World units per unit of the depth images. Default: checked against points and cameras.
        quick: Read only the images of the contact sheet instead of all.
        output: Output folder. Default: runs/inspect/NAME-TIME.
    """
    options = {"format": format, "inverted_depth_range": inverted_depth_range, "depth_scale": depth_scale}
    options |= {"quick": quick}
    given = {name: value for name, value in options.items() if value not in ("auto", None, False)}
    if scene.suffix.lower() in SPLAT_READERS and not scene.is_dir():
        return _inspect_splats(scene, given, output)
    with recorded_reads() as paths:
        loaded = load_scene(
            scene, format=format, inverted_depth_range=inverted_depth_range, depth_scale=depth_scale
        )
        folder = start_run("inspect", loaded.name, output, {"scene": scene} | options)
        images = _inspect_images(loaded, quick)
    warnings = [image.problem for image in images if image.problem] + find_duplicates(images)
    warnings += find_warnings(loaded)
    metrics = describe_cameras(loaded) | scene_report.describe_images(images)
    metrics |= {"num_warnings": len(warnings)} | scene_report.describe_bounds(loaded)
    write_json(folder / "metrics.json", metrics)
    summary = scene_report.summarize(loaded, metrics)
    loading = {name: value for name, value in given.items() if name != "quick"}
    code = python_code(
        f"scene = {call('unrender.load_scene', scene, keywords=loading)}", "view = scene.frames[0].load()"
    )
    how = reproduce(command_line("inspect", [scene], given), code)
    notes = [*loaded.notes, *_notes_on_outside(sorted(paths), loaded.folder), *warnings]
    scene_report.write_scene_report(folder / "report.html", loaded, images, summary, notes, how)
    _print_summary(summary, notes, folder)


def _print_summary(summary: Mapping[str, str], notes: Sequence[str], folder: Path) -> None:
    for name, value in summary.items():
        print(f"{name:14s} {value}")
    for note in notes:
        print(f"note: {note}")
    print(folder / "report.html")


def _inspect_splats(path: Path, given: Mapping[str, Any], output: Path | None) -> None:
    if given:
        raise InputError(f"{path}: {' '.join(as_arguments(given))} does not apply to a Gaussian splat file")
    run = load_run(path)
    assert isinstance(run.field, GaussianField)
    folder = start_run("inspect", path.name, output, {"scene": path})
    metrics = splat_report.describe_splats(run.field)
    notes = splat_report.warn_about_splats(metrics)
    write_json(folder / "metrics.json", metrics | {"num_warnings": len(notes)})
    summary = splat_report.summarize_splats(metrics)
    splat_report.write_splat_report(folder / "report.html", run, summary, notes)
    _print_summary(summary, notes, folder)


def _notes_on_outside(paths: list[Path], folder: Path) -> list[str]:
    """Name files that a scene refers to and that are not in its folder."""
    found = [str(path) for path in outside(paths, folder)]
    if not found:
        return []
    more = "" if len(found) <= MAX_OUTSIDE else f" and {len(found) - MAX_OUTSIDE} more"
    return [
        f"{counted(len(found), 'file')} outside of the scene's folder: {', '.join(found[:MAX_OUTSIDE])}{more}; "
        "--confine refuses to read them"
    ]


def _inspect_images(scene: Scene, quick: bool) -> list[ImageSummary]:
    from rich.console import Console
    from rich.progress import track

    step = max(1, len(scene.frames) // scene_report.CONTACT_SHEET) if quick else 1
    frames = scene.frames[::step]
    console = Console(stderr=True)
    return [
        inspect_image(frame) for frame in track(frames, "reading images", console=console, transient=True)
    ]
