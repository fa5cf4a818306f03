"""Colors of surface points from photos: projection with visibility, viewing-angle and resolution weights."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.render.fragments import rasterize
from unrender.tasks.surface.photo_views import PhotoView

MIN_COSINE = 0.15
"""Cosine of the angle between normal and viewing direction below which a photo shows a point too obliquely."""
COSINE_POWER = 2
MIN_COVERAGE = 0.95
"""Alpha below which a pixel is mixed with the background."""
OUTLIER = 0.15
"""Difference of a color from the mean, as a Euclidean distance in RGB, at which its weight falls to a quarter."""
NUM_RINGS = 2
"""Rings of faces around visible ones in which points are tested."""
EXPOSURE_POINTS, EXPOSURE_ROUNDS = 20_000, 40
MIN_OVERLAP = 100
"""Points that a photo has to share with others for its exposure to be estimated."""


class PointColors(NamedTuple):
    """Colors of points, and which points are visible in a photo."""

    colors: Float[Tensor, "points 3"]
    """Zero where not observed."""
    observed: Bool[Tensor, " points"]


class Samples(NamedTuple):
    """The points that a photo shows."""

    point_ids: Int[Tensor, " visible"]
    colors: Float[Tensor, "visible 3"]
    weights: Float[Tensor, " visible"]


class SurfacePoints(NamedTuple):
    """Points on a mesh with unit normals."""

    points: Float[Tensor, "points 3"]
    normals: Float[Tensor, "points 3"]
    vertex_ids: Int[Tensor, " points"]
    """A vertex of the face of each point."""


def vertices_of(mesh: Mesh) -> SurfacePoints:
    """Return the vertices of a mesh."""
    ids = torch.arange(len(mesh.vertices), device=mesh.vertices.device)
    return SurfacePoints(mesh.vertices.detach(), vertex_normals(mesh).detach(), ids)


@torch.no_grad()
def project_photos(
    mesh: Mesh, surface: SurfacePoints, views: Sequence[PhotoView], exposures: Tensor | None = None
) -> PointColors:
    """Average the colors of the photos in which points are visible.

    Weights: cos² of the angle between normal and viewing direction, times the pixels per area of the surface. A second
    pass reduces the weights of colors that differ from the mean of the first, such as highlights. Colors are divided by
    the `exposures` of their photos [views, 3].
    Differentiable in: nothing.
    """
    mean = None
    for _ in range(2):
        sums = surface.points.new_zeros(len(surface.points), 4)
        for i, view in enumerate(views):
            found = sample_view(mesh, surface, view)
            colors = found.colors if exposures is None else found.colors / exposures[i]
            weights = found.weights
            if mean is not None:
                outlying = (colors - mean[found.point_ids]).square().sum(-1) / OUTLIER**2
                weights = weights / (1 + outlying).square()
            sums[found.point_ids] += torch.cat([colors * weights[:, None], weights[:, None]], -1)
        mean = sums[:, :3] / sums[:, 3:].clamp(min=1e-30)
    assert mean is not None
    return PointColors(mean.clamp(0, 1), sums[:, 3] > 0)


def sample_view(mesh: Mesh, surface: SurfacePoints, view: PhotoView) -> Samples:
    """Sample a photo at the points that it shows, with weights."""
    device, camera = mesh.vertices.device, view.camera.to(mesh.vertices.device)
    fragments = rasterize(mesh, camera)
    index = _near_visible_faces(mesh, fragments.face_ids)[surface.vertex_ids].nonzero()[:, 0]
    points = surface.points[index]
    cosine = (normalize(camera.position - points, dim=-1) * surface.normals[index]).sum(-1)
    x, y, depth = camera.project(points).unbind(-1)
    column, row = (x - 0.5).floor().nan_to_num(-1), (y - 0.5).floor().nan_to_num(-1)
    inside = (cosine > MIN_COSINE) & (depth > 0) & (column >= 0) & (row >= 0)
    inside &= (column < camera.width - 1) & (row < camera.height - 1)
    index, cosine, x, y, depth, column, row = (t[inside] for t in (index, cosine, x, y, depth, column, row))
    corner = row.long() * camera.width + column.long()
    corners = torch.stack([corner, corner + 1, corner + camera.width, corner + camera.width + 1])
    visible = _is_visible(view, fragments.depth[..., 0], corners, depth, cosine)
    index, cosine, depth, corners = index[visible], cosine[visible], depth[visible], corners[:, visible]
    a, b = (x - 0.5 - column)[visible], (y - 0.5 - row)[visible]
    shares = torch.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b])
    alpha = (view.coverage(device).flatten()[corners] * shares).sum(0)
    colors = (view.premultiplied(device).flatten(0, 1)[corners] * shares[..., None]).sum(0)
    weights = cosine ** (COSINE_POWER + 1) * (camera.focal.prod() / depth.square())
    covered = alpha > MIN_COVERAGE
    return Samples(index[covered], (colors / alpha[:, None])[covered], weights[covered])


def _near_visible_faces(mesh: Mesh, face_ids: Tensor) -> Bool[Tensor, " vertices"]:
    """Return the vertices within two edges of a face that is visible at a pixel; of small faces, some are at none."""
    seen = face_ids.flatten()
    is_near = torch.zeros(len(mesh.faces), dtype=torch.bool, device=mesh.faces.device)
    is_near[seen[seen >= 0].long()] = True
    vertices = torch.zeros(len(mesh.vertices), dtype=torch.bool, device=mesh.faces.device)
    for _ in range(NUM_RINGS + 1):
        vertices[mesh.faces[is_near].flatten()] = True
        is_near = vertices[mesh.faces].any(1)
    return vertices


def _is_visible(view: PhotoView, rendered: Tensor, corners: Tensor, depth: Tensor, cosine: Tensor) -> Tensor:
    """Return which points have the rendered depth at all four pixels around them.

    Next to a depth discontinuity, pixels have the colors of both surfaces. The tolerance is the change of depth across
    a pixel and a half, for a surface at this angle.
    """
    usable = ((rendered > 0) & view.usable(depth.device)).flatten()
    slope = (1 - cosine.square()).clamp(min=0).sqrt() / cosine
    tolerance = depth / view.camera.focal.min().to(depth.device) * (0.5 + 1.5 * slope)
    is_near = (rendered.flatten()[corners] - depth).abs() <= tolerance
    return (usable[corners] & is_near).all(0)


@torch.no_grad()
def estimate_exposures(
    mesh: Mesh, surface: SurfacePoints, views: Sequence[PhotoView]
) -> Float[Tensor, "views 3"]:
    """Estimate a factor for each channel of each photo, from points that several photos show; their mean log is 0.

    Alternates between the mean color of each point and the least-squares factor of each photo. Photos that share fewer
    than 100 points with others have factors of 1.
    """
    step = max(1, len(surface.points) // EXPOSURE_POINTS)
    few = SurfacePoints(*(each[::step] for each in surface))
    samples = [sample_view(mesh, few, view) for view in views]
    factors = few.points.new_ones(len(views), 3)
    for _ in range(EXPOSURE_ROUNDS):
        sums, count = few.points.new_zeros(len(few.points), 4), few.points.new_zeros(len(few.points))
        for factor, found in zip(factors, samples, strict=True):
            weighted = torch.cat([found.colors / factor, torch.ones_like(found.colors[:, :1])], -1)
            sums[found.point_ids] += weighted * found.weights[:, None]
            count[found.point_ids] += 1
        mean = sums[:, :3] / sums[:, 3:].clamp(min=1e-30)
        for i, found in enumerate(samples):
            shared = count[found.point_ids] > 1
            expected, weights = mean[found.point_ids[shared]], found.weights[shared, None]
            power = (weights * expected.square()).sum(0)
            if int(shared.sum()) >= MIN_OVERLAP and bool((power > 0).all()):
                factors[i] = (weights * expected * found.colors[shared]).sum(0) / power
        factors = factors.clamp(min=1e-3)
        factors = factors / factors.log().mean(0).exp()
    return factors
