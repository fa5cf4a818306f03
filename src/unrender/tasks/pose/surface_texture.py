"""Texture on the surface of a tracked object: points whose brightness relative to their surroundings is known.

References come from the model's colors and from keyframes of the video. They are aligned to a frame by Gauss-Newton
steps on the difference of locally normalized images (direct image alignment, Lucas and Kanade 1981), which tolerates
changes of lighting and exposure.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unrender.tasks.pose.color_regions import Array
from unrender.tasks.pose.tracking_window import FrameWindow, ModelView, box_blur, unproject

NUM_POINTS = 250
"""Maximum number of points of a reference."""
NORMALIZATION_RADIUS = 6
"""Radius in pixels within which brightness is normalized,"""
MIN_CONTRAST = 0.025
"""with at least this contrast, so that noise in plain regions is not amplified."""
MIN_GRADIENT = 0.06
"""Minimum change of normalized brightness per pixel at a point of a reference."""
MIN_POINTS = 30
CELL = 5
"""Points are the strongest ones in cells of this many pixels."""


class Reference(NamedTuple):
    """Points on the surface with their normalized brightness."""

    points: Array
    """[points, 3] in the model's frame."""
    values: Array
    """[points, 2]: fine and coarse."""
    direction: Array
    """Unit vector from the object to the camera, in the model's frame."""
    is_exact: bool = False
    """From the colors of the model, not from a keyframe."""


class Levels(NamedTuple):
    """Normalized images, fine and coarse, with their gradients: [2, height, width]."""

    value: Array
    gradient_x: Array
    gradient_y: Array


def normalized_levels(gray: Array, mask: NDArray[np.bool_] | None = None) -> Levels:
    """Normalize brightness locally, at two levels of blur; within a mask, the outside has the mean of the inside."""
    if mask is not None and mask.any():
        gray = np.where(mask, gray, gray[mask].mean()).astype(np.float32)
    mean = box_blur(gray, NORMALIZATION_RADIUS)
    variance = np.maximum(box_blur(gray * gray, NORMALIZATION_RADIUS) - mean * mean, 0)
    deviation: Array = np.sqrt(variance).astype(np.float32)
    fine = (box_blur(gray, 1) - mean) / (deviation + np.float32(MIN_CONTRAST))
    value: Array = np.stack([fine, box_blur(box_blur(fine, 2), 2)])
    gradient_x, gradient_y = np.zeros_like(value), np.zeros_like(value)
    gradient_x[:, :, 1:-1] = (value[:, :, 2:] - value[:, :, :-2]) / 2
    gradient_y[:, 1:-1] = (value[:, 2:] - value[:, :-2]) / 2
    return Levels(value, gradient_x, gradient_y)


def make_reference(
    levels: Levels, window: FrameWindow, view: ModelView, pose: NDArray[np.float64], border: int = 5
) -> Reference | None:
    """Choose the points with the largest gradients inside the object; None if it has too little texture."""
    inside = _eroded(view.mask, border)
    strength = np.hypot(levels.gradient_x[0], levels.gradient_y[0]) * inside
    rows, columns = (size // CELL for size in strength.shape)
    if min(rows, columns) < 1:
        return None
    cells = strength[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    cells = cells.transpose(0, 2, 1, 3).reshape(rows * columns, CELL * CELL)
    best = cells.argmax(1)
    peak = cells[np.arange(len(cells)), best]
    order = np.argsort(-peak, kind="stable")[:NUM_POINTS]
    order = order[peak[order] > MIN_GRADIENT]
    if len(order) < MIN_POINTS:
        return None
    row = order // columns * CELL + best[order] // CELL
    column = order % columns * CELL + best[order] % CELL
    xy = np.stack([column + 0.5, row + 0.5], 1).astype(np.float32)
    points = unproject(window, xy, view.depth[row, column])
    rotation, translation = pose[:3, :3], pose[:3, 3]
    return Reference(
        ((points - translation) @ rotation).astype(np.float32),
        np.ascontiguousarray(levels.value[:, row, column].T),
        viewing_direction(pose),
    )


def viewing_direction(pose: NDArray[np.float64]) -> Array:
    """Return the unit vector from the object to the camera, in the model's frame."""
    toward: NDArray[np.float64] = -pose[:3, :3].T @ pose[:3, 3]
    return (toward / np.linalg.norm(toward)).astype(np.float32)


def _eroded(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    return box_blur(mask.astype(np.float32), radius) > 0.999


def sample_bilinear(images: Array, x: Array, y: Array) -> Array:
    """Sample images [channels, height, width] at pixel positions: [channels, points]."""
    height, width = images.shape[1:]
    u, v = x - np.float32(0.5), y - np.float32(0.5)
    column = np.floor(u).astype(np.int32).clip(0, width - 2)
    row = np.floor(v).astype(np.int32).clip(0, height - 2)
    a, b = (u - column).clip(0, 1), (v - row).clip(0, 1)
    top = images[:, row, column] * (1 - a) + images[:, row, column + 1] * a
    bottom = images[:, row + 1, column] * (1 - a) + images[:, row + 1, column + 1] * a
    mixed: Array = top * (1 - b) + bottom * b
    return mixed
