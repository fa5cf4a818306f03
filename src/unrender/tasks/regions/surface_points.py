"""A surface as evenly spread points with oriented normals, from a mesh or a point cloud."""

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from unrender.errors import InputError
from unrender.geometry.mesh import Mesh, enclosed_volume, face_areas, face_normals
from unrender.geometry.neighborhoods import Neighborhoods, is_outlier, neighborhoods
from unrender.geometry.orient import propagate_signs
from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.topology import is_watertight
from unrender.geometry.winding_number import winding_number_normals
from unrender.kernels.nearest import index_points, nearest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MIN_POINTS = 50
NUM_NEIGHBORS = 12
"""Neighbors of each point in the graph along which regions grow."""
PARALLEL, MAX_CONTRADICTIONS = 0.8, 0.01
"""Cosine from which on normals of neighbors are parallel, and the largest fraction of those with opposite signs."""
MAX_AREA_RATIO = 10.0
"""Largest area of a point relative to the median; isolated points have no surface around them."""
NORMAL_NEIGHBORS = 24
"""Neighbors that normals are estimated from."""


@dataclasses.dataclass(frozen=True)
class SurfacePoints:
    """Points of a surface, with what regions grow by."""

    points: Floats
    normals: Floats
    """Outward unit normals of the fitted planes of their neighbors."""
    neighbors: Ints
    """Nearest other points of each point."""
    spread: Floats
    """Root mean square distance of the neighbors from the plane."""
    diagonal: float
    """Of the bounding box."""
    area: float
    """Area of the mesh that was sampled, which noise increases; of a point cloud, an estimate."""
    estimated_area: float
    """Area by the distances between neighboring points."""
    face_ids: Ints | None
    """Face of the mesh that each point was sampled on."""
    face_normals: Floats | None
    """Its unit normal."""


def surface_points(surface: Mesh | PointCloud, max_points: int, seed: int) -> SurfacePoints:
    """Sample a mesh, or subsample a point cloud, and estimate normals.

    Raises InputError for a surface that is too small, or not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    area, face_ids, given = None, None, None
    if isinstance(surface, Mesh):
        mesh = surface.to("cpu").to(torch.float64)
        if not bool(mesh.vertices.isfinite().all()):
            raise InputError("find_regions: the mesh has NaN or infinite vertices; repair or remove them")
        area = float(face_areas(mesh).sum()) if len(mesh.faces) else 0.0
        if not area > 0:
            raise InputError("find_regions: the mesh has no surface area")
        samples = sample_points_from_mesh(mesh, max_points, generator=generator)
        points, faces = samples.points, samples.face_ids
        is_inside_out = is_watertight(mesh) and float(enclosed_volume(mesh)) < 0
        face_ids, given = faces.numpy(), face_normals(mesh)[faces] * (-1 if is_inside_out else 1)
    else:
        points, given = _subsampled(surface, max_points, generator)
    low, high = points.amin(0), points.amax(0)
    diagonal = float((high - low).norm())
    scaled = (points - (low + high) / 2) / (diagonal or 1)
    local = neighborhoods(scaled, NORMAL_NEIGHBORS)
    index = index_points(scaled)
    ids = nearest(index, index, k=min(NUM_NEIGHBORS + 1, len(points))).ids
    if given is not None:
        cosines = (local.normals * given).sum(1, keepdim=True)
        around = (local.normals * given[ids].sum(1)).sum(1, keepdim=True)  # noise may turn single faces over
        signs = torch.where(cosines.abs() > 0.5, cosines, around).sign()
        normals = local.normals * torch.where(signs == 0, 1, signs)
    else:
        normals = _outward(scaled, local, ids)
    estimate = float(local.areas.clamp(max=MAX_AREA_RATIO * local.areas.median()).sum()) * diagonal**2
    return SurfacePoints(
        points.numpy(),
        normals.numpy(),
        ids[:, 1:].numpy(),
        (local.spread * diagonal).numpy(),
        diagonal,
        estimate if area is None else area,
        estimate,
        face_ids,
        None if face_ids is None or given is None else given.numpy(),
    )


def _outward(points: torch.Tensor, local: Neighborhoods, neighbors: torch.Tensor) -> torch.Tensor:
    """Orient normals outward, as those of a solid; if they contradict each other, as on open sheets, consistently."""
    spacing = float(local.areas.median().sqrt())
    width = 0.5 * spacing + 2 * float(local.spread.median())  # as for the initial mesh of a fit
    outward = winding_number_normals(points, local.areas, spacing, width=width).to(points)
    is_inward = (local.normals * outward).sum(1, keepdim=True) < 0
    normals = torch.where(is_inward, -local.normals, local.normals)
    cosines = (normals[:, None] * normals[neighbors[:, 1:]]).sum(-1)
    contradicts = (cosines < -PARALLEL).double().mean()
    return normals if contradicts < MAX_CONTRADICTIONS else propagate_signs(points, local.normals)


def _subsampled(
    cloud: PointCloud, max_points: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return at most `max_points` of the points, all different, and their normals if there are any."""
    cloud = cloud.to("cpu").to(torch.float64)
    points = cloud.points
    if not bool(points.isfinite().all()):
        raise InputError("find_regions: the point cloud has NaN or infinite points; remove them")
    distinct = np.unique(points.numpy(), axis=0, return_index=True)[1]
    if len(distinct) < MIN_POINTS:
        raise InputError(
            f"find_regions: the point cloud should have at least {MIN_POINTS} different points, got {len(distinct)}"
        )
    chosen = torch.from_numpy(np.sort(distinct))
    if len(chosen) > max_points:
        chosen = chosen[torch.randperm(len(chosen), generator=generator)[:max_points].sort().values]
    chosen = chosen[~is_outlier(points[chosen])]
    return points[chosen], None if cloud.normals is None else cloud.normals[chosen]
