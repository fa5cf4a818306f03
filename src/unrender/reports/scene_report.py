"""The report of `unrender inspect`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unrender._wording import counted
from unrender.data.scenes import Scene
from unrender.geometry.world_origin import ZERO
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.reports.scene_images import draw_cameras
from unrender.tasks.scene.inspect_scene import ImageSummary

CONTACT_SHEET = 24
"""Images of the contact sheet, at most."""
BOUNDS_FROM = {"points": "3D points", "file": "the scene file", "cameras": "camera positions"}


def write_scene_report(
    path: Path,
    scene: Scene,
    images: Sequence[ImageSummary],
    summary: Mapping[str, str],
    notes: Sequence[str],
    how: Section,
) -> None:
    """Write the report: summary, warnings, cameras, contact sheet."""
    readable = [image for image in images if image.thumbnail is not None]
    sheet = [
        Figure(image.name, [figures.png(image.thumbnail)])
        for image in readable[:: max(1, -(-len(readable) // CONTACT_SHEET))]
        if image.thumbnail is not None
    ]
    text = counted(len(notes), "warning") + "." if notes else "No problems found."
    write_report(
        path,
        f"Scene {scene.name}",
        [
            Section("Summary", table=summary),
            Section("Warnings", text, table={f"{i}": note for i, note in enumerate(notes, 1)}),
            Section(
                "Cameras", "Frustums: blue training, green validation, orange test.", svg=draw_cameras(scene)
            ),
            Section("Images", figures=sheet),
            how,
        ],
    )


def describe_images(images: Sequence[ImageSummary]) -> dict[str, Any]:
    """Count the images with alpha, masks and depth, and average them."""
    alpha = [image.covered for image in images if image.covered is not None]
    mask = [image.used for image in images if image.used is not None]
    depths = [image.depth for image in images if image.depth is not None]
    return {
        "num_read": len(images),
        "num_broken": sum(image.thumbnail is None for image in images),
        "num_with_alpha": len(alpha),
        "mean_alpha": sum(alpha) / len(alpha) if alpha else None,
        "num_with_mask": len(mask),
        "mean_mask": sum(mask) / len(mask) if mask else None,
        "num_with_depth": len(depths),
        "depth_min": min((low for low, _ in depths), default=None),
        "depth_max": max((high for _, high in depths), default=None),
    }


def describe_bounds(scene: Scene) -> dict[str, float]:
    """Return the bounds of a scene, in world coordinates, and the origin that was subtracted as flat metrics."""
    bounds = {
        f"bounds_{side}_{axis}": float(scene.bounds[i, j]) + scene.origin[j]
        for i, side in enumerate(("low", "high"))
        for j, axis in enumerate("xyz")
    }
    return bounds | {f"origin_{axis}": scene.origin[j] for j, axis in enumerate("xyz")}


def summarize(scene: Scene, metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the main properties of a scene as text."""
    m = metrics
    low, high = (", ".join(f"{x:.3g}" for x in corner) for corner in scene.bounds.tolist())
    lens = next((frame.camera.lens for frame in scene.frames if frame.camera.lens is not None), None)
    missing = f"{m['num_missing']} listed but not found: {_first(scene.missing)}" if scene.missing else "none"
    summary = {
        "scene": f"{scene.name}, {counted(m['num_frames'], 'frame')}",
        "splits": f"{m['num_train']} train, {m['num_val']} val, {m['num_test']} test",
        "missing": missing,
        "image size": f"{_range(m, 'width', '.0f')} × {_range(m, 'height', '.0f')} pixels",
        "focal length": f"{_range(m, 'focal_x', '.1f')} pixels",
        "field of view": f"{_range(m, 'fov_x_degrees', '.1f')}° × {_range(m, 'fov_y_degrees', '.1f')}°",
        "lens": _projections(scene)
        if lens is None
        else f"{lens.model}, in {counted(m['num_with_lens'], 'frame')}",
        "alpha": _coverage(m["num_with_alpha"], m["mean_alpha"], "opaque"),
        "masks": _coverage(m["num_with_mask"], m["mean_mask"], "used"),
        "depth": _depth(scene, m) if m["num_with_depth"] else "none",
        "bounds": f"({low}) to ({high}), from {BOUNDS_FROM[scene.bounds_from]}",
        "near and far": "unknown" if m["near"] is None else f"{m['near']:.3g} to {m['far']:.3g}",
    }
    if scene.origin != ZERO:
        x, y, z = (f"{value:.12g}" for value in scene.origin)
        summary["origin"] = (
            f"({x}, {y}, {z}), subtracted from all coordinates; results are in world coordinates"
        )
        summary["bounds"] += ", relative to the origin"
    if scene.points is not None:
        summary["points"] = f"{m['num_points']:,}"
    if scene.without_pose:
        summary["without pose"] = f"{counted(m['num_without_pose'], 'image')}: {_first(scene.without_pose)}"
    return summary


def _projections(scene: Scene) -> str:
    kinds = {frame.camera.projection for frame in scene.frames}
    return ", ".join(sorted(kinds)).replace("perspective", "pinhole")


def _depth(scene: Scene, metrics: Mapping[str, Any]) -> str:
    """Say how many frames have depth, its range, and with which scale it was read."""
    files = [frame.depth_file for frame in scene.frames if frame.depth_file is not None]
    scales = sorted({f"{file.scale:g}" for file in files if not file.inverted})
    text = f"in {counted(metrics['num_with_depth'], 'frame')}, {metrics['depth_min']:.3g} to {metrics['depth_max']:.3g}"
    return f"{text}, {', '.join(scales)} world units per unit of the files" if scales else text


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _range(metrics: Mapping[str, Any], name: str, form: str) -> str:
    low, high = (format(metrics[f"{name}_{end}"], form) for end in ("min", "max"))
    return low if low == high else f"{low} to {high}"


def _coverage(count: int, mean: float | None, word: str) -> str:
    return "none" if mean is None else f"in {counted(count, 'image')}, {100 * mean:.1f} % {word}"
