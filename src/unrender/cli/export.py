"""unrender export: what a run learned, or depth pictures, as points or as a mesh."""

import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from unrender._version import __version__
from unrender.cli.depth import color_of_surface, sized, view_of
from unrender.data.depth_maps import load_depth_views
from unrender.data.frames import Frame
from unrender.data.scenes import load_scene
from unrender.errors import InputError
from unrender.fields.protocol import KnowsBox
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io.clouds import save_cloud
from unrender.io.files import MissingFileError, read_bytes, reading
from unrender.io.meshes import save_mesh
from unrender.render.depth import DepthView
from unrender.reports import figures
from unrender.reports.html import Picture, Section, write_report
from unrender.runs.folder import as_options, changes, open_run_folder, write_json
from unrender.runs.progress import take_all
from unrender.runs.saved_run import Run, load_run
from unrender.tasks.depth.fuse_depths import fuse_depths, points_from_views
from unrender.tasks.depth.measure_depth import measure_depth
from unrender.tasks.surface.extract_surface import choose_voxel_size, extract_surface, surface_density

FILES = {"points": ("ply", "xyz", "pcd", "npz"), "mesh": ("ply", "obj", "glb")}
TURNS = 12


@dataclasses.dataclass(frozen=True)
class Export:
    """What to make, and of what."""

    to: Literal["points", "mesh"] = "points"
    """points: where views agree, with normals and colors. mesh: a surface with vertex colors."""
    format: str = "ply"
    """Of the file: ply, xyz, pcd or npz for points, ply, obj or glb for a mesh."""
    method: Literal["depth", "density"] = "depth"
    """Of meshes: the surface on which depths agree, or where the density of a run's field reaches a level."""
    views: int = 100
    """Views whose depths are used at most, evenly chosen."""
    size: int | None = None
    """Pixels of a run's views along the longer side. By default as the photos."""
    tolerance: float = 0.01
    """Points: relative difference at which views still agree."""
    agreeing: int = 2
    """Points: views that have to agree."""
    spacing: float | None = None
    """Points: keep one in each cube of this side, in world units. By default all."""
    voxel_size: float | None = None
    """Mesh: side of a voxel, in world units. By default a 192nd of the longest side, and the voxels of a volume."""
    opacity: float = 0.5
    """Mesh by density: share of the light that matter as thick as a voxel takes where the surface lies."""
    output: Path | None = None
    """Folder for the results. By default runs/export/NAME-TIME."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """One view whose depth is known."""

    index: int
    last_index: int
    view: DepthView


def command(source: Annotated[Path, tyro.conf.Positional], /, export: Export = Export()) -> None:
    """Write what a run learned, or what depth pictures measure, as a point cloud or a mesh in world units.

    Examples: unrender export runs/fit-volume/chair --to mesh, unrender export scan/ --to points
    Points of a depth camera can go on into `unrender fit-mesh`.

    Args:
        source: The folder of a run, or one that `unrender depth` wrote, or a scene whose frames have depth.
        export: What to make, and of what.
    """
    _check(source, export)
    kind = _kind(source)
    learned = load_run(source) if kind == "run" else None
    if learned is None and export.method == "density":
        raise InputError(f"{source}: --method density takes the run of a field; depths have no density")
    if export.output is not None and export.output.resolve() == source.resolve():
        raise InputError(f"--output {export.output}: is the source itself; give another folder")
    views = [] if export.method == "density" else _views(source, kind, learned, export)
    made = _make(views, learned, export)
    level = None if learned is None or export.method == "depth" else _level(learned, export)
    folder = open_run_folder("export", source.resolve().name, export.output)
    write_json(
        folder / "config.json",
        {"unrender": __version__, "task": "export", "source": source, "export": export},
    )
    path = folder / f"{export.to}.{export.format}"
    if isinstance(made, Mesh):
        save_mesh(made, path)
        metrics: dict[str, Any] = {"vertices": len(made.vertices), "faces": len(made.faces)}
    else:
        save_cloud(made, path)
        metrics = {"points": len(made.points)}
    metrics |= {"views": len(views)} if level is None else {"density": level}
    write_json(folder / "metrics.json", metrics)
    _report(folder, source, made, export, metrics)
    print(", ".join(f"{count:,} {name}" for name, count in metrics.items() if isinstance(count, int)))
    if level is not None:
        print(f"where the density is {level:.4g} per world unit")
    print(path)
    print(folder / "report.html")


def _check(source: Path, export: Export) -> None:
    """Refuse what cannot be made, before anything is read."""
    if not source.exists():
        raise MissingFileError(
            f"{source}: there is no such folder; give a run, a folder of depths, or a scene with depth"
        )
    if export.format not in FILES[export.to]:
        raise InputError(f"--format {export.format}: should be one of {', '.join(FILES[export.to])}")
    if export.views < 2:
        raise InputError(f"--views {export.views}: should be at least 2")
    if export.size is not None and export.size < 1:
        raise InputError(f"--size {export.size}: should be at least 1")
    if export.to == "points" and (export.method, export.voxel_size) != ("depth", None):
        raise InputError("--method density and --voxel-size are for --to mesh; leave them out")
    if not 0 < export.opacity < 1:
        raise InputError(f"--opacity {export.opacity}: should be above 0 and below 1")
    if export.method == "depth" and "opacity" in changes(export):
        raise InputError("--opacity is for --method density; leave it out")


def _kind(source: Path) -> Literal["run", "depths", "scene"]:
    """Tell what a folder holds."""
    if list(source.glob("depth/*/depth.json")) or list(source.glob("*/depth.json")):
        return "depths"
    config = source / "config.json"
    if not config.is_file():
        return "scene"
    data = read_bytes(config)
    with reading(config):
        content = json.loads(data)
    return "run" if isinstance(content, dict) and "task" in content else "scene"


def _views(source: Path, kind: str, run: Run | None, export: Export) -> list[DepthView]:
    if kind == "depths":
        return _some(list(load_depth_views(source).values()), export.views)
    if run is not None:
        frames = [f for f in run.frames() if f.split == "train"] or list(run.frames())
        steps = _measured(run, [sized(frame, export.size) for frame in _some(frames, export.views)])
    else:
        frames = [frame for frame in load_scene(source).frames if frame.depth_file is not None]
        if not frames:
            raise InputError(f"{source}: neither a run nor a folder of depths, and a scene without depth")
        steps = _stored(_some(frames, export.views))
    return [step.view for step in take_all(steps, _words)]


def _some(items: list[Any], count: int) -> list[Any]:
    return items if count >= len(items) else [items[i * len(items) // count] for i in range(count)]


def _measured(run: Run, frames: Sequence[Frame]) -> Iterator[Loaded]:
    for index, frame in enumerate(frames):
        depth = measure_depth(run.field, frame.camera)
        yield Loaded(index, len(frames) - 1, view_of(depth, color_of_surface(run.field, depth)))


def _stored(frames: Sequence[Frame]) -> Iterator[Loaded]:
    for index, frame in enumerate(frames):
        seen = frame.load()
        assert seen.depth is not None
        depth = seen.depth if seen.mask is None else torch.where(seen.mask, seen.depth, 0)
        yield Loaded(index, len(frames) - 1, DepthView(frame.camera, depth, seen.image))


def _words(step: Loaded) -> str:
    return f"depth {step.index + 1} of {step.last_index + 1}"


def _make(views: Sequence[DepthView], run: Run | None, export: Export) -> Mesh | PointCloud:
    if export.to == "points":
        return points_from_views(
            views, tolerance=export.tolerance, agreeing=export.agreeing, spacing=export.spacing
        )
    if export.method == "depth":
        return fuse_depths(views, voxel_size=export.voxel_size)
    assert run is not None
    return extract_surface(run.field, opacity=export.opacity, voxel_size=export.voxel_size)


def _level(run: Run, export: Export) -> float:
    """Return the density at which the surface lies."""
    field = run.field
    if isinstance(field, SparseVoxels) and export.voxel_size is None:
        return surface_density(export.opacity, field.voxel_size)
    assert isinstance(field, KnowsBox)
    return surface_density(export.opacity, choose_voxel_size(field.box(), export.voxel_size))


def _report(
    folder: Path, source: Path, made: Mesh | PointCloud, export: Export, metrics: dict[str, Any]
) -> None:
    places: Tensor = made.vertices if isinstance(made, Mesh) else made.points
    frames = [
        figures.png(figures.show(made, figures.view_from(360 * i / TURNS, places))) for i in range(TURNS)
    ]
    line = ["unrender", "export", str(source), *as_options(changes(export))]
    sections = [
        Section("What came out", pictures=[Picture(export.to, frames)]),
        Section("Figures", figures=metrics),
        Section("Do it again", code=[shlex.join(line)]),
    ]
    write_report(folder / "report.html", f"{export.to.capitalize()} from {source.resolve().name}", sections)
