"""Poses to start from: how a model looks from all around, laid over the photo at all turns at once.

Silhouettes are brought to the same centre and area first, which leaves three numbers of the six: from where one looks
and the turn in the image. Then the overlap of all views with all turns of the photo is one matrix product.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize, pad

from unrender.geometry.camera import Camera, rigid
from unrender.geometry.rotations import so3_exp_map
from unrender.render.fragments import hits, rasterize
from unrender.tasks.pose.descent import keep_apart, move
from unrender.tasks.pose.model import Model, albedo, cameras_at
from unrender.tasks.pose.photo import Window

NUM_TURNS = 48
VIEW_SIZE = 48
"""Pixels of a view before it is brought to the common area."""
PATCH_SIZE = 32
REACH = 1.25
"""Half the side of a patch, in square roots of the silhouette's area."""
COLOR_WEIGHT = 0.5
"""Of the correlation of colors, beside intersection over union."""
GROWTHS = (1.0, 1.2, 1.5, 2.0)
"""How many times wider than its visible part an object that is cut by the frame may be."""
CLOSEST = 1.2
"""Radii from which views are drawn, at least."""
STARTS_APART = math.radians(14)
"""Starts are at least that far from each other."""


def directions_around(num: int) -> Tensor:
    """Spread unit vectors evenly over the sphere, on a spiral (Swinbank and Purser 2006)."""
    index = torch.arange(num) + 0.5
    z = 1 - 2 * index / num
    radius, angle = (1 - z * z).sqrt(), index * (math.pi * (3 - 5**0.5))
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], 1)


def search(model: Model, window: Window, num_views: int, num_starts: int) -> Tensor:
    """Find poses [starts, 4, 4] that resemble the photo, the most similar first, far apart from each other."""
    views = _look_from(directions_around(num_views).to(window.coverage))
    area, center = _moments(window.coverage[None])
    focal = float(window.camera.focal.mean())
    distance = max(expected_distance(model, window), CLOSEST)
    pictures, view_focal = _draw(model, views, distance)
    view_area, view_center = _moments(pictures[:, 0])
    patches = _patches(pictures, view_center, view_area.sqrt(), view_area.new_zeros(len(views)))
    places = _places(window, center[0], float(area) ** 0.5)
    turned = _patches(_photo(window), *places)
    scores = _similarity(patches, turned)
    best = scores.flatten().argsort(descending=True)[: 100 * num_starts]
    view, place = best // len(turned), best % len(turned)
    # back from the common centre and area to pixels of the window
    middle, unit, angle = (values[place] for values in places)
    scale, spin = unit / view_area[view].sqrt(), _about_z(angle)
    offset = (VIEW_SIZE / 2 - view_center[view]) * scale[:, None]
    pixel = middle + (spin[:, :2, :2] @ offset[..., None])[..., 0]
    ray = torch.cat([(pixel - window.camera.center) / window.camera.focal, scale.new_ones(len(best), 1)], 1)
    depth = distance * focal / view_focal / scale
    poses = rigid(_towards(ray) @ spin @ views[view], ray * depth[:, None])
    return poses[keep_apart(poses, STARTS_APART, num_starts)]


def _photo(window: Window) -> Tensor:
    """Stack coverage, colors and what is beyond the frame: [1, 5, size, size]."""
    colors = (window.coverage[..., None] * window.color).movedim(-1, 0)
    return torch.cat([window.coverage[None], colors, 1 - window.known[None]])[None]


def _places(window: Window, center: Tensor, unit: float) -> tuple[Tensor, Tensor, Tensor]:
    """List where the whole silhouette may be in the photo: centre, square root of the area, and turn.

    An object that the frame cuts off reaches beyond it: then larger silhouettes are tried, farther out.
    """
    outward = _outward(window)
    growths = GROWTHS if bool(outward.any()) else (1.0,)
    centers = torch.stack([center + outward * (growth - 1) * unit for growth in growths])
    angles = torch.arange(NUM_TURNS, device=center.device) * (2 * math.pi / NUM_TURNS)
    units = unit * center.new_tensor(growths)
    return (
        centers.repeat_interleave(NUM_TURNS, 0),
        units.repeat_interleave(NUM_TURNS),
        angles.repeat(len(growths)),
    )


def _outward(window: Window) -> Tensor:
    """Return the direction in which the object leaves the frame; zero where it does not."""
    beyond = pad(1 - window.known, [1] * 4)
    left, right, top, bottom = beyond[1:-1, :-2], beyond[1:-1, 2:], beyond[:-2, 1:-1], beyond[2:, 1:-1]
    cut = (window.coverage > 0.5) * window.known
    out = torch.stack([(cut * (right - left)).sum(), (cut * (bottom - top)).sum()])
    return normalize(out, dim=0) if float(out.norm()) >= 2 else torch.zeros_like(out)


def _similarity(views: Tensor, photos: Tensor) -> Tensor:
    """Compare all views with all photos: intersection over union, and the correlation of colors."""
    known = 1 - photos[:, -1]
    a, b = views[:, 0].flatten(1), (photos[:, 0] * known).flatten(1)
    intersection = a @ b.mT
    scores = intersection / (a @ known.flatten(1).mT + b.sum(1) - intersection)
    if views.shape[1] > 1:
        scores = scores + COLOR_WEIGHT * (_signature(views) @ _signature(photos[:, :-1]).mT)
    return scores


def _look_from(directions: Tensor) -> Tensor:
    pose = Camera.look_at(3 * directions, height=1, width=1).camera_from_world
    return pose[:, :3, :3]


def _about_z(angles: Tensor) -> Tensor:
    return so3_exp_map(torch.stack([torch.zeros_like(angles)] * 2 + [angles], -1))


def _towards(rays: Tensor) -> Tensor:
    """Return the smallest rotations that take the optical axis to rays: along them, views look as they do along it."""
    ray = normalize(rays, dim=-1)
    axis = torch.stack([-ray[:, 1], ray[:, 0], torch.zeros_like(ray[:, 0])], 1)
    sine = axis.norm(dim=1, keepdim=True)
    angle = torch.atan2(sine, ray[:, 2:])
    return so3_exp_map(torch.where(sine > 0, axis / sine * angle, 0))


def expected_distance(model: Model, window: Window) -> float:
    """Return the distance, in radii, at which a model looks as large as the photo's object: on average over views."""
    far = 20.0
    pictures, focal = _draw(model, _look_from(directions_around(40).to(window.coverage)), far)
    area = float(pictures[:, 0].sum((1, 2)).mean()) * (far / focal) ** 2
    return float(window.camera.focal.mean()) * math.sqrt(area / float(window.coverage.sum()))


def _draw(model: Model, views: Tensor, distance: float) -> tuple[Tensor, float]:
    """See a model from around; return coverage and colors [views, 4, size, size], and the focal length."""
    focal = VIEW_SIZE / 2 * 0.95 * math.sqrt(distance**2 - 1)
    center = views.new_tensor([VIEW_SIZE / 2] * 2)
    pose = torch.eye(4, device=views.device)
    camera = Camera(views.new_tensor([focal] * 2), center, pose, VIEW_SIZE, VIEW_SIZE)
    poses = rigid(views, views.new_tensor([0.0, 0.0, distance]).expand(len(views), 3))
    seen = rasterize(model.mesh, cameras_at(camera, poses))
    covered = (seen.face_ids[..., 0] >= 0).float()
    if not model.has_colors:
        return covered[:, None], focal
    rows = hits(seen)
    colors = rows.scatter(albedo(model, rows))[..., 0, :].movedim(-1, 1)
    return torch.cat([covered[:, None], colors], 1), focal


def _moments(coverage: Tensor) -> tuple[Tensor, Tensor]:
    """Return the area of silhouettes, and their centres of mass."""
    area = coverage.sum((1, 2)).clamp(min=1e-6)
    places = torch.arange(coverage.shape[-1], device=coverage.device) + 0.5
    return area, torch.stack([coverage.sum(1) @ places, coverage.sum(2) @ places], 1) / area[:, None]


def _patches(pictures: Tensor, center: Tensor, unit: Tensor, angles: Tensor) -> Tensor:
    """Read pictures around a centre, at places turned by angles, as far as `REACH` units."""
    places = ((torch.arange(PATCH_SIZE, device=center.device) + 0.5) * (2 / PATCH_SIZE) - 1) * REACH
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1)
    turned = (_about_z(angles)[:, None, None, :2, :2] @ grid[..., None])[..., 0]
    grid = (center[:, None, None] + unit[:, None, None, None] * turned) * (2 / pictures.shape[-1]) - 1
    return grid_sample(pictures.expand(len(grid), -1, -1, -1), grid, align_corners=False)


def _signature(patches: Tensor) -> Tensor:
    """Return what remains of colors in any brightness and tint of light: logarithms less their mean, of length 1."""
    coverage = patches[:, :1]
    inside = (coverage > 0.5).float()
    logarithm = torch.log(patches[:, 1:] / coverage.clamp(min=0.5) + 0.05) * inside
    count = inside.sum((2, 3), keepdim=True).clamp(min=1)
    centered = (logarithm - logarithm.sum((2, 3), keepdim=True) / count) * inside
    length = centered.square().sum((1, 2, 3), keepdim=True).sqrt()
    return (centered / (length + 0.05 * count.sqrt())).flatten(1)


def search_near(pose: Tensor, num_starts: int) -> Tensor:
    """Spread poses around a guess: turned by 12° and 25° about axes all around, and the guess itself first."""
    num = (num_starts - 1) // 2
    axes = directions_around(max(num, 1))[:num].to(pose)
    twists = torch.cat([axes * math.radians(12), axes * math.radians(25)])
    turned = move(pose.expand(len(twists), 4, 4), torch.cat([twists, torch.zeros_like(twists)], 1))
    return torch.cat([pose, turned])
