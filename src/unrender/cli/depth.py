"""unrender depth: how far away what a run learned is, in every form."""

import dataclasses
import logging
import math
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from unrender._version import __version__
from unrender.cli.render_run import PATHS, choose_views
from unrender.data.depth_maps import DepthFiles, save_depth
from unrender.data.frames import Frame
from unrender.errors import InputError
from unrender.fields.protocol import RadianceField
from unrender.io.depth_preview import Colormap, color_depth, depth_picture, depth_range
from unrender.render.depth import DepthMap, DepthView
from unrender.reports import figures
from unrender.reports.html import Picture, Section, write_report
from unrender.runs.folder import as_options, changes, open_run_folder, write_json
from unrender.runs.progress import take_all
from unrender.runs.saved_run import Run, load_run
from unrender.tasks.depth.compare_depths import view_consistency
from unrender.tasks.depth.measure_depth import measure_depth

log = logging.getLogger("unrender")
LARGEST = 8192
SHOWN, SHOWN_SIDE = 6, 320


@dataclasses.dataclass(frozen=True)
class Depths:
    """Which views, and what to write of them."""

    path: str = "held-out"
    """held-out: where the photos stood that are kept for tests; training: where those stood that were learned from; or
    what `unrender render` knows: orbit, between, spiral, auto, or a json file of cameras."""
    view: tuple[str, ...] = ()
    """Names of photos, to measure at those alone."""
    views: int | None = None
    """How many, evenly chosen. By default all, and 36 of an orbit or another way."""
    size: int | None = None
    """Pixels along the longer side. By default as the photos."""
    format: tuple[Literal["npy", "png16", "exr", "tiff"], ...] = ("npy",)
    """Besides npy, which is always written. png16: whole numbers of --scale; exr, tiff: floats."""
    scale: float = 0.001
    """World units of one step of a 16-bit png: millimetres, if units are metres."""
    colormap: Colormap = "viridis"
    """Of the previews. grey: near is dark, far is bright."""
    threshold: float = 0.25
    """Opacity at which the first surface lies."""
    least_opacity: float = 0.5
    """Of what is a surface; less is not valid."""
    output: Path | None = None
    """Folder for the results. By default runs/depth/NAME-TIME."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """One view that was written."""

    index: int
    last_index: int
    name: str
    valid_fraction: float
    view: DepthView
    shown: Sequence[bytes]
    """Color, median depth, first surface, spread and confidence, of some views."""


def command(run: Annotated[Path, tyro.conf.Positional], /, depths: Depths = Depths()) -> None:
    """Measure how far away what a run learned is: mean, median and first surface, as z and as distance, and how sure.

    One folder a view: depth/VIEW/median_z.npy and more, in world units of the scene.
    Examples: unrender depth runs/fit-volume/chair, unrender depth runs/fit-volume/room --path training --format png16

    Args:
        run: The folder of a run.
        depths: Which views, and what to write of them.
    """
    files = _check(depths)
    learned = load_run(run)
    frames = [sized(frame, depths.size) for frame in _choose(learned, depths)]
    if depths.output is not None and depths.output.resolve() == run.resolve():
        raise InputError(f"--output {depths.output}: is the run itself; give another folder")
    folder = open_run_folder("depth", run.resolve().name, depths.output)
    write_json(
        folder / "config.json", {"unrender": __version__, "task": "depth", "run": run, "depths": depths}
    )
    begin = time.perf_counter()
    found = take_all(_measure_all(learned.field, frames, folder / "depth", depths, files), _words)
    metrics = _metrics(found, (time.perf_counter() - begin) / len(found))
    write_json(folder / "metrics.json", metrics)
    _report(folder, run, found, depths, metrics)
    if not metrics["valid_fraction"]:
        raise InputError(
            f"{run}: no view shows any surface: nothing is more than {depths.least_opacity:.0%} opaque; was it fitted "
            f"long enough, and do the views look at it? What there is lies in {folder / 'depth'}"
        )
    print(f"{len(found)} views, {metrics['valid_fraction']:.1%} of their pixels on a surface")
    print(folder / "depth")
    print(folder / "report.html")


def _check(depths: Depths) -> DepthFiles:
    """Refuse what cannot be written, before anything is read."""
    known = (*PATHS, "training")
    if depths.path not in known and not depths.path.lower().endswith(".json"):
        raise InputError(
            f"--path {depths.path}: should be one of {', '.join(known)}, or a json file of cameras"
        )
    for name, value in (("threshold", depths.threshold), ("least-opacity", depths.least_opacity)):
        if not 0 < value < 1:
            raise InputError(f"--{name} {value}: should be above 0 and below 1")
    if depths.views is not None and depths.views < 1:
        raise InputError(f"--views {depths.views}: should be at least 1")
    if depths.size is not None and not 1 <= depths.size <= LARGEST:
        raise InputError(f"--size {depths.size}: should be 1 to {LARGEST} pixels")
    if not 0 < depths.scale < math.inf:
        raise InputError(f"--scale {depths.scale}: should be positive and finite")
    formats = tuple(name for name in dict.fromkeys(depths.format) if name != "npy")
    return DepthFiles(formats, depths.scale, depths.colormap)


def _choose(run: Run, depths: Depths) -> Sequence[Frame]:
    if depths.view:
        frames = run.frames()
        return [_named(name, frames, run.folder) for name in dict.fromkeys(depths.view)]
    if depths.path != "training":
        return choose_views(run, depths.path, depths.views)
    learned = [frame for frame in run.frames() if frame.split == "train"]
    count = min(depths.views or len(learned), len(learned))
    return [learned[i * len(learned) // count] for i in range(count)]


def _named(name: str, frames: Sequence[Frame], folder: Path) -> Frame:
    found = [f for f in frames if name in (f.name, Path(f.name).name, Path(f.name).stem)]
    if len(found) != 1:
        some = ", ".join(frame.name for frame in (found or frames)[:5])
        what = "several views are called that" if found else "the run has no such view"
        raise InputError(f"{folder}: --view {name}: {what}; there are {some}{', …' * (len(frames) > 5)}")
    return found[0]


def sized(frame: Frame, size: int | None) -> Frame:
    """Give a view its longer side."""
    camera = frame.camera
    scale = 1.0 if size is None else size / max(camera.height, camera.width)
    height, width = (max(1, round(side * scale)) for side in (camera.height, camera.width))
    return dataclasses.replace(frame, camera=camera.resize(height, width))


def _names(frames: Sequence[Frame]) -> list[str]:
    """Call folders like photos; with the folders of those, where several have the same names."""
    short = [Path(frame.name).stem for frame in frames]
    if len(set(short)) == len(short):
        return short
    long = ["_".join(Path(frame.name).with_suffix("").parts) for frame in frames]
    return long if len(set(long)) == len(long) else [f"{i:04d}_{name}" for i, name in enumerate(short)]


def _measure_all(
    field: RadianceField, frames: Sequence[Frame], folder: Path, depths: Depths, files: DepthFiles
) -> Iterator[Measured]:
    facts = {"threshold": depths.threshold, "least_opacity": depths.least_opacity}
    for index, (frame, name) in enumerate(zip(frames, _names(frames), strict=True)):
        depth = measure_depth(
            field, frame.camera, threshold=depths.threshold, least_opacity=depths.least_opacity
        )
        color = color_of_surface(field, depth)
        save_depth(depth, folder / name, files, color=color, facts=facts)
        if not bool(depth.valid.any()):
            log.warning("%s: no surface in view", name)
        is_shown = index % max(1, -(-len(frames) // SHOWN)) == 0
        shown = _pictures(depth, color, depths.colormap) if is_shown else ()
        yield Measured(index, len(frames) - 1, name, float(depth.valid.float().mean()), view_of(depth), shown)


def color_of_surface(field: RadianceField, depth: DepthMap) -> Tensor:
    """Return the color of what is seen, without what is behind it."""
    seen = field.render(depth.camera, torch.zeros(3))
    return (seen.color / seen.opacity.clamp(min=1e-3)[..., None]).clamp(0, 1)


def view_of(depth: DepthMap, color: Tensor | None = None) -> DepthView:
    """Return the median depth where it is valid."""
    return DepthView(depth.camera, torch.where(depth.valid, depth.median_z, 0), color)


def _words(view: Measured) -> str:
    return f"view {view.index + 1} of {view.last_index + 1}"


def _metrics(found: Sequence[Measured], seconds: float) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "views": len(found),
        "valid_fraction": sum(view.valid_fraction for view in found) / len(found),
        "seconds_per_view": seconds,
    }
    if len(found) > 1:
        metrics |= view_consistency([view.view for view in found])
    return metrics | {f"valid_fraction/{view.name}": view.valid_fraction for view in found}


def _pictures(depth: DepthMap, color: Tensor, colormap: Colormap) -> list[bytes]:
    valid = depth.valid
    low, high = depth_range(depth.median_distance, valid)
    first = color_depth(depth.first_surface_distance, valid, low, high, colormap)
    spread = color_depth(depth.std, valid, 0.0, max(depth_range(depth.std, valid)[1], 1e-12), "magma")
    sure = color_depth(depth.confidence, valid, 0.0, 1.0, "grey")
    images = [color, depth_picture(depth.median_distance, valid, colormap), first, spread, sure]
    return [_small(image) for image in images]


def _small(image: Tensor) -> bytes:
    step = max(1, round(max(image.shape[:2]) / SHOWN_SIDE))
    if step > 1:
        image = torch.nn.functional.avg_pool2d(image.movedim(-1, 0), step).movedim(0, -1)
    return figures.png(figures.to_bytes(image))


def _report(
    folder: Path, run: Path, found: Sequence[Measured], depths: Depths, metrics: dict[str, Any]
) -> None:
    captions = (
        "color",
        "median distance",
        "first surface, in the same colors",
        "spread: bright is wide",
        "confidence: bright is sure",
    )
    shown = [
        Picture(f"{view.name}: {caption}", [image])
        for view in found
        for caption, image in zip(captions, view.shown, strict=False)
    ]
    line = ["unrender", "depth", str(run), *as_options(changes(depths))]
    python = [
        "import unrender",
        "",
        "depth = unrender.measure_depth(field, camera)  # any field, any camera",
        'unrender.save_depth(depth, "view")',
    ]
    main = {name: value for name, value in metrics.items() if "/" not in name}
    write_report(
        folder / "report.html",
        f"Depth of {run.resolve().name}",
        [
            Section("What came out", pictures=shown),
            Section("Figures", figures=main),
            Section("Do it again", code=[shlex.join(line), "\n".join(python)]),
        ],
    )
