"""Poisson surface reconstruction from oriented points, solved by fast Fourier transforms.

The indicator function χ of a solid (1 inside, 0 outside) has the gradient −n δ on its surface. With the points' normals
splatted onto a grid as a vector field V, χ solves ∇²χ = −∇·V: one division per frequency.
Sources: Kazhdan et al. 2006, section 3; Peng et al. 2021 (Shape As Points), eq. 2 to 5.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.shapes import ico_sphere

Array = npt.NDArray[np.float64]
MARGIN = 0.15
"""Padding on each side as a fraction of the bounding box's diagonal: the field is periodic, so that its copies need to
stay apart."""


@checked
def orient_normals(
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    areas: Float[Tensor, " points"],
    *,
    trust_signs: bool = False,
    resolution: int = 128,
    iterations: int = 30,
) -> Float[Tensor, "points 3"]:
    """Orient normals consistently, pointing out of the solid.

    Solve for the indicator function, flip each normal to point down its gradient, repeat (Hou et al. 2022, iterative
    Poisson). The initial signs are the given ones if `trust_signs`, else away from the centroid. The first pass runs at
    half the `resolution`, which captures incomplete point clouds as a whole; the second resolves thin tubes, whose
    sides cancel on the coarse grid.
    """
    p, n, a = (tensor.detach().double().cpu().numpy() for tensor in (points, normals, areas))
    outward = ((p - p.mean(0)) * n).sum(1)
    signs = np.ones(len(p)) if trust_signs else np.where(outward < 0, -1.0, 1.0)
    for cells in (resolution // 2, resolution):
        grid = Grid.around(p, cells)
        for _ in range(iterations):
            gradient = grid.gradient_at(grid.solve(p, n * (signs * a)[:, None]), p)
            flipped = np.where((gradient * n).sum(1) > 0, -1.0, 1.0)
            changed = np.mean(flipped != signs)
            signs = flipped
            if changed < 1e-3:
                break
    if (signs * outward * a).sum() < 0:  # consistent but inside out: the enclosed volume would be negative
        signs = -signs
    return normals * torch.as_tensor(signs, dtype=normals.dtype, device=normals.device)[:, None]


@checked
def poisson_surface(
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    areas: Float[Tensor, " points"],
    *,
    resolution: int = 128,
    blur: float = 1.5,
    reach: float = math.inf,
) -> Mesh:
    """Reconstruct a closed surface: the level set of the indicator function at its mean value over the points.

    `resolution` is the number of grid cells per side, `blur` the standard deviation of the smoothing in cells. The
    solid is clipped to a distance of `reach` from the points' convex hull (approximated by 162 half-spaces), as it is
    unconstrained beyond incomplete point clouds.
    """
    p, n, a = (tensor.detach().double().cpu().numpy() for tensor in (points, normals, areas))
    grid = Grid.around(p, resolution, blur)
    indicator = grid.solve(p, n * a[:, None])
    inside = indicator - float(np.average(grid.values_at(indicator, p), weights=a))
    if math.isfinite(reach):
        inside = np.minimum(inside, (reach - grid.outside_hull(p)) / (2 * blur * grid.cell))
    return grid.surface(inside).to(points.dtype).to(points.device)


@checked
def shell_surface(points: Float[Tensor, "points 3"], radius: float, *, resolution: int = 128) -> Mesh:
    """Extract the surface of the union of balls around the points: a thin closed shell around an open surface."""
    from scipy.spatial import KDTree

    p = points.detach().double().cpu().numpy()
    grid = Grid.around(p, resolution)
    distance = KDTree(p).query(grid.centers(), distance_upper_bound=radius + 4 * grid.cell)[0]
    inside = radius - np.minimum(distance, radius + 4 * grid.cell).reshape((resolution,) * 3)
    return grid.surface(inside).to(points.dtype).to(points.device)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A periodic cubic grid; values are stored at cell centers and interpolated trilinearly."""

    origin: Array
    cell: float
    resolution: int
    blur: float

    @staticmethod
    def around(points: Array, resolution: int, blur: float = 1.5) -> "Grid":
        """Create a grid that encloses points, with a margin."""
        low, high = points.min(0), points.max(0)
        side = float((high - low).max() + 2 * MARGIN * np.linalg.norm(high - low))
        return Grid((low + high) / 2 - side / 2, side / resolution, resolution, blur)

    def solve(self, points: Array, vectors: Array) -> Array:
        """Solve for the indicator function whose gradient is minus the splatted `vectors` (area-weighted normals)."""
        import scipy.fft

        shape = (self.resolution,) * 3
        along = 2 * np.pi * np.fft.fftfreq(self.resolution, self.cell)
        waves = np.meshgrid(along, along, along[: self.resolution // 2 + 1], indexing="ij", sparse=True)
        square = waves[0] ** 2 + waves[1] ** 2 + waves[2] ** 2
        corners = list(self._corners(points))
        divergence = np.zeros(square.shape, complex)
        for axis in range(3):
            field = np.zeros(self.resolution**3)
            for ids, weights in corners:
                field += np.bincount(ids, weights * vectors[:, axis], self.resolution**3)
            divergence += 1j * waves[axis] * scipy.fft.rfftn(field.reshape(shape) / self.cell**3)
        square[0, 0, 0] = 1
        spectrum = divergence / square * np.exp(-0.5 * square * (self.blur * self.cell) ** 2)
        spectrum[0, 0, 0] = 0
        indicator: Array = scipy.fft.irfftn(spectrum, s=shape)
        return indicator

    def values_at(self, field: Array, points: Array) -> Array:
        """Interpolate a field trilinearly at points."""
        values = np.zeros(len(points))
        for ids, weights in self._corners(points):
            values += weights * field.reshape(-1)[ids]
        return values

    def gradient_at(self, field: Array, points: Array) -> Array:
        """Compute the gradient of a field at points by central differences over one cell."""
        steps = self.cell * np.eye(3)
        return np.stack(
            [self.values_at(field, points + step) - self.values_at(field, points - step) for step in steps],
            -1,
        ) / (2 * self.cell)

    def centers(self) -> Array:
        """Return the cell centers [cells 3]."""
        offsets = (np.arange(self.resolution) + 0.5) * self.cell
        return np.stack(np.meshgrid(*(self.origin[:, None] + offsets), indexing="ij"), -1).reshape(-1, 3)

    def outside_hull(self, points: Array) -> Array:
        """Compute how far each cell center is outside the convex hull, as the maximum over 162 directions."""
        centers = self.origin[:, None] + (np.arange(self.resolution) + 0.5) * self.cell
        farthest = np.full((self.resolution,) * 3, -np.inf)
        for direction in ico_sphere(2).vertices.double().numpy():
            x, y, z = direction[:, None] * centers
            beyond = x[:, None, None] + y[:, None] + (z - (points @ direction).max())
            np.maximum(farthest, beyond, out=farthest)
        return farthest

    def surface(self, inside: Array) -> Mesh:
        """Extract the zero level set of a field that is positive inside; cells beyond the grid count as outside."""
        from skimage.measure import marching_cubes

        if not inside.max() > 0:
            raise InputError(
                "fit_mesh: the solid is smaller than a grid cell: the points may form clusters that are far apart; "
                "reconstruct each cluster on its own"
            )
        padded = np.pad(inside, 1, constant_values=-float(np.abs(inside).max()))
        vertices, faces, _, _ = marching_cubes(padded, 0.0, gradient_direction="ascent")
        return Mesh(
            torch.from_numpy(self.origin + (vertices.astype(np.float64) - 0.5) * self.cell),
            torch.from_numpy(faces.astype(np.int64)),
        )

    def _corners(self, points: Array) -> Iterator[tuple[npt.NDArray[np.int64], Array]]:
        """Yield flat index and trilinear weight of each of the eight cell centers around each point."""
        position = (points - self.origin) / self.cell - 0.5
        base = np.floor(position).astype(np.int64)
        fraction = position - base
        for corner in np.ndindex(2, 2, 2):
            weights = np.where(corner, fraction, 1 - fraction).prod(1)
            x, y, z = ((base + corner) % self.resolution).T
            yield (x * self.resolution + y) * self.resolution + z, weights
