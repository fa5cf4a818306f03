"""Candidate poses of a lost object: regions of a frame with its colors, with its last rotation and from view search."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import label, zoom

from unrender.geometry.camera import Camera
from unrender.tasks.pose.color_regions import (
    Array,
    Histograms,
    color_bins,
    count_colors,
    foreground_probability,
)
from unrender.tasks.pose.normal_equations import rotation_from_vector
from unrender.tasks.pose.object_model import Model, albedo, simplify_for_resolution
from unrender.tasks.pose.photo_alignment import Window
from unrender.tasks.pose.tracking_window import FrameWindow, box_blur, render_view
from unrender.tasks.pose.view_search import Templates, match_templates, render_templates

FRAME_SIZE = 240
"""Longer side, in pixels, of the frame in which regions are searched for."""
MIN_PROBABILITY = 0.6
MIN_AREA = 0.15
"""Minimum area of a region relative to the object's, when it was last tracked."""
MAX_REGIONS = 3
WINDOW_SIZE = 64
WINDOW_MARGIN = 2.2
VIEW_SIZE, VIEW_DISTANCE = 64, 3.0
"""Size in pixels, and distance in radii, of the views from which the colors of a model are taken."""
BRIGHTNESS = (0.4, 0.6, 0.8, 1.0)
"""Those colors are unlit; in a frame they are darker."""
MAX_FIRST = 4
"""Maximum number of poses at which an object that was never visible is searched for in one frame."""
NUM_VIEWS, NUM_STARTS, STARTS_PER_FRAME = 300, 12, 3
"""Poses from view search, of which a few are tried in each frame."""
MIN_COMPONENT = 0.25
"""Smallest area of a connected part of the object relative to the largest: smaller ones are clutter."""
Pose = NDArray[np.float64]


class Region(NamedTuple):
    """A region of a frame with the colors of the object, in pixels of the frame."""

    center: Array
    side: float
    area: float


def object_templates(model: Model, distance: float) -> Templates:
    """Render the views of a model with which it is searched for in a frame."""
    simplified = simplify_for_resolution(model, WINDOW_SIZE)
    return render_templates(simplified, NUM_VIEWS, distance, model.mesh.vertices)


def candidate_poses(
    templates: Templates,
    camera: Camera,
    histograms: Histograms,
    last: Pose,
    image: NDArray[np.uint8],
    num_lost: int,
) -> list[Pose]:
    """List poses from which to search for a lost object, `num_lost` frames after it was lost.

    `last` is the last reliable pose.
    """
    step = max(1, max(image.shape[:2]) // FRAME_SIZE)
    small = image[::step, ::step].astype(np.float32) / np.float32(255)
    probability = box_blur(_probability(small, histograms), 1)
    area = templates.mean_area * float(camera.focal.mean() / last[2, 3] / step) ** 2
    regions = _find_regions(probability, area, step)
    around = [*regions, *_last_region(last, camera, area, step)]
    if not around:
        return [last]
    # the most probable region in every other frame
    turn, is_other = divmod(num_lost, 2)
    region = around[turn % len(around) if is_other else 0]
    poses = [last, _moved_to(last, region, camera, area * step**2)]
    window = _window(small, probability, camera, region, step)
    if bool(window.coverage.any()):
        found = match_templates(templates, window, NUM_STARTS)
        first = turn * STARTS_PER_FRAME % NUM_STARTS
        poses[:0] = list(found[first : first + STARTS_PER_FRAME].double().numpy())
    return poses


def _probability(image: Array, histograms: Histograms) -> Array:
    """Return the foreground probability in a whole frame, whose colors are the background's, but for the object."""
    bins = color_bins(image, histograms.is_gray)
    everywhere = np.ones(bins.shape, np.bool_)
    frame = count_colors(bins, ~everywhere, everywhere, histograms.is_gray).background
    background = np.maximum(histograms.background, frame)
    return foreground_probability(histograms._replace(background=background), bins)


def first_poses(
    model: Model,
    templates: Templates,
    camera: Camera,
    initial: Pose,
    image: NDArray[np.uint8],
    is_gray: bool,
) -> list[Pose]:
    """List poses at which an object that was never visible may be, by the colors of the model."""
    step = max(1, max(image.shape[:2]) // FRAME_SIZE)
    frame = color_bins(image[::step, ::step].astype(np.float32) / np.float32(255), is_gray)
    colors = _model_colors(model)
    lit = np.concatenate([brightness * colors for brightness in BRIGHTNESS])
    bins = np.concatenate([color_bins(lit, is_gray), frame.ravel()])
    is_model = np.arange(len(bins)) < len(lit)
    histograms = count_colors(bins, is_model, ~is_model, is_gray)
    found = candidate_poses(templates, camera, histograms, initial, image, 0)
    return [pose for pose in found if pose is not initial][:MAX_FIRST]


def _model_colors(model: Model) -> Array:
    """Return colors of the model from all sides."""
    focal, center = np.full(2, VIEW_SIZE, np.float32), np.full(2, VIEW_SIZE / 2, np.float32)
    window = FrameWindow(focal, center, np.zeros((VIEW_SIZE, VIEW_SIZE, 3), np.float32), None)
    colors = list[Array]()
    for axis in np.concatenate([np.eye(3), -np.eye(3)]):
        pose = np.eye(4)
        pose[:3, :3], pose[2, 3] = rotation_from_vector(axis * np.pi / 2), VIEW_DISTANCE
        colors.append(albedo(model, render_view(model, window, pose).fragments).numpy())
    return np.concatenate(colors)


def _last_region(last: Pose, camera: Camera, area: float, step: int) -> list[Region]:
    """Return the surroundings of the last pose, if they are in the frame: the object may only be hidden."""
    focal, center = camera.focal.numpy(), camera.center.numpy()
    pixel = (last[:2, 3] / max(float(last[2, 3]), 1e-3) * focal + center).astype(np.float32)
    if not (0 <= pixel[0] < camera.width and 0 <= pixel[1] < camera.height):
        return []
    return [Region(pixel, 2.4 * area**0.5 * step, area * step**2)]


def _find_regions(probability: Array, area: float, step: int) -> list[Region]:
    """Find squares of the object's area with its colors, in surroundings without them."""
    radius = max(2, round(0.6 * area**0.5))
    response = box_blur(probability, radius) - 0.5 * box_blur(probability, 2 * radius)
    found = list[Region]()
    for _ in range(MAX_REGIONS):
        row, column = (int(k) for k in np.unravel_index(int(response.argmax()), response.shape))
        rows, columns = (slice(max(0, k - radius), k + radius + 1) for k in (row, column))
        inside = probability[rows, columns] > MIN_PROBABILITY
        if inside.sum() < MIN_AREA * area:
            break
        y, x = inside.nonzero()
        center = np.array([x.mean() + columns.start + 0.5, y.mean() + rows.start + 0.5]) * step
        found.append(Region(center.astype(np.float32), 2.0 * radius * step, float(inside.sum()) * step**2))
        rows, columns = (slice(max(0, k - 2 * radius), k + 2 * radius + 1) for k in (row, column))
        response[rows, columns] = -1
    return found


def _moved_to(last: Pose, region: Region, camera: Camera, area: float) -> Pose:
    """Move the last pose to a region, with the same view of the object and a distance that matches the area."""
    depth = last[2, 3] * np.clip(np.sqrt(area / region.area), 0.6, 1.7)
    flat = (region.center - camera.center.numpy()) / camera.focal.numpy()
    translation = np.array([flat[0], flat[1], 1.0]) * depth
    before, after = (v / np.linalg.norm(v) for v in (last[:3, 3], translation))
    axis = np.cross(before, after)
    angle = np.arctan2(np.linalg.norm(axis), before @ after)
    pose = last.copy()
    turn = rotation_from_vector(axis / max(float(np.linalg.norm(axis)), 1e-12) * angle)
    pose[:3, :3], pose[:3, 3] = turn @ last[:3, :3], translation
    return pose


def _window(color: Array, probability: Array, camera: Camera, region: Region, step: int) -> Window:
    """Resample the surroundings of a region, with its probability as coverage."""
    side = int(np.ceil(WINDOW_MARGIN * region.side / step)) + 4
    left, top = (round(float(c) / step - side / 2) for c in region.center)
    padding = [(max(0, -top), max(0, top + side - color.shape[0]))]
    padding.append((max(0, -left), max(0, left + side - color.shape[1])))
    rows, columns = (slice(max(0, low), max(0, low) + side) for low in (top, left))
    rows = slice(rows.start, top + side if top + side > 0 else 0)
    columns = slice(columns.start, left + side if left + side > 0 else 0)
    known = np.pad(np.ones_like(probability[rows, columns]), padding)
    cropped = np.pad(probability[rows, columns], padding)
    colors = np.pad(color[rows, columns], [*padding, (0, 0)])
    scale = WINDOW_SIZE / side
    coverage, known = (zoom(v, scale, order=1, grid_mode=True, mode="nearest") for v in (cropped, known))
    colors = zoom(colors, (scale, scale, 1), order=1, grid_mode=True, mode="nearest")
    center = (camera.center / step - torch.tensor([float(left), float(top)])) * scale
    window_camera = Camera(camera.focal * (scale / step), center, torch.eye(4), WINDOW_SIZE, WINDOW_SIZE)
    return Window(
        window_camera,
        torch.from_numpy(_without_clutter(coverage > MIN_PROBABILITY).astype(np.float32)),
        torch.from_numpy((known > 0.99).astype(np.float32)),
        torch.from_numpy(colors.astype(np.float32)),
        None,
    )


def _without_clutter(covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the large connected parts of a mask."""
    parts, _ = label(covered)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes >= max(MIN_COMPONENT * sizes.max(), 1))[parts]
    return kept
