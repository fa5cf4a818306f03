"""The surface that refinement starts from: extracted from a field, cleaned and simplified."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unrender._wording import counted
from unrender.errors import InputError
from unrender.fields.protocol import Field, RenderedField
from unrender.geometry.fill_holes import fill_holes
from unrender.geometry.mesh import Mesh, face_areas, surface_area
from unrender.geometry.remesh import remesh_isotropic
from unrender.geometry.simplify import simplify_quadric
from unrender.geometry.topology import connected_components, keep_faces, separate_fans
from unrender.render.depth import DepthView
from unrender.tasks.depth.fuse_depths import fuse_depths
from unrender.tasks.depth.view_consistency import unproject_view
from unrender.tasks.surface.config import FitSurface
from unrender.tasks.surface.depth_images import confirmed_depths
from unrender.tasks.surface.extract_surface import extract_surface

DENSER = 3
"""Ratio of the faces before and after remeshing: simplification keeps the shape, remeshing evens out the faces."""
REMESH_STEPS = 3
OUTLIERS = 0.002
"""Fraction of the points of an unbounded scene ignored at each end of each axis."""
TRUNCATION_VOXELS = 4.0
"""Truncation distance for unbounded scenes: their depth is less accurate."""
MIN_VIEWS = 3
"""Views that have to show a part of the surface of an unbounded scene."""
FACE_AREA = 3**0.5 / 4
"""Area of an equilateral triangle with edges of length 1."""


@dataclasses.dataclass(frozen=True)
class CleanSurface:
    """A surface without floaters, and what was changed."""

    mesh: Mesh
    num_floaters: int
    """Connected parts that were removed."""
    floater_area: float
    """Their fraction of the area."""
    num_filled: int
    """Holes that were closed."""
    open_lengths: tuple[float, ...]
    """Lengths of the outlines of the holes that are left, longest first, in world units."""
    diagonal: float

    def notes(self) -> list[str]:
        """Say what was changed, in sentences."""
        notes = []
        if self.num_floaters:
            notes.append(
                f"removed {counted(self.num_floaters, 'floater')} with {100 * self.floater_area:.2g} % of the area"
            )
        if self.num_filled:
            notes.append(f"closed {counted(self.num_filled, 'hole')}")
        if self.open_lengths:
            notes.append(
                f"not watertight: {counted(len(self.open_lengths), 'opening')} where no view measured a surface, the "
                f"longest {self.open_lengths[0] / self.diagonal:.2g} diagonals around"
            )
        return notes


def extract_initial(field: RenderedField, views: Sequence[DepthView], config: FitSurface) -> Mesh:
    """Extract the surface of a field within its scene box, from depth images or from the density."""
    low, high = field.scene_box.bounds
    if config.method == "density":
        if not isinstance(field, Field):
            raise InputError("fit_surface: Gaussians have no density; `method` should be depth")
        low, high = field.bounds() if not field.scene_box.contracted else (low, high)
        size = float((high - low).max()) / config.resolution
        return extract_surface(field, voxel_size=size, box=torch.stack([low, high]))
    cropped = [_within(view, low, high) for view in views]
    if field.scene_box.contracted and len(views) > 1:
        cropped = confirmed_depths(cropped)
    points = [unproject_view(view)[0] for view in cropped]
    if not any(len(each) for each in points):
        raise InputError(
            "fit_surface: the field has no surface: its depth is not valid in any view, or the views disagree; train "
            "it longer"
        )
    if field.scene_box.contracted:
        return _fused_where_several_look(cropped, torch.cat(points), config)
    corners = torch.stack([torch.stack([p.amin(0), p.amax(0)]) for p in points if len(p)])
    extent = float((corners[:, 1].amax(0) - corners[:, 0].amin(0)).max())
    return fuse_depths(cropped, voxel_size=extent / config.resolution, closed=config.unobserved == "close")


def _fused_where_several_look(views: Sequence[DepthView], points: Tensor, config: FitSurface) -> Mesh:
    """Fuse depth images of an unbounded scene: without outlying points, and where several views show the surface."""
    ordered = points.sort(0).values
    cut = int(OUTLIERS * len(ordered))
    low, high = ordered[cut], ordered[-1 - cut]
    size = float((high - low).max()) / config.resolution
    return fuse_depths(
        [_within(view, low - size, high + size) for view in views],
        voxel_size=size,
        truncation=TRUNCATION_VOXELS * size,
        closed=config.unobserved == "close",
        min_views=min(MIN_VIEWS, len(views)),
    )


def _within(view: DepthView, low: Tensor, high: Tensor) -> DepthView:
    """Remove depth outside a box: what is behind the box leaves it empty, which an infinite depth says."""
    points, valid = unproject_view(view)
    inside = ((points >= low) & (points <= high)).all(-1)
    kept = torch.zeros_like(valid).masked_scatter(valid, inside)
    corners = torch.cartesian_prod(*torch.stack([low, high], 1).unbind(0))
    is_behind = view.depth > view.camera.project(corners)[:, 2].amax()
    return view.replace(depth=torch.where(kept, view.depth, torch.where(is_behind, torch.inf, 0)))


def clean_surface(mesh: Mesh, config: FitSurface) -> CleanSurface:
    """Remove floaters, close small holes, and resample a surface with even triangles, at most `config.faces`."""
    kept, num_floaters, floater_area = _without_floaters(mesh, config.min_part)
    low, high = kept.vertices.aminmax(dim=0)
    diagonal = float((high - low).norm())
    filled = fill_holes(separate_fans(kept), config.max_hole * diagonal)
    coarser = separate_fans(simplify_quadric(filled.mesh, DENSER * config.faces))
    coarser = fill_holes(coarser, config.max_hole * diagonal).mesh
    even, _, _ = _without_floaters(_resampled(coarser, config.faces), config.min_part)
    return CleanSurface(
        even,
        num_floaters,
        floater_area,
        filled.num_filled,
        tuple(filled.open_lengths),
        diagonal,
    )


def _without_floaters(mesh: Mesh, min_part: float) -> tuple[Mesh, int, float]:
    labels = connected_components(mesh.faces, len(mesh.vertices))[mesh.faces[:, 0].long()]
    areas = torch.bincount(labels, face_areas(mesh).double())
    is_part = torch.bincount(labels, minlength=len(areas)) > 0
    kept = areas >= min_part * areas.max()
    number = int((is_part & ~kept).sum())
    fraction = float(areas[~kept].sum() / areas.sum())
    return (mesh, 0, 0.0) if number == 0 else (keep_faces(mesh, kept[labels]), number, fraction)


def _resampled(mesh: Mesh, num_faces: int) -> Mesh:
    """Return a surface with even triangles, about as many as a number of faces, and no more."""
    length = math.sqrt(float(surface_area(mesh)) / (num_faces * FACE_AREA))
    for _ in range(4):
        found = remesh_isotropic(mesh, length, REMESH_STEPS)
        if len(found.faces) <= num_faces:
            return found
        length *= 1.01 * math.sqrt(len(found.faces) / num_faces)
    return simplify_quadric(found, num_faces)
