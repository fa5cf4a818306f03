"""unrender inspect: what a scene holds, and what looks wrong with it."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import tyro

from unrender._version import __version__
from unrender.data.scenes import Scene, SceneFormat, load_scene
from unrender.reports import figures
from unrender.reports.html import Picture, Section, write_report
from unrender.reports.scene_images import draw_cameras
from unrender.runs.folder import open_run_folder, write_json
from unrender.tasks.scene.inspect_scene import (
    PictureFacts,
    describe_cameras,
    find_suspicious,
    inspect_picture,
)

ON_SHEET = 24
"""Pictures on the contact sheet."""


def command(
    scene: Annotated[Path, tyro.conf.Positional],
    /,
    format: SceneFormat = "auto",
    inverted_depth_range: float | None = None,
    quick: bool = False,
    output: Path | None = None,
) -> None:
    """Tell what a scene holds (Blender, nerfstudio, instant-ngp, COLMAP, LLFF), and what looks wrong with it.

    Example: unrender inspect chair/

    Args:
        scene: The scene's folder, or its json or npy file.
        format: How to read it, where a folder holds several.
        inverted_depth_range: The range of NeRF-synthetic's 8-bit depth pictures, in world units (8 for that data set).
        quick: Read the pictures of the contact sheet only, rather than all.
        output: Folder for the report. By default runs/inspect/NAME-TIME.
    """
    loaded = load_scene(scene, format=format, inverted_depth_range=inverted_depth_range)
    folder = open_run_folder("inspect", loaded.name, output)
    write_json(
        folder / "config.json",
        {
            "unrender": __version__,
            "task": "inspect",
            "scene": scene,
            "format": format,
            "inverted_depth_range": inverted_depth_range,
            "quick": quick,
        },
    )
    facts = _read_pictures(loaded, quick)
    odd = [fact.problem for fact in facts if fact.problem] + find_suspicious(loaded)
    metrics = describe_cameras(loaded) | _describe_pictures(facts) | {"num_suspicious": len(odd)}
    metrics |= {
        f"bounds_{side}_{axis}": float(loaded.bounds[i, j])
        for i, side in enumerate(("low", "high"))
        for j, axis in enumerate("xyz")
    }
    write_json(folder / "metrics.json", metrics)
    summary = summarize(loaded, metrics)
    _report(folder / "report.html", loaded, facts, summary, odd, _how(scene, format, inverted_depth_range))
    for name, value in summary.items():
        print(f"{name:14s} {value}")
    for line in [*loaded.notes, *odd]:
        print(f"note: {line}")
    print(folder / "report.html")


def _read_pictures(scene: Scene, quick: bool) -> list[PictureFacts]:
    from rich.console import Console
    from rich.progress import track

    step = max(1, len(scene.frames) // ON_SHEET) if quick else 1
    frames = scene.frames[::step]
    console = Console(stderr=True)
    return [
        inspect_picture(frame) for frame in track(frames, "reading pictures", console=console, transient=True)
    ]


def _describe_pictures(facts: list[PictureFacts]) -> dict[str, Any]:
    covered = [fact.covered for fact in facts if fact.covered is not None]
    used = [fact.used for fact in facts if fact.used is not None]
    depths = [fact.depth for fact in facts if fact.depth is not None]
    return {
        "num_read": len(facts),
        "num_broken": sum(fact.thumbnail is None for fact in facts),
        "num_with_alpha": len(covered),
        "mean_alpha": sum(covered) / len(covered) if covered else None,
        "num_with_mask": len(used),
        "mean_mask": sum(used) / len(used) if used else None,
        "num_with_depth": len(depths),
        "depth_min": min((low for low, _ in depths), default=None),
        "depth_max": max((high for _, high in depths), default=None),
    }


def summarize(scene: Scene, metrics: dict[str, Any]) -> dict[str, str]:
    """Say the most important figures in words."""
    m = metrics
    low, high = (", ".join(f"{x:.3g}" for x in corner) for corner in scene.bounds.tolist())
    lens = next((frame.camera.lens for frame in scene.frames if frame.camera.lens is not None), None)
    source = {"points": "measured points", "file": "the scene's file", "cameras": "where the cameras look"}
    missing = f"{m['num_missing']} listed and absent: {_some(scene.missing)}" if scene.missing else "none"
    summary = {
        "scene": f"{scene.name}, {m['num_frames']} frames",
        "splits": f"{m['num_train']} train, {m['num_val']} val, {m['num_test']} test",
        "missing": missing,
        "pixels": f"{_span(m, 'width', '.0f')} × {_span(m, 'height', '.0f')}",
        "focal length": f"{_span(m, 'focal_x', '.1f')} pixels",
        "field of view": f"{_span(m, 'fov_x_degrees', '.1f')}° × {_span(m, 'fov_y_degrees', '.1f')}°",
        "lens": "pinhole" if lens is None else f"{lens.model}, in {m['num_with_lens']} frames",
        "alpha": _share(m["num_with_alpha"], m["mean_alpha"], "covered"),
        "masks": _share(m["num_with_mask"], m["mean_mask"], "used"),
        "depth": f"in {m['num_with_depth']} frames, {m['depth_min']:.3g} to {m['depth_max']:.3g}"
        if m["num_with_depth"]
        else "none",
        "bounds": f"({low}) to ({high}), from {source[scene.bounds_from]}",
        "near and far": "unknown" if m["near"] is None else f"{m['near']:.3g} to {m['far']:.3g}",
    }
    if scene.points is not None:
        summary["points"] = f"{m['num_points']:,}"
    if scene.without_pose:
        summary["without pose"] = f"{m['num_without_pose']} pictures: {_some(scene.without_pose)}"
    return summary


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _span(metrics: dict[str, Any], name: str, form: str) -> str:
    low, high = (format(metrics[f"{name}_{end}"], form) for end in ("min", "max"))
    return low if low == high else f"{low} to {high}"


def _share(count: int, mean: float | None, word: str) -> str:
    return "none" if mean is None else f"in {count} pictures, {100 * mean:.1f} % {word}"


def _report(
    path: Path,
    scene: Scene,
    facts: list[PictureFacts],
    summary: dict[str, str],
    odd: list[str],
    how: list[str],
) -> None:
    seen = [fact for fact in facts if fact.thumbnail is not None]
    sheet = [
        Picture(fact.name, [figures.png(fact.thumbnail)])
        for fact in seen[:: max(1, -(-len(seen) // ON_SHEET))]
        if fact.thumbnail is not None
    ]
    notes = [*scene.notes, *odd]
    text = f"{len(notes)} notes" if notes else "Nothing looks wrong."
    write_report(
        path,
        f"Scene {scene.name}",
        [
            Section("What it holds", figures=summary),
            Section("What to look at", text, figures={f"{i}": note for i, note in enumerate(notes, 1)}),
            Section(
                "Where the cameras stand",
                "Each frustum is a camera; blue trains, orange tests.",
                svg=draw_cameras(scene),
            ),
            Section("Pictures", pictures=sheet),
            Section("Do it again", code=how),
        ],
    )


def _how(path: Path, format: str, depth_range: float | None) -> list[str]:
    line = ["unrender", "inspect", str(path)]
    options = ""
    if format != "auto":
        line += ["--format", format]
        options += f", format={format!r}"
    if depth_range is not None:
        line += ["--inverted-depth-range", str(depth_range)]
        options += f", inverted_depth_range={depth_range}"
    python = f"import unrender\n\nscene = unrender.load_scene({str(path)!r}{options})\nview = scene.frames[0].load()"
    return [shlex.join(line), python]
