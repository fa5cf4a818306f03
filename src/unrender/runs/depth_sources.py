"""Depth images to fuse: rendered by a run, written by `unrender depth`, or recorded in a scene."""

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch

from unrender.data.depth_maps import load_depth_views, origin_of_depth_views
from unrender.data.depth_units import notes_on_depth
from unrender.data.frames import Frame, evenly_spaced
from unrender.data.scenes import load_scene
from unrender.errors import InputError
from unrender.geometry.world_origin import WorldOrigin
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.files import read_bytes, reading
from unrender.io.splats import is_splat_file
from unrender.render.depth import DepthView
from unrender.runs.folder import CONFIG
from unrender.runs.progress import run_steps, run_views
from unrender.runs.saved_run import Run
from unrender.runs.views import with_size
from unrender.tasks.depth.depth_views import measure_view
from unrender.workers import ALONE, Workers

log = logging.getLogger("unrender")

SourceKind = Literal["run", "depths", "scene"]


@dataclasses.dataclass(frozen=True)
class LoadedView:
    """A depth image that was rendered or read."""

    index: int
    last_index: int
    view: DepthView


def kind_of_source(source: Path) -> SourceKind:
    """Tell whether a folder is a run, depth maps, or a scene; a Gaussian splat file counts as a run."""
    if is_splat_file(source):
        return "run"
    if list(source.glob("depth/*/depth.json")) or list(source.glob("*/depth.json")):
        return "depths"
    config = source / CONFIG
    if not config.is_file():
        return "scene"
    data = read_bytes(config)
    with reading(config):
        content = json.loads(data)
    return "run" if isinstance(content, dict) and "task" in content else "scene"


def frames_to_render(run: Run, count: int, size: int | None) -> list[Frame]:
    """Return `count` evenly spaced views with `size` pixels along the longer side: training views, if there are any."""
    frames = run.frames()
    frames = tuple(frame for frame in frames if frame.split == "train") or frames
    return [with_size(frame, size) for frame in evenly_spaced(frames, count)]


def render_source_views(
    run: Run, frames: Sequence[Frame], folder: Path, workers: Workers = ALONE
) -> list[LoadedView]:
    """Render depth images of a run to a folder; those there are kept.

    Each worker renders the next view whenever it is free, and the first one returns them all.
    """
    return run_views(_rendered(run, frames, workers, folder), _describe, workers)


def load_source_views(
    source: Path, count: int, *, depth_scale: float | None = None
) -> tuple[list[LoadedView], WorldOrigin]:
    """Load `count` evenly spaced depth images of depth maps or a scene, and the origin that their cameras refer to."""
    if kind_of_source(source) == "depths":
        origin = origin_of_depth_views(source)
        views = evenly_spaced(list(load_depth_views(source, origin=origin).values()), count)
        return [LoadedView(index, len(views) - 1, view) for index, view in enumerate(views)], origin
    else:
        scene = load_scene(source, depth_scale=depth_scale)
        for note in notes_on_depth(scene.notes):
            log.warning("%s", note)
        origin, frames = scene.origin, [frame for frame in scene.frames if frame.depth_file is not None]
        if not frames:
            raise InputError(f"{source}: not a run, no depth maps, and a scene without depth images")
        steps = _recorded(evenly_spaced(frames, count))
    return run_steps(steps, _describe), origin


def _rendered(run: Run, frames: Sequence[Frame], workers: Workers, folder: Path) -> Iterator[LoadedView]:
    folder.mkdir(exist_ok=True)
    for index in workers.claims(len(frames), str(folder)):
        path = folder / f"{index:04d}.safetensors"
        if path.is_file():
            tensors, _ = load_tensors(path)
            view = DepthView(frames[index].camera, tensors["depth"], tensors["color"])
        else:
            view = measure_view(run.field, frames[index].camera).to("cpu")
            if view.color is not None:
                save_tensors({"depth": view.depth, "color": view.color}, {"view": frames[index].name}, path)
        yield LoadedView(index, len(frames) - 1, view)


def _recorded(frames: Sequence[Frame]) -> Iterator[LoadedView]:
    for index, frame in enumerate(frames):
        view = frame.load()
        assert view.depth is not None
        depth = view.depth if view.mask is None else torch.where(view.mask, view.depth, 0)
        yield LoadedView(index, len(frames) - 1, DepthView(frame.camera, depth, view.image))


def _describe(step: LoadedView) -> str:
    return f"loading depth image {step.index + 1} of {step.last_index + 1}"
