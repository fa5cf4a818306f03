"""Plots of the cameras of a scene."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unrender.data.scenes import Scene
from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import least_axis
from unrender.tasks.scene.inspect_scene import camera_axes, camera_positions

SPLIT_COLORS = {"train": "#2a5d9c", "val": "#7a9a2a", "test": "#c4652a"}
FRUSTUM = 0.06
"""Length of a drawn frustum, as a fraction of the extent of the cameras."""
MAX_POINTS = 3000
COMMON_UP = 0.8
"""Length of the mean up vector of the cameras from which on it is used as the up axis."""
Array = NDArray[Any]


def draw_cameras(scene: Scene) -> str:
    """Plot cameras, 3D points and bounds from above and from the side; return an SVG."""
    from matplotlib.figure import Figure
    from scipy.spatial import ConvexHull

    cameras = [frame.camera for frame in scene.frames]
    positions = camera_positions(cameras).numpy()
    basis = _upright(cameras)
    size = float(np.linalg.norm(np.ptp(positions, axis=0))) or 1.0
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for axes, (title, across, along) in zip(
        figure.subplots(1, 2), [("from above", 0, 1), ("from the side", 0, 2)], strict=True
    ):
        corners = (_corners(scene.bounds.double().numpy()) @ basis.T)[:, [across, along]]
        outline = corners[ConvexHull(corners).vertices]
        axes.fill(outline[:, 0], outline[:, 1], color="#f1efe6", label="bounds")
        points = _points_within(scene) @ basis.T
        axes.plot(points[:, across], points[:, along], ".", color="#999999", markersize=1.5)
        for name, color in SPLIT_COLORS.items():
            chosen = [frame.camera for frame in scene.frames if frame.split == name]
            lines = [line @ basis.T for camera in chosen for line in _frustum(camera, FRUSTUM * size)]
            if lines:
                joined = np.concatenate([np.vstack([line, np.full((1, 3), np.nan)]) for line in lines])
                axes.plot(joined[:, across], joined[:, along], color=color, linewidth=0.7, label=name)
        axes.set_title(title, fontsize=9)
        axes.set_aspect("equal")
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, loc="upper right", framealpha=0.6)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def _points_within(scene: Scene) -> Array:
    """Return a subset of the 3D points within the bounds."""
    if scene.points is None:
        return np.zeros((0, 3))
    points = scene.points.points
    low, high = scene.bounds
    inside = points[((points >= low) & (points <= high)).all(-1)]
    return inside[:: 1 + len(inside) // MAX_POINTS].double().numpy()


def _upright(cameras: Sequence[Camera]) -> Array:
    """Return three axes as rows, the last one up.

    Up is the mean up vector of the cameras or, if they are rotated differently, the normal of the plane they lie in.
    """
    up = -camera_axes(cameras, 1).mean(0)
    if float(up.norm()) < COMMON_UP:
        positions = camera_positions(cameras)
        plane = torch.linalg.svd(positions - positions.mean(0), full_matrices=True).Vh
        up = plane[2] * (1.0 if float(plane[2] @ up) >= 0 else -1.0)
    up = up / up.norm()
    aside = torch.linalg.cross(up, least_axis(up))
    aside = aside / aside.norm()
    return torch.stack([aside, torch.linalg.cross(up, aside), up]).numpy()


def _frustum(camera: Camera, length: float) -> list[Array]:
    """Return the lines of a frustum: the image rectangle at a depth, and the edges to its corners."""
    size = camera.focal.new_tensor([camera.width, camera.height])
    signs = camera.focal.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    flat = signs * (size / 2 / camera.focal).clamp(max=2.0)
    corners_camera = torch.cat([flat, torch.ones(4, 1).to(flat)], -1) * length
    world = camera.world_from_camera
    corners = (corners_camera @ world[:3, :3].T + world[:3, 3]).double().numpy()
    eye = world[:3, 3].double().numpy()
    return [np.concatenate([corners, corners[:1]]), *(np.stack([eye, corner]) for corner in corners)]


def _corners(bounds: Array) -> Array:
    return np.array(
        [[bounds[i, 0], bounds[j, 1], bounds[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    )
