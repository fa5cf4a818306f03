"""Projection of 3D Gaussians to the image of a camera: elliptical weighted averages (EWA splatting)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.harmonics import spherical_harmonics
from unrender.geometry.camera import Camera, transform
from unrender.geometry.gaussians import Gaussians

DILATION = 0.3
"""Variance of the filter of the image, in pixels², that is added to every projected Gaussian."""
DEPTH_DILATION = 0.03
"""The same for distances: less, since it flattens slanted Gaussians, and not 0, since thin ones from the side
would reach far along the ray."""
MARGIN = 0.3
"""Projections are linearized within the image and this fraction of its half width or height around it: far outside
they would be enormous."""
CHUNK = 32_768
"""Gaussians whose colors are computed at once: their coefficients stay in the caches of a processor."""
MIN_COSINE = 0.02
"""Cosine of the latitude at which projections to 360° images are linearized, at least: at the poles it is 0."""
MAX_SIGMAS = 3.4
"""Standard deviations at which the alpha of an opaque Gaussian falls below 1/255."""


class ProjectedGaussians(NamedTuple):
    """The Gaussians in front of a camera, sorted front to back by the depth of their centers."""

    ids: Int[Tensor, " visible"]
    means: Float[Tensor, "visible 2"]
    """In pixels."""
    covariances: Float[Tensor, "visible 3"]
    """xx, xy and yy, in pixels², dilated."""
    opacities: Float[Tensor, " visible"]
    distances: Float[Tensor, " visible"]
    """Along the ray through the center, in world units."""
    gradients: Float[Tensor, "visible 2"]
    """Change of the distance at which a ray meets the Gaussian, per pixel in x and y."""
    depth_extents: Float[Tensor, " visible"]
    """Length, along a ray, of an interval with the variance of the Gaussian."""


@torch.no_grad()
def project_gaussians(gaussians: Gaussians, camera: Camera, near: float) -> ProjectedGaussians:
    """Project Gaussians to the image plane and the distance along the rays.

    With the Jacobian J of (x, y, distance) at the center, a Gaussian of covariance Σ becomes one of covariance
    V = J Σ Jᵀ. Its distance at an offset δ from its center in the image is that of the center plus V_t,xy V_xy⁻¹ δ, the
    conditional mean; V_xy is dilated by 0.3 pixels², and by a tenth of that for distances. Gaussians whose center is
    closer than `near` are left out.
    Source: Zwicker et al. 2001, eq. 24 to 31; Kerbl et al. 2023, eq. 5.
    """
    if camera.batch_shape:
        raise InputError(f"GaussianField: `camera` should be one, got {list(camera.batch_shape)} of them")
    if camera.lens is not None:
        raise InputError(
            "GaussianField: lens distortion is not supported when splatting Gaussians; remove it with "
            "`camera.replace(lens=None)`"
        )
    points = transform(camera.camera_from_world, gaussians.means)
    depth = points.norm(dim=-1) if camera.projection == "equirectangular" else points[:, 2]
    ids = (depth > near).nonzero()[:, 0]
    ids = ids[depth[ids].argsort(stable=True)]
    x, y, z = points.mT.contiguous()[:, ids]
    means, distances = _project(x, y, z, camera)
    across, down, along = (
        [_dot(row, axis) for axis in _axes(gaussians, ids)] for row in _gradients(x, y, z, distances, camera)
    )
    if camera.projection == "equirectangular":  # around the poles: at most once around the image
        limit = math.pi / MAX_SIGMAS * camera.focal[0]
        shrink = (limit / _dot(across, across).sqrt().clamp(min=1e-20)).clamp(max=1)
        across = [shrink * entry for entry in across]
    xx, xy, yy = _dot(across, across), _dot(across, down), _dot(down, down)
    tx, ty, tt = _dot(along, across), _dot(along, down), _dot(along, along)
    opacities, sharp = gaussians.opacities[ids], (xx * yy - xy * xy).clamp(min=0)
    narrow_xx, narrow_yy = xx + DEPTH_DILATION, yy + DEPTH_DILATION
    narrow = (narrow_xx * narrow_yy - xy * xy).clamp(min=DEPTH_DILATION**2)
    gx, gy = (tx * narrow_yy - ty * xy) / narrow, (ty * narrow_xx - tx * xy) / narrow
    xx, yy = xx + DILATION, yy + DILATION
    if gaussians.is_antialiased:
        opacities = opacities * (sharp / (xx * yy - xy * xy).clamp(min=DILATION**2)).sqrt()
    extents = (12 * (tt - gx * tx - gy * ty).clamp(min=0)).sqrt()
    visible, means = _visible(means, torch.stack([xx, yy], -1), camera)
    covariances, gradients = torch.stack([xx, xy, yy], -1), torch.stack([gx, gy], -1)
    values = (value[visible] for value in (covariances, opacities, distances, gradients, extents))
    return ProjectedGaussians(ids[visible], means, *values)


@torch.no_grad()
def gaussian_colors(gaussians: Gaussians, ids: Tensor, camera: Camera) -> Float[Tensor, "visible 3"]:
    """Return the colors, at least 0, of some Gaussians in the view of a camera."""
    degree = round(gaussians.harmonics.shape[1] ** 0.5) - 1
    parts = []
    for chunk in ids.split(CHUNK):
        if camera.projection != "orthographic":
            directions = torch.nn.functional.normalize(gaussians.means[chunk] - camera.position, dim=-1)
        else:
            directions = camera.camera_from_world[2, :3].expand(len(chunk), 3)
        basis = spherical_harmonics(directions, degree)
        parts.append(((basis[..., None] * gaussians.harmonics[chunk]).sum(1) + 0.5).clamp(min=0))
    return torch.cat(parts)


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Return inner products of columns; the last bits of a matrix product depend on the number of threads."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _axes(gaussians: Gaussians, ids: Tensor) -> list[list[Tensor]]:
    """Return the three axes of each Gaussian, in columns, as long as its standard deviations."""
    w, x, y, z = torch.nn.functional.normalize(gaussians.quaternions, dim=-1).mT.contiguous()[:, ids]
    s0, s1, s2 = gaussians.scales.mT.contiguous()[:, ids]
    d0, d1, d2 = 2 * s0, 2 * s1, 2 * s2
    return [
        [s0 - d0 * (y * y + z * z), d0 * (x * y + w * z), d0 * (x * z - w * y)],
        [d1 * (x * y - w * z), s1 - d1 * (x * x + z * z), d1 * (y * z + w * x)],
        [d2 * (x * z + w * y), d2 * (y * z - w * x), s2 - d2 * (x * x + y * y)],
    ]


def _project(x: Tensor, y: Tensor, z: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Return pixels, and the distance along the ray, of points in the camera frame."""
    flat = torch.stack([x, y], -1)
    if camera.projection == "orthographic":
        return flat * camera.focal + camera.center, z
    distance = (x * x + y * y + z * z).sqrt()
    if camera.projection == "equirectangular":
        flat = torch.stack([torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))], -1)
    else:
        flat = flat / z[:, None]
    return flat * camera.focal + camera.center, distance


def _gradients(x: Tensor, y: Tensor, z: Tensor, distance: Tensor, camera: Camera) -> list[list[Tensor]]:
    """Return the gradients in world coordinates, in columns, of pixel x, pixel y and the distance along the ray."""
    right, down, forward = (list(row) for row in camera.camera_from_world[:3, :3])
    fx, fy = camera.focal
    if camera.projection == "orthographic":
        one = torch.ones_like(z)
        return [[f * entry * one for entry in row] for f, row in ((fx, right), (fy, down), (1, forward))]
    along = [(x * r + y * d + z * f) / distance for r, d, f in zip(right, down, forward, strict=True)]
    if camera.projection == "equirectangular":
        aside = torch.maximum(torch.hypot(x, z), MIN_COSINE * distance)
        to_x, to_y = fx / aside.square(), fy / distance.square()
        return [
            [to_x * (z * r - x * f) for r, f in zip(right, forward, strict=True)],
            [
                to_y * (aside * d - y / aside * (x * r + z * f))
                for r, d, f in zip(right, down, forward, strict=True)
            ],
            along,
        ]
    size = camera.focal.new_tensor([camera.width, camera.height])
    margin = MARGIN * size / 2
    low, high = (-margin - camera.center) / camera.focal, (size + margin - camera.center) / camera.focal
    u, v = (x / z).clamp(low[0], high[0]), (y / z).clamp(low[1], high[1])
    return [
        [fx / z * (r - u * f) for r, f in zip(right, forward, strict=True)],
        [fy / z * (d - v * f) for d, f in zip(down, forward, strict=True)],
        along,
    ]


def _visible(means: Tensor, variances: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Return the indices of Gaussians that reach the image, in order, and their means.

    Those at the left and right edge of a 360° image are on both sides of it.
    """
    reach = MAX_SIGMAS * variances.sqrt()
    size = means.new_tensor([camera.width, camera.height])
    shift = means.new_zeros(2)
    if camera.projection == "equirectangular":
        shift[0] = 2 * math.pi * camera.focal[0]
    found = []
    for moved in (means, means - shift, means + shift) if bool(shift.any()) else (means,):
        reaches = (moved + reach > 0) & (moved - reach < size) & moved.isfinite()
        found.append((reaches.all(-1).nonzero()[:, 0], moved))
    visible = torch.cat([index for index, _ in found])
    order = visible.argsort(stable=True)
    return visible[order], torch.cat([moved[index] for index, moved in found])[order]
