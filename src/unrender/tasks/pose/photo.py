"""How well poses explain a photo: coverage, color in an unknown light, depth; and which way is down.

The light is solved for at every pose, so that nothing has to be known about it. Residuals are softened by a Gaussian,
and windows go from few pixels to many: that widens the valley in which a pose finds its way.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d, normalize

from unrender.data.photos import Photo
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import vertex_normals
from unrender.kernels._dispatch import can_ask
from unrender.kernels.align import normal_equations
from unrender.kernels.scatter_sum import scatter_sum
from unrender.render.fragments import Hits, hits, rasterize
from unrender.tasks.pose.descent import Fit
from unrender.tasks.pose.model import Model, albedo, cameras_at

COVERAGE_ERROR = 0.1
COLOR_ERROR = 0.03
DEPTH_ERROR = 0.03
"""What a residual of coverage, of color (at least), and of depth (in radii of the object) may be expected to be."""
TRUSTED = 3.0
"""Expected errors from which on a residual of color or depth counts less and less."""
LIGHT_SAMPLES = 2000
"""Pixels of a picture from which its light is found, at most."""
MARGIN = 1.5
"""Side of the window around an object, in sides of the smallest square that holds it."""
NEAREST = 0.2
"""Depth, in radii, that the middle of the object has at least."""


class Window(NamedTuple):
    """A square part of a photo around the object, on some number of pixels."""

    camera: Camera
    coverage: Tensor
    """[size, size]: share of the pixel that the object covers."""
    known: Tensor
    """[size, size]: 1 inside the photo, 0 beyond its frame."""
    color: Tensor
    """[size, size, 3]: of the object alone."""
    depth: Tensor | None
    """[size, size]: of the object alone, in its radii; 0 where it was not measured."""
    color_error: float = COLOR_ERROR

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return self.camera.width


def object_side(photo: Photo) -> int:
    """Return the side of the smallest square that holds the object, in pixels."""
    seen = photo.mask > 0.5
    return max(int(seen.any(axis).sum()) for axis in (0, 1))


def cut_window(photo: Photo, size: int, radius: float) -> Window:
    """Cut out the object and average its pixels down, or mix them up, to a size."""
    corner, side = square_around(photo.mask, MARGIN)
    samples = max(1, math.ceil(side / size))
    device = photo.mask.device
    places = (torch.arange(size * samples, device=device) + 0.5) * (side / (size * samples))
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1) + corner
    layers, offset = _layers(photo, corner, side, radius)
    part = torch.tensor([layers.shape[2], layers.shape[1]], device=device)
    sampled = grid_sample(layers[None], ((grid - offset) / part * 2 - 1)[None], align_corners=False)
    coverage, measured, depth, *color = avg_pool2d(sampled, samples)[0]
    extent = torch.tensor([photo.camera.width, photo.camera.height], device=device)
    inside = ((grid >= 0) & (grid <= extent)).all(-1).float()
    focal, center = photo.camera.focal * (size / side), (photo.camera.center - corner) * (size / side)
    return Window(
        Camera(focal, center, torch.eye(4, device=device), size, size),
        coverage,
        (avg_pool2d(inside[None], samples)[0] > 0.99).float(),
        torch.stack(color, -1) / coverage.clamp(min=1e-3)[..., None],
        None if photo.depth is None else torch.where(measured > 0.5, depth / measured.clamp(min=0.5), 0),
    )


def square_around(mask: Tensor, margin: float) -> tuple[Tensor, float]:
    """Return the upper left corner (x, y) and the side of a square `margin` times as wide as what a mask shows."""
    rows, columns = ((mask > 0.5).any(axis).nonzero()[:, 0] for axis in (1, 0))
    low, high = torch.stack([columns[0], rows[0]]), torch.stack([columns[-1], rows[-1]]) + 1
    side = margin * float((high - low).max())
    return (low + high) / 2 - side / 2, side


def _layers(photo: Photo, corner: Tensor, side: float, radius: float) -> tuple[Tensor, Tensor]:
    """Stack mask, measured depths and colors, all times the mask; return them and their corner."""
    left, top = corner.floor().int().clamp(min=0).tolist()
    right, bottom = (corner + side).ceil().int().tolist()
    part = (slice(top, bottom), slice(left, right))
    mask = photo.mask[part]
    depth = torch.zeros_like(mask) if photo.depth is None else photo.depth[part] / radius
    measured = mask * (depth > 0)
    layers = torch.cat(
        [torch.stack([mask, measured, measured * depth]), mask * photo.image[part].movedim(-1, 0)]
    )
    return layers, torch.tensor([left, top], device=mask.device)


def evaluate(model: Model, window: Window, poses: Tensor, blur: float, *, shade: bool) -> Fit:
    """Compare a model at many poses with a photo, with edges softened by `blur` pixels.

    With `shade` the color counts too. The depth counts where the photo has any.
    """
    depth, inside, rows = _draw(model, window, poses)
    covered = (depth > 0).to(depth)
    images, targets, slopes = (
        [covered[:, None]],
        [window.coverage[None]],
        [depth.new_zeros(*depth.shape, 1, 3)],
    )
    weights = [window.known.expand_as(depth)[:, None] / COVERAGE_ERROR]
    if shade:
        picture, slope = _light_up(model, rows, inside, window.color, poses)
        images, slopes = [*images, picture], [*slopes, slope]
        targets.append(window.color.movedim(-1, 0))
        weights.append((inside / window.color_error)[:, None].expand(-1, 3, -1, -1))
    if window.depth is not None:
        images, slopes = [*images, depth[:, None]], [*slopes, slopes[0]]
        targets.append(window.depth[None])
        weights.append((inside * (window.depth > 0) / DEPTH_ERROR)[:, None])
    image, weight = torch.cat(images, 1), torch.cat(weights, 1)
    soften = _gaussian(window.size, blur, depth)
    residual = soften @ ((image - torch.cat(targets)) * weight) @ soften
    share, trust = _share(residual, inside, window.coverage), _trust(residual)
    gradient, hessian = normal_equations(
        image,
        torch.cat(slopes, 3).movedim(3, 1),
        depth,
        (soften @ (share * trust.square() * residual) @ soften) * weight,
        share * trust.square() * weight.square() * _sharpness(residual, blur),
        _rays(window.camera),
        poses[:, :3, 3],
        with_depth=window.depth is not None,
    )
    cost = (share * trust * residual.square()).sum((1, 2, 3))
    cost = torch.where(poses[:, 2, 3] > NEAREST, cost, torch.inf)
    return Fit(poses, cost, gradient, hessian, _overlap(covered, window))


def expect_color_error(model: Model, window: Window, poses: Tensor) -> Window:
    """Measure how far off colors are at the pose that explains them best: photos differ in that from models."""
    _, inside, rows = _draw(model, window, poses)
    picture, _ = _light_up(model, rows, inside, window.color, poses)
    wrong = (picture - window.color.movedim(-1, 0)).square().mean(1).sqrt()
    medians = torch.where(inside > 0, wrong, torch.nan).flatten(1).nanmedian(1).values
    best = float(medians.nan_to_num(nan=torch.inf).min())
    return window._replace(color_error=max(COLOR_ERROR, 1.5 * best)) if best < math.inf else window


def _draw(model: Model, window: Window, poses: Tensor) -> tuple[Tensor, Tensor, Hits]:
    """Return depth, where the object covers photo and picture without doubt, and what is seen there."""
    fragments = rasterize(model.mesh, cameras_at(window.camera, poses))
    depth = fragments.depth[..., 0]
    both = (depth > 0) * (window.coverage > 0.95) * window.known
    return depth, -max_pool2d(-both, 3, 1, 1), hits(fragments)  # edges show background too


def _share(residual: Tensor, inside: Tensor, coverage: Tensor) -> Tensor:
    """Weigh pixels so that coverage, color and depth each count by their mean over the object."""
    share = torch.ones_like(residual[..., :1, :1])
    share[:, :1] /= coverage.sum()
    share[:, 1:] /= inside.sum((1, 2)).clamp(min=1)[:, None, None, None]
    return share


def _trust(residual: Tensor) -> Tensor:
    """Let color and depth that are far off count little, for something is in front, or shines (Geman and McClure).

    The cost t r² with t = 1 / (1 + (r / TRUSTED)²) has the derivative 2 t² r.
    """
    trust = torch.ones_like(residual)
    trust[:, 1:] = 1 / (1 + (residual[:, 1:] / TRUSTED).square())
    return trust


def _sharpness(residual: Tensor, blur: float) -> Tensor:
    """Return the square of what is left of an edge's height in pixels after softening, ∫ G² = 1 / (2 √π blur)."""
    sharpness = torch.ones_like(residual[:1, :, :1, :1])
    sharpness[:, 0] = min(1.0, 1 / (2 * math.sqrt(math.pi) * blur))
    return sharpness


def _overlap(covered: Tensor, window: Window) -> Tensor:
    """Return intersection over union of silhouettes inside the frame."""
    covered, object_ = covered * window.known, (window.coverage > 0.5) * window.known
    return (covered * object_).sum((1, 2)) / torch.maximum(covered, object_).sum((1, 2)).clamp(min=1)


def _light_up(
    model: Model, rows: Hits, inside: Tensor, color: Tensor, poses: Tensor
) -> tuple[Tensor, Tensor]:
    """Show a model in the light that explains a photo best; return the pictures and their slopes by the turn.

    Distant light of any kind on a matt surface is a quadratic function of the normal, to within 1 % (Ramamoorthi and
    Hanrahan 2001, eq. 11): nine numbers a channel, by least squares over the pixels `inside`.
    """
    mixed = rows.interpolate(model.mesh.faces, vertex_normals(model.mesh))
    normals = (poses[:, :3, :3][rows.image_ids] @ normalize(mixed, dim=-1)[..., None])[..., 0]
    normals = torch.where(normals[:, 2:] > 0, -normals, normals)  # seen from behind: inside-out
    base, surface = _harmonics(normals), albedo(model, rows)
    photo = color.flatten(0, 1)[rows.slot_ids % inside[0].numel()]
    chosen = inside.flatten()[rows.slot_ids].nonzero()[:, 0]
    chosen = chosen[:: 1 + len(chosen) // (LIGHT_SAMPLES * len(poses))]
    some_base, some_surface, photo, images = (t[chosen] for t in (base, surface, photo, rows.image_ids))
    light = _fit_light(some_base, some_surface, photo, images, len(poses))[rows.image_ids]
    lit = (base[:, None] @ light)[:, 0] * surface
    slope = torch.linalg.cross(normals[..., None].expand(-1, 3, 3), _harmonic_slopes(normals, light), dim=1)
    both = rows.scatter(torch.cat([lit, (slope * surface[:, None]).mT.flatten(1)], 1))[..., 0, :]
    picture, slopes = both.split_with_sizes([3, 9], -1)
    return picture.movedim(-1, 1), slopes.unflatten(-1, (3, 3))


def _fit_light(base: Tensor, surface: Tensor, photo: Tensor, images: Tensor, num: int) -> Tensor:
    """Solve for the light in every image: [images, 9, 3]."""
    rows = base[:, None] * surface[..., None]  # [pixels, channels, 9]
    products = torch.cat([rows[..., None] * rows[..., None, :], (rows * photo[..., None])[..., None]], -1)
    square, right = sum_rows(products, images, num).split([9, 1], -1)
    size = square.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None]
    stiffness = 1e-3 * size * size.new_tensor([0.1, 1, 1, 1, 3, 3, 3, 3, 3]) + 1e-6
    light: Tensor = torch.linalg.solve(square + torch.diag_embed(stiffness), right)[..., 0].mT
    return light


def sum_rows(rows: Tensor, index: Tensor, num: int) -> Tensor:
    """Sum rows that share an index; in the same order each time, also on a GPU."""
    if can_ask(rows):
        return rows.new_zeros(num, *rows.shape[1:]).index_add_(0, index, rows)
    return scatter_sum(rows.flatten(1).mT, index, num).mT.reshape(num, *rows.shape[1:])


def _harmonics(normals: Tensor) -> Tensor:
    x, y, z = normals.unbind(-1)
    return torch.stack([torch.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1], -1)


def _harmonic_slopes(normals: Tensor, light: Tensor) -> Tensor:
    """[pixels, 3 of the normal, 3 channels]."""
    x, y, z = normals[..., None].unbind(1)
    _, lx, ly, lz, xy, yz, zx, xx, zz = light.unbind(1)
    by_x = lx + y * xy + z * zx + 2 * x * xx
    by_y = ly + x * xy + z * yz - 2 * y * xx
    return torch.stack([by_x, by_y, lz + y * yz + x * zx + 6 * z * zz], 1)


def _rays(camera: Camera) -> Tensor:
    places = torch.arange(camera.width, device=camera.focal.device) + 0.5
    pixels = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1)
    return torch.cat([(pixels - camera.center) / camera.focal, camera.focal.expand_as(pixels)], -1)


def _gaussian(size: int, blur: float, like: Tensor) -> Tensor:
    """Return the symmetric matrix that smooths a row of pixels; beyond its ends there is nothing."""
    places = torch.arange(size, device=like.device)
    weights = torch.exp(-0.5 * ((places[:, None] - places) / blur) ** 2)
    return weights / weights.sum(1).max()
