"""The unit of depth images, which few formats state: checked against the points or the cameras of the scene."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unrender.data.frames import Frame, ParsedScene
from unrender.data.scene_bounds import convergence_point
from unrender.errors import UnrenderError
from unrender.geometry.camera import transform
from unrender.geometry.points import PointCloud

USUAL_SCALES = (1.0, 1e-3, 1 / 5000, 1e-4, 1 / 256, 1e-2)
"""World units per unit of a file: meters, millimeters, TUM's, tenths of millimeters, KITTI's, centimeters."""
NUM_CHECKED = 4
"""Depth images that are read to check their unit."""
MAX_RATIO_TO_CAMERAS, MAX_RATIO_TO_POINTS = 4.0, 1.4
"""Largest ratio of the median depth to that of the point the cameras face, or of the scene's points, that fits."""
MAX_RATIO_OF_USUAL = 2.0
"""Largest ratio to the cameras' point with which another usual scale is taken: most are only 2 to 5 apart."""
MIN_POINTS = 20
ABOUT_DEPTH = "depth images "
"""How notes on the unit of depth begin."""


def with_depth_scale(scene: ParsedScene, given: float | None) -> ParsedScene:
    """Return a scene with the given scale of its depth images, or with one that fits its points or cameras.

    Scales that are given or that a file states stay as they are; a note says if they do not fit.
    """
    frames = [
        frame for frame in scene.frames if frame.depth_file is not None and not frame.depth_file.inverted
    ]
    if not frames:
        return scene
    if given is not None:
        scene = dataclasses.replace(scene, frames=[_with_scale(frame, given) for frame in scene.frames])
        frames = [_with_scale(frame, given) for frame in frames]
    ratio, fits, by = _ratio(frames, scene)
    if ratio is None or 1 / fits < ratio < fits:
        return scene
    file = frames[0].depth_file
    assert file is not None
    scale = min(USUAL_SCALES, key=lambda usual: abs(math.log(ratio * usual / file.scale)))
    found, closer = ratio * scale / file.scale, min(fits, MAX_RATIO_OF_USUAL)
    if not (file.is_assumed and 1 / closer < found < closer):
        note = (
            f"depth images with a scale of {file.scale:g} are {ratio:.3g} times as deep as {by}: give `depth_scale`, "
            f"which should be about {file.scale / ratio:.2g}"
        )
        return dataclasses.replace(scene, notes=[*scene.notes, note])
    note = (
        f"depth images are read with a scale of {scale:g}: with {file.scale:g} they would be {ratio:.3g} times as deep "
        f"as {by}; if that is wrong, give `depth_scale`"
    )
    return dataclasses.replace(
        scene, frames=[_with_scale(frame, scale) for frame in scene.frames], notes=[*scene.notes, note]
    )


def notes_on_depth(notes: Sequence[str]) -> list[str]:
    """Return those notes on a scene that are about the unit of its depth images, for commands that use them."""
    return [note for note in notes if note.startswith(ABOUT_DEPTH)]


def _with_scale(frame: Frame, scale: float) -> Frame:
    file = frame.depth_file
    if file is None or file.inverted:
        return frame
    return dataclasses.replace(frame, depth_file=dataclasses.replace(file, scale=scale, is_assumed=False))


def _ratio(frames: Sequence[Frame], scene: ParsedScene) -> tuple[float | None, float, str]:
    """Return the median ratio of depth to what it should be, the largest that fits, and what it was compared with."""
    to_points: list[float] = []
    to_cameras: list[float] = []
    center = _center(scene.frames)
    for frame in frames[:: -(-len(frames) // NUM_CHECKED)]:
        try:
            depth = frame.load_depth()
        except UnrenderError:  # said by whoever needs the depth
            continue
        if depth is None or not bool((depth > 0).any()):
            continue
        to_points += _ratios_to_points(frame, depth, scene.points)
        if center is not None:
            expected = float(transform(frame.camera.camera_from_world, center[None])[0, 2])
            if expected > 0:
                to_cameras.append(float(depth[depth > 0].median()) / expected)
    if len(to_points) >= MIN_POINTS:
        return float(np.median(to_points)), MAX_RATIO_TO_POINTS, "the points of the scene"
    if to_cameras:
        return float(np.median(to_cameras)), MAX_RATIO_TO_CAMERAS, "the point that the cameras face"
    return None, 1.0, ""


def _ratios_to_points(frame: Frame, depth: Tensor, points: PointCloud | None) -> list[float]:
    """Compare the depth image with the points visible in the frame, or with all that project into it."""
    known = frame.points if frame.points is not None else None if points is None else points.points
    if known is None or len(known) == 0:
        return []
    x, y, z = frame.camera.project(known[:: 1 + len(known) // 10_000].float()).unbind(-1)
    inside = (z > 0) & (x >= 0) & (x < frame.camera.width) & (y >= 0) & (y < frame.camera.height)
    measured = depth[y[inside].long(), x[inside].long()]
    ratios: list[float] = (measured / z[inside])[measured > 0].tolist()
    return ratios


def _center(frames: Sequence[Frame]) -> Tensor | None:
    """Return the point that the cameras face, if there is one."""
    positions = torch.stack([frame.camera.position for frame in frames]).double()
    axes = torch.stack([frame.camera.camera_from_world[2, :3] for frame in frames]).double()
    center = convergence_point(positions, axes)
    return None if center is None else center.float()
