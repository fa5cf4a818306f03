"""UV atlases: the parametrization of a mesh by charts that are packed into a square texture, with xatlas."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from unrender._struct import TensorStruct
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh

MIN_TEXTURE_SIZE, MAX_TEXTURE_SIZE = 16, 16384
NUM_PACKINGS = 12
"""Packings at most: each scales the charts by what the previous one exceeded or left free."""
MIN_FILL = 0.97
"""A packing whose longer side is this fraction of the texture is not improved."""
MIN_CHART_SIDE = 2
"""Mean side of the charts in texels below which the atlas is too small for them."""

Floats = NDArray[np.float32]
Indices = NDArray[np.uint32]


class UVAtlas(TensorStruct):
    """UV coordinates for the corners of each face of a mesh, without overlaps, in a square texture.

    u increases to the right and v upwards, as in `Texture`.
    """

    uvs: Float[torch.Tensor, "uvs 2"]
    faces: Int[torch.Tensor, "faces 3"]
    """Indices into `uvs` for the corners of the mesh's faces, in the order of the mesh."""
    texture_size: int
    """Side of the texture in texels."""
    num_charts: int


def unwrap(mesh: Mesh, *, texture_size: int = 2048, padding: int = 4) -> UVAtlas:
    """Unwrap a mesh: cut it into charts, flatten them, and pack them into a square texture.

    Charts keep the proportions of their areas. They are at least `padding` texels apart, so that bilinear filtering
    and the first log₂ `padding` mip levels do not mix their colors. Simplify large meshes first: 100,000 faces take
    about 20 seconds.
    Raises InputError if the texture is too small for the charts; the message has the size that is needed.
    Differentiable in: nothing.
    Source: xatlas (Young 2018), after Sander et al. 2003 and Lévy et al. 2002.
    """
    _check(mesh, texture_size, padding)
    charts = _compute_charts(mesh, texture_size, padding)
    positions = _fit(charts, texture_size, padding) / np.float32(texture_size)
    uvs = np.stack([positions[:, 0], 1 - positions[:, 1]], 1).astype(np.float32)
    device = mesh.faces.device
    faces = torch.from_numpy(charts.faces.astype(np.int64)).to(device)
    return UVAtlas(torch.from_numpy(uvs).to(device), faces, texture_size, charts.num_charts)


class _Charts(NamedTuple):
    """Charts packed into a rectangle."""

    positions: Floats
    """In texels, from the upper left corner."""
    faces: Indices
    num_charts: int
    longest: int
    """Longer side of the rectangle in texels."""

    def mean_side(self) -> float:
        """Return the square root of the mean area of a chart, in texels."""
        a, b, c = (self.positions[self.faces[:, k]].astype(np.float64) for k in range(3))
        (x, y), (z, w) = (b - a).T, (c - a).T
        return math.sqrt(np.abs(x * w - y * z).sum() / 2 / self.num_charts)


def _check(mesh: Mesh, texture_size: int, padding: int) -> None:
    if mesh.vertices.dim() != 2 or len(mesh.faces) == 0:
        raise InputError(
            f"unwrap: `mesh` should be a single mesh with faces, got {len(mesh.faces)} faces and vertices "
            f"{list(mesh.vertices.shape)}"
        )
    if not bool(mesh.vertices.isfinite().all()):
        raise InputError("unwrap: `mesh` has NaN or infinite vertices; repair or remove them")
    if not MIN_TEXTURE_SIZE <= texture_size <= MAX_TEXTURE_SIZE:
        raise InputError(
            f"unwrap: `texture_size` should be {MIN_TEXTURE_SIZE} to {MAX_TEXTURE_SIZE} texels, got {texture_size}"
        )
    if not 0 <= padding < texture_size / 4:
        raise InputError(
            f"unwrap: `padding` should be 0 to {math.ceil(texture_size / 4) - 1} texels for this texture, got {padding}"
        )


def _normalized(mesh: Mesh) -> Floats:
    """Scale vertices to the unit cube: xatlas takes single precision, and has absolute tolerances."""
    vertices = mesh.vertices.detach().double()
    low, high = vertices[mesh.faces.flatten().unique()].aminmax(dim=0)
    extent = float((high - low).max())
    if not extent > 0:
        raise InputError("unwrap: the faces of `mesh` have no area: their vertices coincide")
    scaled: Floats = ((vertices - low) / extent).cpu().numpy().astype(np.float32)
    return scaled


def _compute_charts(mesh: Mesh, texture_size: int, padding: int) -> _Charts:
    xatlas = _import_xatlas()
    atlas = xatlas.Atlas()
    atlas.add_mesh(_normalized(mesh), mesh.faces.cpu().numpy().astype(np.uint32))
    atlas.generate(xatlas.ChartOptions(), _packing(resolution=texture_size, padding=padding))
    _, faces, uvs = atlas[0]
    size = np.array([atlas.width, atlas.height], np.float32)
    return _Charts(uvs * size, faces, int(atlas.chart_count), max(atlas.width, atlas.height))


def _pack(charts: _Charts, scale: float, padding: int) -> _Charts:
    """Scale charts and pack them into a rectangle of any size."""
    atlas = _import_xatlas().Atlas()
    atlas.add_uv_mesh(charts.positions, charts.faces)
    atlas.generate(pack_options=_packing(padding=padding, texels_per_unit=scale))
    size = np.array([atlas.width, atlas.height], np.float32)
    return charts._replace(positions=atlas[0][2] * size, longest=max(atlas.width, atlas.height))


def _packing(*, padding: int, resolution: int = 0, texels_per_unit: float = 0.0) -> Any:
    options = _import_xatlas().PackOptions()
    options.resolution, options.padding, options.texels_per_unit = resolution, padding, texels_per_unit
    return options


def _fit(charts: _Charts, texture_size: int, padding: int) -> Floats:
    """Return the positions of the charts at about the largest scale at which they fit into the texture."""
    fitting, low, high = None, 0.0, math.inf  # scales that fit, and that do not
    packed, scale = charts, 1.0
    for _ in range(NUM_PACKINGS):
        if packed.longest <= texture_size:
            low, fitting = scale, packed
        else:
            high = scale
        if MIN_FILL * texture_size <= packed.longest <= texture_size or high - low < (1 - MIN_FILL) * low:
            break
        guess = scale * (texture_size - 1) / packed.longest
        scale = guess if low < guess < high else (low + min(high, 2 * guess)) / 2
        packed = _pack(charts, scale, padding)
    if fitting is None or fitting.mean_side() < MIN_CHART_SIDE:
        smallest = _pack(charts, MIN_CHART_SIDE / charts.mean_side(), padding).longest
        raise InputError(
            f"unwrap: a texture of {texture_size} × {texture_size} texels is too small for {charts.num_charts} charts "
            f"with a padding of {padding}; use at least {2 ** math.ceil(math.log2(smallest + 1))}, or simplify the mesh"
        )
    return fitting.positions


def _import_xatlas() -> Any:
    try:
        import xatlas
    except ImportError as error:
        raise InputError(
            "unwrap: UV atlases need the package xatlas: pip install 'unrender[surface]'; or use vertex colors"
        ) from error
    return xatlas
