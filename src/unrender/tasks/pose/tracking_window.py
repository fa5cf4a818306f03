"""The part of a video frame around the object, and the model rendered into it."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.render.fragments import Hits, hits, rasterize
from unrender.tasks.pose.color_regions import Array
from unrender.tasks.pose.object_model import Model, albedo

MARGIN = 0.35
"""Margin around the object's bounding box, relative to its longer side,"""
MIN_MARGIN = 24
"""and at least, in pixels."""
MIN_SIDE = 4
NUM_POINTS = 200
"""Maximum number of points on the contour."""
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


class FrameWindow(NamedTuple):
    """A crop of a frame, subsampled so that the object is not larger than a given resolution."""

    focal: Array
    center: Array
    color: Array
    """[height, width, 3] in [0, 1]."""
    depth: Array | None
    """[height, width] in radii; 0 where unknown."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.color.shape[0], self.color.shape[1]

    @property
    def gray(self) -> Array:
        """[height, width]: luminance."""
        gray: Array = self.color @ LUMINANCE
        return gray


class ModelView(NamedTuple):
    """The model rendered into a window."""

    mask: NDArray[np.bool_]
    depth: Array
    """Depth in radii; 0 outside."""
    fragments: Hits


def crop_frame(
    image: NDArray[np.uint8],
    depth: Array | None,
    camera: Camera,
    box: tuple[float, float, float, float],
    resolution: int,
) -> FrameWindow | None:
    """Crop a frame around a box (left, top, right, bottom in pixels); None if it lies outside of the image."""
    height, width = image.shape[:2]
    side = max(box[2] - box[0], box[3] - box[1])
    margin = max(MARGIN * side, MIN_MARGIN)
    left, top = max(0, int(box[0] - margin)), max(0, int(box[1] - margin))
    right, bottom = min(width, int(box[2] + margin) + 1), min(height, int(box[3] + margin) + 1)
    factor = max(1, int(np.ceil(side / resolution - 0.25)))
    rows, columns = (bottom - top) // factor, (right - left) // factor
    if rows < MIN_SIDE or columns < MIN_SIDE:
        return None
    part = (slice(top, top + rows * factor), slice(left, left + columns * factor))
    color = image[part].astype(np.float32)
    if factor > 1:
        color = color.reshape(rows, factor, columns, factor, 3).mean((1, 3))
    middle = factor // 2
    cropped_depth = None if depth is None else depth[part][middle::factor, middle::factor]
    center = (camera.center.numpy() - np.array([left, top])) / factor
    return FrameWindow(
        (camera.focal.numpy() / factor).astype(np.float32),
        center.astype(np.float32),
        color / np.float32(255),
        cropped_depth,
    )


def projected_box(
    vertices: Array, pose: NDArray[np.float64], camera: Camera
) -> tuple[float, float, float, float] | None:
    """Return the bounding box of the projected vertices in pixels; None if some are behind the camera."""
    points = vertices @ pose[:3, :3].T + pose[:3, 3]
    if points[:, 2].min() < 1e-2:
        return None
    xy = points[:, :2] / points[:, 2:] * camera.focal.numpy() + camera.center.numpy()
    (left, top), (right, bottom) = xy.min(0).tolist(), xy.max(0).tolist()
    return left, top, right, bottom


def render_view(model: Model, window: FrameWindow, pose: NDArray[np.float64]) -> ModelView:
    """Render the mask and the depth of the model."""
    height, width = window.shape
    camera = Camera(
        torch.from_numpy(window.focal),
        torch.from_numpy(window.center),
        torch.from_numpy(pose).float(),
        height,
        width,
    )
    fragments = rasterize(model.mesh, camera)
    depth = fragments.depth[..., 0].numpy()
    return ModelView(depth > 0, depth, hits(fragments))


def render_luminance(model: Model, view: ModelView) -> Array:
    """Render the unlit luminance of the model; 0 outside."""
    colors = view.fragments.scatter(albedo(model, view.fragments))[..., 0, :]
    image: Array = colors.numpy() @ LUMINANCE
    return image


class Contour(NamedTuple):
    """Points on the occluding contour of the model."""

    centers: Array
    """[points, 2] in pixels."""
    normals: Array
    """[points, 2]: outward unit normals."""
    depths: Array
    """Depth of the surface at the contour."""


def find_contour(view: ModelView) -> Contour:
    """Find the contour between pixels of the mask and their neighbors, with subpixel normals."""
    mask = view.mask
    smooth = box_blur(box_blur(mask.astype(np.float32), 2), 2)
    rows, columns, x, y = (np.concatenate(parts) for parts in zip(*_boundary_pairs(mask), strict=True))
    if len(rows) > NUM_POINTS:
        chosen = np.linspace(0, len(rows) - 1, NUM_POINTS).astype(np.int64)
        rows, columns, x, y = rows[chosen], columns[chosen], x[chosen], y[chosen]
    normals = -_gradients_at(smooth, rows, columns)
    length = np.sqrt((normals**2).sum(1, keepdims=True))
    keep = length[:, 0] > 1e-3
    normals = (normals / np.maximum(length, 1e-6)).astype(np.float32)
    centers = np.stack([x, y], 1).astype(np.float32)
    return Contour(centers[keep], normals[keep], view.depth[rows, columns][keep])


def _gradients_at(image: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
    """Return the derivatives along x and y at some pixels: [pixels, 2]."""
    height, width = image.shape
    right, left = np.minimum(columns + 1, width - 1), np.maximum(columns - 1, 0)
    below, above = np.minimum(rows + 1, height - 1), np.maximum(rows - 1, 0)
    along_x = (image[rows, right] - image[rows, left]) / (right - left)
    along_y = (image[below, columns] - image[above, columns]) / (below - above)
    return np.stack([along_x, along_y], 1).astype(np.float32)


def _boundary_pairs(
    mask: NDArray[np.bool_],
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]]:
    """Return pixels of the mask with a neighbor outside, and the point halfway, for the four directions."""
    found = []
    for axis in (0, 1):
        first = mask[:-1] if axis == 0 else mask[:, :-1]
        second = mask[1:] if axis == 0 else mask[:, 1:]
        for inner_is_first in (True, False):
            edge = (first & ~second) if inner_is_first else (second & ~first)
            rows, columns = edge.nonzero()
            x = columns + (1.0 if axis == 1 else 0.5)
            y = rows + (1.0 if axis == 0 else 0.5)
            if not inner_is_first:
                rows, columns = rows + (axis == 0), columns + (axis == 1)
            found.append((rows, columns, x.astype(np.float32), y.astype(np.float32)))
    return found


def box_blur(image: Array, radius: int) -> Array:
    """Average over squares of side 2 radius + 1, where the border repeats."""
    blurred: Array = uniform_filter(image, 2 * radius + 1, mode="nearest")
    return blurred


def image_gradients(image: Array) -> tuple[Array, Array]:
    """Return the derivatives along columns (y) and rows (x)."""
    along_y, along_x = (np.asarray(np.gradient(image, axis=axis), np.float32) for axis in (0, 1))
    return along_y, along_x


def unproject(window: FrameWindow, xy: Array, depth: Array) -> Array:
    """Return the points in the camera frame, in radii, of pixels with depths."""
    flat = (xy - window.center) / window.focal
    return np.concatenate([flat * depth[:, None], depth[:, None]], 1).astype(np.float32)


def tensor_pose(pose: NDArray[np.float64]) -> Tensor:
    """Return a pose as a tensor."""
    return torch.from_numpy(pose.copy())
