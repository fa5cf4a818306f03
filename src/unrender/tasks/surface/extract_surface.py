"""Extraction of a mesh from a field: a level set of its density."""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unrender.errors import InputError
from unrender.fields.callable_field import as_field
from unrender.fields.protocol import DensityGrid, Field, HasDensityGrid
from unrender.fields.render_field import POINTS_PER_QUERY, density_in_chunks
from unrender.geometry.mesh import Mesh, vertex_normals
from unrender.geometry.points import PointCloud
from unrender.render.march import FieldFunction

VERTICES_PER_QUERY = 65_536
"""Vertices whose colors are evaluated at once."""
SOLID_LOG_DENSITY = 4.0
"""Log-density above the level that is assigned to closed cavities, whose voxels were pruned."""
DEFAULT_RESOLUTION = 192
"""Default number of voxels along the longest side."""
MAX_VOXELS = 2**28


@torch.no_grad()
def extract_surface(
    field: Field | FieldFunction,
    *,
    opacity: float = 0.5,
    voxel_size: float | None = None,
    box: Float[Tensor, "2 3"] | None = None,
) -> Mesh:
    """Extract the surface of a field by marching cubes, with colors.

    The surface is the level set at which a voxel has the given opacity: the density −log(1 − opacity) / voxel_size, see
    `surface_density`. The grid of a field that has one (`HasDensityGrid`) is used directly, with marching cubes on its
    log-density. Other fields, and all if `voxel_size` or `box` is given, are sampled at voxel corners, chunk by chunk,
    with marching cubes on the opacity of a voxel. Closed cavities, which no ray can reach, are filled. Colors are
    evaluated along the normals. Faces are counterclockwise from outside; vertices are in world units.

    voxel_size: in world units; by default 1/192 of the longest side of the box. box: its lowest and highest corner; by
    default the bounds of the field. Raises InputError if the field has no such surface.
    Differentiable in: nothing.
    """
    if not 0 < opacity < 1:
        raise InputError(f"extract_surface: `opacity` should be above 0 and below 1, got {opacity}")
    known = as_field(field)
    if isinstance(known, HasDensityGrid) and voxel_size is None and box is None:
        grid = known.density_grid()
        vertices, faces = _marching_cubes(_log_density_above(grid, opacity))
        points = _to_world(known, grid, torch.from_numpy(vertices).to(grid.log_density.device))
    else:
        low, high = _bounds(field, box)
        size = choose_voxel_size(torch.stack([low, high]), voxel_size)
        vertices, faces = _marching_cubes(_sample_opacity(known, low, high, size, opacity))
        points = low + size * torch.from_numpy(vertices).to(low.device)
    mesh = Mesh(points.float(), torch.from_numpy(faces.astype(np.int64)).to(points.device))
    normals = vertex_normals(mesh)
    chunks = zip(mesh.vertices.split(VERTICES_PER_QUERY), normals.split(VERTICES_PER_QUERY), strict=True)
    colors = [known(points, -normal)[1] for points, normal in chunks]
    return mesh.replace(vertex_colors=torch.cat(colors).clamp(0, 1))


def surface_density(field: Field, opacity: float, voxel_size: float | None = None) -> float:
    """Return the density, per world unit, of the level set that `extract_surface` extracts."""
    if isinstance(field, HasDensityGrid) and voxel_size is None:
        size = field.density_grid().voxel_size
    else:
        size = choose_voxel_size(field.bounds(), voxel_size)
    return -math.log1p(-opacity) / size


def choose_voxel_size(box: Float[Tensor, "2 3"], voxel_size: float | None) -> float:
    """Return the voxel size with which `extract_surface` samples a box; raise InputError if invalid or too small."""
    sides = box[1] - box[0]
    size = float(sides.max()) / DEFAULT_RESOLUTION if voxel_size is None else voxel_size
    if not 0 < size < math.inf:
        raise InputError(f"extract_surface: `voxel_size` should be positive and finite, got {size}")
    if math.prod(float(side) / size + 1 for side in sides) > MAX_VOXELS:
        raise InputError(
            f"extract_surface: {' × '.join(f'{float(side) / size:.0f}' for side in sides)} voxels are too many; give a "
            "larger `voxel_size`"
        )
    return size


def cloud_from_mesh(mesh: Mesh) -> PointCloud:
    """Return the vertices of a mesh with their normals and colors."""
    return PointCloud(mesh.vertices, vertex_normals(mesh), mesh.vertex_colors)


def _bounds(field: Field | FieldFunction, box: Tensor | None) -> tuple[Tensor, Tensor]:
    if box is None:
        if not isinstance(field, Field):
            raise InputError("extract_surface: a function has no bounds; give a `box`")
        box = field.bounds()
    low, high = box
    if not bool(((high > low) & low.isfinite() & high.isfinite()).all()):
        raise InputError(
            "extract_surface: `box` should be two finite corners, the first below the second, got "
            f"{low.tolist()} and {high.tolist()}"
        )
    return low, high


def _sample_opacity(
    field: Field, low: Tensor, high: Tensor, size: float, level: float
) -> NDArray[np.float32]:
    """Return the opacity per voxel, minus the level, at voxel corners; closed cavities are filled."""
    from scipy.ndimage import binary_fill_holes

    shape = [int(n) + 1 for n in ((high - low) / size).ceil()]
    y, z = (torch.arange(n, dtype=low.dtype, device=low.device) * size for n in shape[1:])
    found = np.zeros([n + 2 for n in shape], np.float32)
    rows = max(1, POINTS_PER_QUERY // (len(y) * len(z)))
    for start in range(0, shape[0], rows):
        x = torch.arange(start, min(start + rows, shape[0]), dtype=low.dtype, device=low.device) * size
        points = low + torch.stack(torch.meshgrid(x, y, z, indexing="ij"), -1)
        opacity = -torch.expm1(-density_in_chunks(field, points.flatten(0, 2)) * size)
        found[1 + start : 1 + start + len(x), 1:-1, 1:-1] = opacity.view(points.shape[:-1]).cpu().numpy()
    found[binary_fill_holes(found > level) & (found <= level)] = 1
    return found - np.float32(level)


def _log_density_above(grid: DensityGrid, opacity: float) -> NDArray[np.float32]:
    """Return the log-density, minus the level, at all grid points; closed cavities are filled, the outside is empty."""
    from scipy.ndimage import binary_fill_holes

    known = grid.is_known.cpu().numpy()
    level = np.float32(math.log(-math.log1p(-opacity) / grid.voxel_size))
    values = np.where(binary_fill_holes(known), np.float32(SOLID_LOG_DENSITY), np.float32(-SOLID_LOG_DENSITY))
    values[known] = grid.log_density.cpu().numpy()[known] - level
    return np.pad(values, 1, constant_values=-SOLID_LOG_DENSITY)


def _marching_cubes(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    from skimage.measure import marching_cubes

    if not values.max() > 0:
        raise InputError("extract_surface: the field does not reach this opacity anywhere; lower `opacity`")
    vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
    return vertices - 1, faces


def _to_world(
    field: Field, grid: DensityGrid, vertices: Float[Tensor, "points 3"]
) -> Float[Tensor, "points 3"]:
    """Convert grid points to world coordinates; in contracted space, move those at infinity in by a quarter voxel."""
    cells = vertices.new_tensor(grid.log_density.shape) - 1
    coordinates = vertices / cells
    if field.scene_box.contracted:
        coordinates = coordinates.clamp(1 / (4 * cells), 1 - 1 / (4 * cells))
    return field.scene_box.denormalize(coordinates)
