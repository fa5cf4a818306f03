"""Cost of poses given a photo, with derivatives: residuals of coverage, of color under unknown lighting, and of depth.

The lighting is solved for at every pose, so that it need not be known. Residuals are smoothed by a Gaussian, and the
resolution increases coarse to fine, which widens the basin of convergence.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d, normalize

from unrender.data.photos import Photo
from unrender.geometry.camera import Camera
from unrender.geometry.columns import ordered_sum
from unrender.geometry.mesh import vertex_normals
from unrender.kernels._dispatch import can_read
from unrender.kernels.align import normal_equations
from unrender.kernels.scatter_sum import scatter_sum
from unrender.render.fragments import Hits, hits, rasterize
from unrender.tasks.pose.levenberg_marquardt import Fit
from unrender.tasks.pose.object_model import Model, albedo, cameras_at

COVERAGE_ERROR = 0.1
COLOR_ERROR = 0.03
DEPTH_ERROR = 0.03
"""Expected standard deviation of the residuals of coverage, of color (minimum), and of depth (in radii)."""
ROBUST_SCALE, ROBUST_COVERAGE_SCALE = 3.0, 5.0
"""Scales of the robust loss of color and depth, and of coverage, in expected errors."""
LIGHT_SAMPLES = 2000
"""Maximum number of pixels per image from which the lighting is estimated."""
MARGIN = 1.5
"""Side of the window relative to the bounding square of the object."""
MIN_DEPTH = 0.2
"""Minimum depth of the object's center, in radii."""


class Window(NamedTuple):
    """A square crop of a photo around the object, resampled to a given resolution."""

    camera: Camera
    coverage: Tensor
    """[size, size]: fraction of each pixel covered by the object."""
    known: Tensor
    """[size, size]: 1 where the photo tells what the object covers, 0 outside and at ignored pixels."""
    color: Tensor
    """[size, size, 3]: color of the object, without background."""
    depth: Tensor | None
    """[size, size]: depth of the object, without background, in radii; 0 where it is missing."""
    color_error: float = COLOR_ERROR

    @property
    def size(self) -> int:
        """Number of pixels per side."""
        return self.camera.width

    @property
    def area(self) -> Tensor:
        """Area of the object in pixels; torch's own sum depends on the number of threads."""
        return ordered_sum(self.coverage.flatten())


def object_side(photo: Photo) -> int:
    """Return the side of the bounding square of the object, in pixels."""
    covered = photo.mask > 0.5
    return max(int(covered.any(axis).sum()) for axis in (0, 1))


def crop_window(photo: Photo, size: int, radius: float) -> Window:
    """Crop the object with a margin, and resample it to `size` pixels per side, with antialiasing."""
    corner, side = bounding_square(photo.mask, MARGIN)
    samples = max(1, math.ceil(side / size))
    device = photo.mask.device
    positions = (torch.arange(size * samples, device=device) + 0.5) * (side / (size * samples))
    grid = torch.stack(torch.meshgrid(positions, positions, indexing="xy"), -1) + corner
    channels, offset = _crop(photo, corner, side, radius)
    crop_size = torch.tensor([channels.shape[2], channels.shape[1]], device=device)
    sampled = grid_sample(channels[None], ((grid - offset) / crop_size * 2 - 1)[None], align_corners=False)
    coverage, measured, depth, unknown, *color = avg_pool2d(sampled, samples)[0]
    extent = torch.tensor([photo.camera.width, photo.camera.height], device=device)
    inside = ((grid >= 0) & (grid <= extent)).all(-1).float()
    focal, center = photo.camera.focal * (size / side), (photo.camera.center - corner) * (size / side)
    return Window(
        Camera(focal, center, torch.eye(4, device=device), size, size),
        coverage,
        ((avg_pool2d(inside[None], samples)[0] > 0.99) & (unknown < 0.01)).float(),
        torch.stack(color, -1) / coverage.clamp(min=1e-3)[..., None],
        None if photo.depth is None else torch.where(measured > 0.5, depth / measured.clamp(min=0.5), 0),
    )


def bounding_square(mask: Tensor, margin: float) -> tuple[Tensor, float]:
    """Return the upper left corner (x, y) and the side of the bounding square of a mask, enlarged by `margin`."""
    rows, columns = ((mask > 0.5).any(axis).nonzero()[:, 0] for axis in (1, 0))
    low, high = torch.stack([columns[0], rows[0]]), torch.stack([columns[-1], rows[-1]]) + 1
    side = margin * float((high - low).max())
    return (low + high) / 2 - side / 2, side


def _crop(photo: Photo, corner: Tensor, side: float, radius: float) -> tuple[Tensor, Tensor]:
    """Stack mask, depth, ignored pixels and colors of a crop; return them and its corner.

    Depth and colors are premultiplied by the mask.
    """
    left, top = corner.floor().int().clamp(min=0).tolist()
    right, bottom = (corner + side).ceil().int().tolist()
    region = (slice(top, bottom), slice(left, right))
    mask = photo.mask[region]
    depth = torch.zeros_like(mask) if photo.depth is None else photo.depth[region] / radius
    measured = mask * (depth > 0)
    unknown = torch.zeros_like(mask) if photo.ignore is None else photo.ignore[region]
    channels = torch.cat(
        [torch.stack([mask, measured, measured * depth, unknown]), mask * photo.image[region].movedim(-1, 0)]
    )
    return channels, torch.tensor([left, top], device=mask.device)


def evaluate(
    model: Model, window: Window, poses: Tensor, blur: float, *, shade: bool, robust: bool = False
) -> Fit:
    """Evaluate the cost, gradient and Hessian of many poses, with residuals smoothed by `blur` pixels.

    With `robust`, large residuals of coverage have little weight, too: an occluder hides them.

    With `shade` the cost includes color. It includes depth where the photo has any.
    """
    depth, inside, rows = _render(model, window, poses)
    covered = (depth > 0).to(depth)
    images, targets, shading_gradients = (
        [covered[:, None]],
        [window.coverage[None]],
        [depth.new_zeros(*depth.shape, 1, 3)],
    )
    weights = [window.known.expand_as(depth)[:, None] / COVERAGE_ERROR]
    if shade:
        image, shading_gradient = _shade(model, rows, inside, window.color, poses)
        images, shading_gradients = [*images, image], [*shading_gradients, shading_gradient]
        targets.append(window.color.movedim(-1, 0))
        weights.append((inside / window.color_error)[:, None].expand(-1, 3, -1, -1))
    if window.depth is not None:
        images, shading_gradients = [*images, depth[:, None]], [*shading_gradients, shading_gradients[0]]
        targets.append(window.depth[None])
        weights.append((inside * (window.depth > 0) / DEPTH_ERROR)[:, None])
    image, weight = torch.cat(images, 1), torch.cat(weights, 1)
    smooth = _gaussian(window.size, blur, depth)
    residual = smooth @ ((image - torch.cat(targets)) * weight) @ smooth
    normalization, trust = _normalization(residual, inside, window.area), _robust_weight(residual, robust)
    gradient, hessian = normal_equations(
        image,
        torch.cat(shading_gradients, 3).movedim(3, 1),
        depth,
        (smooth @ (normalization * trust.square() * residual) @ smooth) * weight,
        normalization * trust.square() * weight.square() * _edge_energy(residual, blur),
        _rays(window.camera),
        poses[:, :3, 3],
        with_depth=window.depth is not None,
    )
    cost = (normalization * trust * residual.square()).sum((1, 2, 3))
    cost = torch.where(poses[:, 2, 3] > MIN_DEPTH, cost, torch.inf)
    return Fit(poses, cost, gradient, hessian, _silhouette_iou(covered, window))


def estimate_color_error(model: Model, window: Window, poses: Tensor) -> Window:
    """Estimate the expected color error from the pose with the smallest error, as models differ from photos."""
    _, inside, rows = _render(model, window, poses)
    image, _ = _shade(model, rows, inside, window.color, poses)
    error = (image - window.color.movedim(-1, 0)).square().mean(1).sqrt()
    medians = torch.where(inside > 0, error, torch.nan).flatten(1).nanmedian(1).values
    best = float(medians.nan_to_num(nan=torch.inf).min())
    return window._replace(color_error=max(COLOR_ERROR, 1.5 * best)) if best < math.inf else window


def _render(model: Model, window: Window, poses: Tensor) -> tuple[Tensor, Tensor, Hits]:
    """Rasterize a model; return depth, the interior that is covered in photo and rendering, and the fragments."""
    fragments = rasterize(model.mesh, cameras_at(window.camera, poses))
    depth = fragments.depth[..., 0]
    both = (depth > 0) * (window.coverage > 0.95) * window.known
    return depth, -max_pool2d(-both, 3, 1, 1), hits(fragments)  # edge pixels contain background


def _normalization(residual: Tensor, inside: Tensor, area: Tensor) -> Tensor:
    """Compute weights such that coverage, color and depth each contribute their mean over the object."""
    weights = torch.ones_like(residual[..., :1, :1])
    weights[:, :1] /= area
    weights[:, 1:] /= inside.sum((1, 2)).clamp(min=1)[:, None, None, None]
    return weights


def _robust_weight(residual: Tensor, with_coverage: bool) -> Tensor:
    """Downweight outliers of color and depth, such as occluders and highlights (Geman and McClure).

    The cost t r² with t = 1 / (1 + (r / ROBUST_SCALE)²) has the derivative 2 t² r.
    """
    weight = torch.ones_like(residual)
    weight[:, 1:] = 1 / (1 + (residual[:, 1:] / ROBUST_SCALE).square())
    if with_coverage:
        weight[:, :1] = 1 / (1 + (residual[:, :1] / ROBUST_COVERAGE_SCALE).square())
    return weight


def _edge_energy(residual: Tensor, blur: float) -> Tensor:
    """Return the energy of a one-pixel edge after smoothing, ∫ G² = 1 / (2 √π blur)."""
    energy = torch.ones_like(residual[:1, :, :1, :1])
    energy[:, 0] = min(1.0, 1 / (2 * math.sqrt(math.pi) * blur))
    return energy


def _silhouette_iou(covered: Tensor, window: Window) -> Tensor:
    """Compute the intersection over union of silhouettes within the photo."""
    covered, object_ = covered * window.known, (window.coverage > 0.5) * window.known
    return (covered * object_).sum((1, 2)) / torch.maximum(covered, object_).sum((1, 2)).clamp(min=1)


def _shade(model: Model, rows: Hits, inside: Tensor, color: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
    """Shade a model under the lighting that fits a photo best; return images and their derivatives by rotation.

    The irradiance of a Lambertian surface under distant lighting is a quadratic function of the normal, to within 1 %
    (Ramamoorthi and Hanrahan 2001, eq. 11): nine numbers per channel, estimated by least squares over the pixels
    `inside`.
    """
    mixed = rows.interpolate(model.mesh.faces, vertex_normals(model.mesh))
    normals = (poses[:, :3, :3][rows.image_ids] @ normalize(mixed, dim=-1)[..., None])[..., 0]
    normals = torch.where(normals[:, 2:] > 0, -normals, normals)  # back faces
    base, surface = _harmonics(normals), albedo(model, rows)
    photo = color.flatten(0, 1)[rows.slot_ids % inside[0].numel()]
    chosen = inside.flatten()[rows.slot_ids].nonzero()[:, 0]
    chosen = chosen[:: 1 + len(chosen) // (LIGHT_SAMPLES * len(poses))]
    some_base, some_surface, photo, images = (t[chosen] for t in (base, surface, photo, rows.image_ids))
    light = _fit_light(some_base, some_surface, photo, images, len(poses))[rows.image_ids]
    lit = (base[:, None] @ light)[:, 0] * surface
    shading_gradient = torch.linalg.cross(
        normals[..., None].expand(-1, 3, 3), _harmonic_derivatives(normals, light), dim=1
    )
    both = rows.scatter(torch.cat([lit, (shading_gradient * surface[:, None]).mT.flatten(1)], 1))[..., 0, :]
    image, derivatives = both.split_with_sizes([3, 9], -1)
    return image.movedim(-1, 1), derivatives.unflatten(-1, (3, 3))


def _fit_light(base: Tensor, surface: Tensor, photo: Tensor, images: Tensor, num: int) -> Tensor:
    """Solve for the lighting coefficients of every image: [images, 9, 3]."""
    rows = base[:, None] * surface[..., None]  # [pixels, channels, 9]
    products = torch.cat([rows[..., None] * rows[..., None, :], (rows * photo[..., None])[..., None]], -1)
    square, right = sum_rows(products, images, num).split([9, 1], -1)
    size = square.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None]
    regularization = 1e-3 * size * size.new_tensor([0.1, 1, 1, 1, 3, 3, 3, 3, 3]) + 1e-6
    light: Tensor = torch.linalg.solve(square + torch.diag_embed(regularization), right)[..., 0].mT
    return light


def sum_rows(rows: Tensor, index: Tensor, num: int) -> Tensor:
    """Sum rows that share an index; in the same order each time, also on a GPU."""
    if can_read(rows):
        return rows.new_zeros(num, *rows.shape[1:]).index_add_(0, index, rows)
    return scatter_sum(rows.flatten(1).mT, index, num).mT.reshape(num, *rows.shape[1:])


def _harmonics(normals: Tensor) -> Tensor:
    x, y, z = normals.unbind(-1)
    return torch.stack([torch.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1], -1)


def _harmonic_derivatives(normals: Tensor, light: Tensor) -> Tensor:
    """Differentiate the shading with respect to the normal: [pixels, 3 of the normal, 3 channels]."""
    x, y, z = normals[..., None].unbind(1)
    _, lx, ly, lz, xy, yz, zx, xx, zz = light.unbind(1)
    by_x = lx + y * xy + z * zx + 2 * x * xx
    by_y = ly + x * xy + z * yz - 2 * y * xx
    return torch.stack([by_x, by_y, lz + y * yz + x * zx + 6 * z * zz], 1)


def _rays(camera: Camera) -> Tensor:
    positions = torch.arange(camera.width, device=camera.focal.device) + 0.5
    pixels = torch.stack(torch.meshgrid(positions, positions, indexing="xy"), -1)
    return torch.cat([(pixels - camera.center) / camera.focal, camera.focal.expand_as(pixels)], -1)


def _gaussian(size: int, blur: float, like: Tensor) -> Tensor:
    """Return the symmetric matrix that smooths a row of pixels, with zero padding."""
    positions = torch.arange(size, device=like.device)
    weights = torch.exp(-0.5 * ((positions[:, None] - positions) / blur) ** 2)
    return weights / weights.sum(1).max()
