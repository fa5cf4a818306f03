"""Results of `unrender track-pose`: overlays, curves and the report."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.io.frame_sequences import SequenceFrame
from unrender.render.mesh import render_depth
from unrender.reports import figures
from unrender.reports.html import Figure, Section, write_report
from unrender.reports.pose_images import OBJECT_COLOR, with_contour
from unrender.tasks.pose.track_pose import TrackedPose, TrackPoseStep

UNCERTAIN_COLOR = (0.95, 0.1, 0.2)
"""Color of the contour of an uncertain pose."""
MAX_FIGURES = 24
"""Frames of the video in the report, at most."""
FIGURE_SIZE = 480
"""Longer side of a frame in the report, in pixels."""


def draw_poses(image: Tensor, meshes: Sequence[Mesh], camera: Camera, poses: Sequence[TrackedPose]) -> Tensor:
    """Draw the contours of all objects that are not lost over a frame of 8-bit RGB; returns floats in [0, 1]."""
    drawn = image.float() / 255
    view = camera.resize(drawn.shape[0], drawn.shape[1])
    for mesh, tracked in zip(meshes, poses, strict=True):
        if tracked.status == "lost":
            continue
        at_pose = view.replace(camera_from_world=tracked.camera_from_object.to(view.focal))
        color = OBJECT_COLOR if tracked.status == "tracked" else UNCERTAIN_COLOR
        drawn = with_contour(drawn, render_depth(mesh, at_pose) > 0, color)
    return drawn


def overlays(
    frames: Iterator[SequenceFrame], steps: Sequence[TrackPoseStep], meshes: Sequence[Mesh], camera: Camera
) -> Iterator[Tensor]:
    """Draw the poses over the frames of the sequence, all in the size of the camera."""
    for frame, step in zip(frames, steps, strict=False):
        drawn = draw_poses(frame.image, meshes, camera, step.poses)
        if drawn.shape[:2] != (camera.height, camera.width):
            resized = torch.nn.functional.interpolate(
                drawn.movedim(-1, 0)[None], size=(camera.height, camera.width), mode="area"
            )
            drawn = resized[0].movedim(0, -1)
        yield drawn


def series(steps: Sequence[TrackPoseStep]) -> dict[str, list[float]]:
    """Return the curves of the confidence and the distance of the first object."""
    first = [step.poses[0] for step in steps]
    return {
        "confidence": [max(pose.confidence, 1e-3) for pose in first],
        "distance": [float(pose.camera_from_object[:3, 3].norm()) for pose in first],
    }


def summary(steps: Sequence[TrackPoseStep], k: int = 0) -> str:
    """Summarize how an object was tracked."""
    statuses = [step.poses[k].status for step in steps]
    counts = {name: statuses.count(name) for name in ("tracked", "uncertain", "lost")}
    losses = sum(a != "lost" and b == "lost" for a, b in itertools.pairwise(statuses))
    return (
        f"{counts['tracked']} of {len(steps)} frames tracked, {counts['uncertain']} uncertain, {counts['lost']} lost"
        + (f"; lost {losses} times" if losses > 1 else "")
    )


def write_track_report(
    path: Path,
    title: str,
    steps: Sequence[TrackPoseStep],
    shown: Sequence[Tensor],
    metrics: Mapping[str, Any],
    how: Section,
) -> None:
    """Write the report: a video of overlays, curves and metrics."""
    images = [figures.png(figures.thumbnail(image, FIGURE_SIZE)) for image in shown]
    figure = Figure("contour at the estimated pose; red: uncertain", images, is_video=True)
    write_report(
        path,
        title,
        [
            Section("Results", summary(steps) + ".", [figure]),
            Section("Curves", "Per frame, of the first object.", svg=figures.curves(series(steps), {})),
            Section("Metrics", table=metrics),
            how,
        ],
    )
