"""Initial poses by template matching: views of the model from all directions against rotated copies of the photo.

Silhouettes are normalized to the same center and area, which leaves three of the six degrees of freedom: the view
direction and the in-plane rotation. The overlap of all views with all rotations of the photo is one matrix product.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize, pad

from unrender.geometry.camera import Camera, rigid
from unrender.geometry.rotations import so3_exp_map
from unrender.render.fragments import hits, rasterize
from unrender.tasks.pose.levenberg_marquardt import move, select_distinct
from unrender.tasks.pose.object_model import Model, albedo, cameras_at
from unrender.tasks.pose.photo_alignment import Window

NUM_ROTATIONS = 48
"""In-plane rotations of the photo."""
VIEW_SIZE = 48
"""Pixels per side of a rendered view before normalization."""
PATCH_SIZE = 32
PATCH_EXTENT = 1.25
"""Half the side of a normalized patch, in square roots of the silhouette's area."""
COLOR_WEIGHT = 0.5
"""Weight of the color correlation relative to the IoU."""
TRUNCATION_SCALES = (1.0, 1.2, 1.5, 2.0)
"""Assumed sizes of an object truncated by the image border, relative to its visible part."""
MIN_VIEW_DISTANCE = 1.2
"""Minimum distance of the rendered views, in radii."""
MIN_START_ANGLE = math.radians(14)
"""Minimum rotation between initial poses."""


def sphere_directions(num: int) -> Tensor:
    """Create uniformly distributed unit vectors, on a Fibonacci spiral (Swinbank and Purser 2006)."""
    index = torch.arange(num) + 0.5
    z = 1 - 2 * index / num
    radius, angle = (1 - z * z).sqrt(), index * (math.pi * (3 - 5**0.5))
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], 1)


class Templates(NamedTuple):
    """Views of a model from all directions, normalized to the same center and area."""

    rotations: Tensor
    """[views, 3, 3]: from the model's frame to the camera's."""
    coverage: Tensor
    """[views, patch]: flattened patches."""
    signatures: Tensor | None
    """[views, 3 patch]: descriptors of the colors; None without colors."""
    area: Tensor
    """[views]: of the silhouettes, in pixels of the views."""
    center: Tensor
    """[views, 2]: centers of mass of the silhouettes."""
    distance: float
    """At which the views are rendered, in radii,"""
    focal: float
    """with this focal length, in pixels."""

    @property
    def mean_area(self) -> float:
        """Mean area of the silhouettes at a distance of one radius, for a focal length of 1."""
        return float(self.area.mean()) * (self.distance / self.focal) ** 2


def render_templates(model: Model, num_views: int, distance: float, like: Tensor) -> Templates:
    """Render a model from all directions at a distance in radii, on the device and in the type of `like`."""
    distance = max(distance, MIN_VIEW_DISTANCE)
    rotations = _view_rotations(sphere_directions(num_views).to(like))
    images, focal = _render_views(model, rotations, distance)
    area, center = _moments(images[:, 0])
    patches = _patches(images, center, area.sqrt(), area.new_zeros(len(rotations)))
    signatures = _signature(patches) if patches.shape[1] > 1 else None
    return Templates(rotations, patches[:, 0].flatten(1), signatures, area, center, distance, focal)


def search_views(model: Model, window: Window, num_views: int, num_starts: int) -> Tensor:
    """Find distinct poses [starts, 4, 4] whose views match the photo, the most similar first."""
    distance = expected_distance(model, window)
    return match_templates(render_templates(model, num_views, distance, window.coverage), window, num_starts)


def match_templates(templates: Templates, window: Window, num_starts: int) -> Tensor:
    """Find distinct poses [starts, 4, 4] whose templates match the photo, the most similar first."""
    area, center = _moments(window.coverage[None])
    focal = float(window.camera.focal.mean())
    hypotheses = _silhouette_hypotheses(window, center[0], float(area) ** 0.5)
    rotated = _patches(_photo_channels(window), *hypotheses)
    scores = _similarity(templates, rotated)
    best = scores.flatten().argsort(descending=True)[: 100 * num_starts]
    view, hypothesis = best // len(rotated), best % len(rotated)
    # convert from the normalized center and area back to pixels of the window
    patch_center, extent, angle = (values[hypothesis] for values in hypotheses)
    scale, spin = extent / templates.area[view].sqrt(), _rotations_about_z(angle)
    offset = (VIEW_SIZE / 2 - templates.center[view]) * scale[:, None]
    pixel = patch_center + (spin[:, :2, :2] @ offset[..., None])[..., 0]
    ray = torch.cat([(pixel - window.camera.center) / window.camera.focal, scale.new_ones(len(best), 1)], 1)
    depth = templates.distance * focal / templates.focal / scale
    poses = rigid(_rotations_to_rays(ray) @ spin @ templates.rotations[view], ray * depth[:, None])
    return poses[select_distinct(poses, MIN_START_ANGLE, num_starts)]


def _photo_channels(window: Window) -> Tensor:
    """Stack coverage, premultiplied colors and the mask of unknown pixels: [1, 5, size, size]."""
    colors = (window.coverage[..., None] * window.color).movedim(-1, 0)
    return torch.cat([window.coverage[None], colors, 1 - window.known[None]])[None]


def _silhouette_hypotheses(window: Window, center: Tensor, extent: float) -> tuple[Tensor, Tensor, Tensor]:
    """List hypotheses for the full silhouette in the photo: center, square root of the area, and rotation.

    For an object truncated by the image border, larger silhouettes are tried as well, shifted outwards.
    """
    outward = _truncation_direction(window)
    scales = TRUNCATION_SCALES if bool(outward.any()) else (1.0,)
    centers = torch.stack([center + outward * (scale - 1) * extent for scale in scales])
    angles = torch.arange(NUM_ROTATIONS, device=center.device) * (2 * math.pi / NUM_ROTATIONS)
    extents = extent * center.new_tensor(scales)
    return (
        centers.repeat_interleave(NUM_ROTATIONS, 0),
        extents.repeat_interleave(NUM_ROTATIONS),
        angles.repeat(len(scales)),
    )


def _truncation_direction(window: Window) -> Tensor:
    """Return the direction in which the object extends beyond the image; zero if it is not truncated."""
    beyond = pad(1 - window.known, [1] * 4)
    left, right, top, bottom = beyond[1:-1, :-2], beyond[1:-1, 2:], beyond[:-2, 1:-1], beyond[2:, 1:-1]
    cut = (window.coverage > 0.5) * window.known
    out = torch.stack([(cut * (right - left)).sum(), (cut * (bottom - top)).sum()])
    return normalize(out, dim=0) if float(out.norm()) >= 2 else torch.zeros_like(out)


def _similarity(templates: Templates, photos: Tensor) -> Tensor:
    """Compute the similarity of all templates and photos: IoU plus weighted color correlation."""
    known = 1 - photos[:, -1]
    a, b = templates.coverage, (photos[:, 0] * known).flatten(1)
    intersection = a @ b.mT
    scores = intersection / (a @ known.flatten(1).mT + b.sum(1) - intersection)
    if templates.signatures is not None:
        scores = scores + COLOR_WEIGHT * (templates.signatures @ _signature(photos[:, :-1]).mT)
    return scores


def _view_rotations(directions: Tensor) -> Tensor:
    pose = Camera.look_at(3 * directions, height=1, width=1).camera_from_world
    return pose[:, :3, :3]


def _rotations_about_z(angles: Tensor) -> Tensor:
    return so3_exp_map(torch.stack([torch.zeros_like(angles)] * 2 + [angles], -1))


def _rotations_to_rays(rays: Tensor) -> Tensor:
    """Return the smallest rotations from the optical axis to rays."""
    ray = normalize(rays, dim=-1)
    axis = torch.stack([-ray[:, 1], ray[:, 0], torch.zeros_like(ray[:, 0])], 1)
    sine = axis.norm(dim=1, keepdim=True)
    angle = torch.atan2(sine, ray[:, 2:])
    return so3_exp_map(torch.where(sine > 0, axis / sine * angle, 0))


def expected_distance(model: Model, window: Window) -> float:
    """Estimate the distance, in radii, at which the model appears as large as the object in the photo, on average."""
    far = 20.0
    images, focal = _render_views(model, _view_rotations(sphere_directions(40).to(window.coverage)), far)
    area = float(images[:, 0].sum((1, 2)).mean()) * (far / focal) ** 2
    return float(window.camera.focal.mean()) * math.sqrt(area / float(window.area))


def _render_views(model: Model, views: Tensor, distance: float) -> tuple[Tensor, float]:
    """Render views of a model; return coverage and colors [views, 4, size, size], and the focal length."""
    focal = VIEW_SIZE / 2 * 0.95 * math.sqrt(distance**2 - 1)
    center = views.new_tensor([VIEW_SIZE / 2] * 2)
    pose = torch.eye(4, device=views.device)
    camera = Camera(views.new_tensor([focal] * 2), center, pose, VIEW_SIZE, VIEW_SIZE)
    poses = rigid(views, views.new_tensor([0.0, 0.0, distance]).expand(len(views), 3))
    fragments = rasterize(model.mesh, cameras_at(camera, poses))
    covered = (fragments.face_ids[..., 0] >= 0).float()
    if not model.has_colors:
        return covered[:, None], focal
    rows = hits(fragments)
    colors = rows.scatter(albedo(model, rows))[..., 0, :].movedim(-1, 1)
    return torch.cat([covered[:, None], colors], 1), focal


def _moments(coverage: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas of silhouettes, and their centers of mass."""
    area = coverage.sum((1, 2)).clamp(min=1e-6)
    positions = torch.arange(coverage.shape[-1], device=coverage.device) + 0.5
    return area, torch.stack([coverage.sum(1) @ positions, coverage.sum(2) @ positions], 1) / area[:, None]


def _patches(images: Tensor, center: Tensor, extent: Tensor, angles: Tensor) -> Tensor:
    """Sample normalized patches of images: centered, rotated by angles, with half-width `PATCH_EXTENT` · extent."""
    positions = ((torch.arange(PATCH_SIZE, device=center.device) + 0.5) * (2 / PATCH_SIZE) - 1) * PATCH_EXTENT
    grid = torch.stack(torch.meshgrid(positions, positions, indexing="xy"), -1)
    turned = (_rotations_about_z(angles)[:, None, None, :2, :2] @ grid[..., None])[..., 0]
    grid = (center[:, None, None] + extent[:, None, None, None] * turned) * (2 / images.shape[-1]) - 1
    return grid_sample(images.expand(len(grid), -1, -1, -1), grid, align_corners=False)


def _signature(patches: Tensor) -> Tensor:
    """Compute a color descriptor that is invariant to brightness and tint: mean-free logarithms of unit length."""
    coverage = patches[:, :1]
    inside = (coverage > 0.5).float()
    logarithm = torch.log(patches[:, 1:] / coverage.clamp(min=0.5) + 0.05) * inside
    count = inside.sum((2, 3), keepdim=True).clamp(min=1)
    centered = (logarithm - logarithm.sum((2, 3), keepdim=True) / count) * inside
    length = centered.square().sum((1, 2, 3), keepdim=True).sqrt()
    return (centered / (length + 0.05 * count.sqrt())).flatten(1)


def perturb_pose(pose: Tensor, num_starts: int) -> Tensor:
    """Create poses around a guess: the guess itself, then rotations by 12° and 25° about axes in all directions."""
    num = (num_starts - 1) // 2
    axes = sphere_directions(max(num, 1))[:num].to(pose)
    twists = torch.cat([axes * math.radians(12), axes * math.radians(25)])
    turned = move(pose.expand(len(twists), 4, 4), torch.cat([twists, torch.zeros_like(twists)], 1))
    return torch.cat([pose, turned])
