"""The surface in a field, as a mesh: where its density reaches a level."""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.protocol import KnowsBox, KnowsDensity, RadianceField
from unrender.fields.render_field import POINTS_AT_ONCE, ask_in_parts
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.geometry.points import PointCloud
from unrender.render.march import Field

AT_ONCE = 65_536
"""Vertices whose colors are looked up."""
FAR_INSIDE = 4.0
"""How much the log of the density is above the level where no voxel is left because none could be seen."""
VOXELS = 192
"""Along the longest side, unless told otherwise."""
MOST_VOXELS = 2**28


@torch.no_grad()
def extract_surface(
    field: RadianceField | Field,
    *,
    opacity: float = 0.5,
    voxel_size: float | None = None,
    box: Float[Tensor, "2 3"] | None = None,
) -> Mesh:
    """Return the surface on which matter of one voxel's thickness takes so much of the light, with colors.

    The density there is −log(1 − opacity) / voxel, see `surface_density`. Sparse voxels are taken as they are, by
    marching cubes on the log of the density between their corners; in contracted space a voxel is one of the inner
    cube. Any other field, and voxels where a `voxel_size` is given, is asked for its density at the corners of cubes of
    that size within `box`, a part at a time, and marching cubes works on the opacity of a voxel. Hollows that no ray
    could reach count as full. Colors are those seen from straight above the surface. Faces are counterclockwise seen
    from outside; vertices are in world units.

    voxel_size: in world units; by default a 192nd of the longest side of the box. box: two opposite corners; by default
    those of what the field says it fills, or of the inner cube where it has no end.
    Differentiable in: nothing.
    """
    if not 0 < opacity < 1:
        raise InputError(f"extract_surface: `opacity` should be above 0 and below 1, got {opacity}")
    if isinstance(field, SparseVoxels) and voxel_size is None and box is None:
        dense = _dense(field, math.log(surface_density(opacity, field.voxel_size)))
        vertices, faces = _marching_cubes(dense)
        places = _to_world(field, torch.from_numpy(vertices))
    else:
        low, high = _box(field, box)
        size = choose_voxel_size(torch.stack([low, high]), voxel_size)
        vertices, faces = _marching_cubes(_sampled(field, low, high, size, opacity))
        places = low + size * torch.from_numpy(vertices)
    mesh = Mesh(places.float(), torch.from_numpy(faces.astype(np.int64)))
    normals = vertex_normals(mesh)
    colors = [
        field(points, -normal)[1]
        for points, normal in zip(mesh.vertices.split(AT_ONCE), normals.split(AT_ONCE), strict=True)
    ]
    return mesh.replace(vertex_colors=torch.cat(colors).clamp(0, 1))


def surface_density(opacity: float, voxel_size: float) -> float:
    """Return the density, per world unit, at which matter as thick as a voxel takes so much of the light."""
    return -math.log1p(-opacity) / voxel_size


def choose_voxel_size(box: Float[Tensor, "2 3"], voxel_size: float | None) -> float:
    """Return the voxel size that `extract_surface` samples a box with; refuse one that is no length, or too small."""
    sides = box[1] - box[0]
    size = float(sides.max()) / VOXELS if voxel_size is None else voxel_size
    if not 0 < size < math.inf:
        raise InputError(f"extract_surface: `voxel_size` should be a length > 0, got {size}")
    if math.prod(float(side) / size + 1 for side in sides) > MOST_VOXELS:
        raise InputError(
            f"extract_surface: {' × '.join(f'{float(side) / size:.0f}' for side in sides)} voxels are too many; give a "
            "larger `voxel_size`"
        )
    return size


def cloud_of_surface(mesh: Mesh) -> PointCloud:
    """Return the vertices of a mesh with their normals and colors."""
    return PointCloud(mesh.vertices, vertex_normals(mesh), mesh.vertex_colors)


def _box(field: RadianceField | Field, box: Tensor | None) -> tuple[Tensor, Tensor]:
    if box is None and not isinstance(field, KnowsBox):
        raise InputError("extract_surface: this field does not say where it is; give a `box`")
    low, high = field.box() if box is None else box
    if not bool(((high > low) & low.isfinite() & high.isfinite()).all()):
        raise InputError(
            "extract_surface: `box` should be two finite corners, the first below the second, got "
            f"{low.tolist()} and {high.tolist()}"
        )
    return low, high


def _sampled(
    field: RadianceField | Field, low: Tensor, high: Tensor, size: float, level: float
) -> NDArray[np.float32]:
    """Return the opacity of one voxel's thickness, less the level, at corners of voxels; closed hollows are full."""
    from scipy.ndimage import binary_fill_holes

    shape = [int(n) + 1 for n in ((high - low) / size).ceil()]
    y, z = (torch.arange(n, dtype=low.dtype) * size for n in shape[1:])
    found = np.zeros([n + 2 for n in shape], np.float32)
    rows = max(1, POINTS_AT_ONCE // (len(y) * len(z)))
    for begin in range(0, shape[0], rows):
        x = torch.arange(begin, min(begin + rows, shape[0]), dtype=low.dtype) * size
        points = low + torch.stack(torch.meshgrid(x, y, z, indexing="ij"), -1)
        opacity = -torch.expm1(-_density(field, points.flatten(0, 2)) * size)
        found[1 + begin : 1 + begin + len(x), 1:-1, 1:-1] = opacity.view(points.shape[:-1]).numpy()
    found[binary_fill_holes(found > level) & (found <= level)] = 1
    return found - np.float32(level)


def _density(field: RadianceField | Field, points: Tensor) -> Tensor:
    if isinstance(field, KnowsDensity):
        return torch.cat([field.density_at(part) for part in points.split(POINTS_AT_ONCE)])
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand_as(points)
    return ask_in_parts(field, points, ahead)[0]


def _dense(field: SparseVoxels, level: float) -> NDArray[np.float32]:
    """Spread the log of the density, less the level, over the whole grid: empty outside, full in closed hollows."""
    from scipy.ndimage import binary_fill_holes

    x, y, z = (side + 1 for side in field.table.shape)
    places = field.table.corner_places.long().unbind(-1)
    known = torch.zeros(x, y, z, dtype=torch.bool)
    known[places] = True
    hollow = torch.from_numpy(binary_fill_holes(known.numpy())) & ~known
    values = torch.full((x, y, z), -FAR_INSIDE)
    values[hollow] = FAR_INSIDE
    values[places] = field.log_density.detach().float() - level
    return np.pad(values.numpy(), 1, constant_values=-FAR_INSIDE)


def _marching_cubes(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    from skimage.measure import marching_cubes

    if not values.max() > 0:
        raise InputError("extract_surface: nothing in the field is as opaque as that; lower `opacity`")
    vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
    return vertices - 1, faces


def _to_world(field: SparseVoxels, places: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    if not field.contracted:
        return field.middle + field.unit * places
    bent = places * (4 / field.table.shape[0]) - 2
    r = bent.abs().amax(-1, keepdim=True)
    straight = torch.where(r > 1, bent / (r * (2 - r).clamp(min=1 / field.table.shape[0])), bent)
    return field.middle + field.unit * straight
