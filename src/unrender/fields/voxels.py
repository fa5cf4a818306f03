"""A sparse grid of voxels: density and a color that depends on direction, between corners that can be learned."""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, pad

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.harmonics import MAX_DEGREE, spherical_harmonics
from unrender.fields.protocol import FARTHEST, RenderOutput
from unrender.fields.uniform_samples import (
    EVEN_UP_TO,
    occupied_box,
    same_for_all,
    sample_bent,
    sample_contracted,
    sample_parts,
    sample_straight,
)
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays, Stretch, clip_to_box, rays_of
from unrender.kernels.march_voxels import VoxelMarch, march_voxels
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.reference import contract, look_up
from unrender.kernels.march_voxels.table import BRICK, CORNERS, VoxelTable
from unrender.kernels.sample_voxels import sample_voxels
from unrender.kernels.walk_voxels import walk_voxels
from unrender.render.sample import RaySamples

BLACK_TO_WHITE = 0.28209479177387814
"""The constant harmonic."""
RAYS_AT_ONCE = 65_536
"""While rendering: memory does not depend on the size of the picture."""
QUICK_STEPS, FINE_STEPS = 1.0, 2.0
"""Samples for each voxel on the way, in pictures."""
FINE_SKIP, FINE_STOP = 1e-4, 1e-3
"""Weight below which a sample is left out, and transmittance at which a ray ends, in pictures."""


class SparseVoxels(nn.Module):
    """Density and color in the voxels of a box, or of all space.

    Voxels are cubes in rows along the axes of the world. Between their corners, the log of the density (per world
    unit) and the coefficients of the color are interpolated; the color is max(0, ½ + Σ coefficient · harmonic). Where
    there is no voxel, there is nothing.

    contracted: the grid is a cube that holds all space. Its inner half, by side, is the cube of side 2 `unit` about
    `middle`; what is outside is bent by the contraction of Mip-NeRF 360 (Barron et al. 2022, eq. 10, with the largest
    coordinate for the norm). Otherwise the grid begins at `middle`, and `unit` is the side of a voxel.

    near: the distance from where rays begin at which there can be something.
    """

    middle: Float[Tensor, "3"]

    def __init__(
        self,
        table: VoxelTable,
        log_density: Tensor,
        harmonics: Tensor,
        middle: Tensor,
        unit: float,
        background: Float[Tensor, "3"] | None = None,
        *,
        contracted: bool = False,
        near: float = 0.0,
    ) -> None:
        super().__init__()
        self.table, self.unit, self.contracted, self.near = table, unit, contracted, near
        self.log_density, self.harmonics = nn.Parameter(log_density), nn.Parameter(harmonics)
        self.background = nn.Parameter(torch.full((3,), 0.5) if background is None else background.clone())
        self.register_buffer("middle", middle)

    @property
    def degree(self) -> int:
        """Of the spherical harmonics."""
        return int((self.harmonics.shape[1] // 3) ** 0.5) - 1

    @property
    def voxel_size(self) -> float:
        """The side of a voxel, in world units; in contracted space, of those in the inner cube."""
        return self.unit * (4 / self.table.shape[0] if self.contracted else 1)

    @classmethod
    def from_mask(
        cls,
        mask: Bool[Tensor, "x y z"],
        middle: Tensor,
        unit: float,
        *,
        contracted: bool = False,
        near: float = 0.0,
        degree: int = 2,
        opacity: float = 0.05,
    ) -> Self:
        """Begin with grey fog, of so much opacity in each voxel."""
        table = VoxelTable.from_mask(mask)
        size = unit * (4 / table.shape[0] if contracted else 1)
        fog = math.log(-math.log1p(-opacity) / size)
        harmonics = torch.zeros(table.num_corners, 3 * (degree + 1) ** 2)
        density = torch.full((table.num_corners,), fog)
        return cls(table, density, harmonics, middle, unit, contracted=contracted, near=near)

    def opacities(self) -> Float[Tensor, " corners"]:
        """Return how much of the light a way of one voxel's length takes, in [0, 1], at the density of each corner.

        Differentiable in: the parameters.
        """
        return -torch.expm1(-(self.log_density.exp() * self.voxel_size))

    def march(
        self,
        rays: Rays,
        *,
        jitter: Float[Tensor, " rays"] | None = None,
        steps_per_voxel: float = 1.0,
        skip: float = 0.0,
        stop: float = 0.0,
        voxel_weight: Tensor | None = None,
    ) -> VoxelMarch:
        """Add up what rays see, as `march_voxels` does; samples lie in the middle of steps, or where `jitter` says."""
        grid_rays = self._in_grid(rays, spherical_harmonics(rays.directions, self.degree), jitter)
        strides = Strides(self.voxel_size / steps_per_voxel, skip, stop, self.contracted)
        return march_voxels(
            grid_rays, self.log_density, self.harmonics, self.table, strides, voxel_weight=voxel_weight
        )

    @torch.no_grad()
    def samples(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return the places on rays, in one row, of which pictures are made: those that add to what is seen.

        Two for each voxel on the way, with `quick` one; a weight below 1e-4 counts as nothing, and a ray ends where it
        lets through a thousandth.
        Differentiable in: nothing.
        """
        steps_per_voxel = QUICK_STEPS if quick else FINE_STEPS
        strides = Strides(self.voxel_size / steps_per_voxel, FINE_SKIP, FINE_STOP, self.contracted)
        grid_rays = self._in_grid(rays, rays.directions[:, :0])
        return RaySamples(*walk_voxels(grid_rays, self.log_density, self.table, strides))

    def box(self) -> Float[Tensor, "2 3"]:
        """Return the lowest and the highest corner of all voxels or, in contracted space, of the inner cube."""
        if self.contracted:
            return torch.stack([self.middle - self.unit, self.middle + self.unit])
        return self.middle + occupied_box(self.table.bricks >= 0) * (BRICK * self.unit)

    @torch.no_grad()
    def even_samples(
        self, rays: Rays, count: int, *, near: float | None = None, far: float | None = None
    ) -> RaySamples:
        """Return the middles of `count` equal parts of the way of each ray, but for those with no voxel near.

        The way is that through the box of all voxels or, where both are given, from `near` to `far`. In contracted
        space, parts of the whole way grow from three half sides of the inner cube on. Differentiable in: nothing.
        """
        bricks = self.table.bricks >= 0
        given = None if near is None or far is None else same_for_all(rays, near, far)
        if not self.contracted:
            stretch = given or self._filled_stretch(rays)
            return sample_straight(rays, stretch, count, bricks, self.middle, BRICK * self.unit)
        if given is None:
            whole = same_for_all(rays, self.near, FARTHEST * self.unit)
            places = sample_bent(whole, count, EVEN_UP_TO * self.unit)
        else:
            places = sample_parts(given, count)
        return sample_contracted(rays, places, bricks, lambda points: self._places(points) / BRICK)

    def _filled_stretch(self, rays: Rays) -> Stretch:
        begin, end = clip_to_box(rays, *self.box())
        begin, end = (torch.where(end > begin, t, 0) for t in (begin, end))  # those that miss may be endless
        return Stretch(begin.clamp(min=self.near), end)

    def _places(self, points: Tensor) -> Tensor:
        """Return where in the grid points lie, in voxels."""
        places = (points - self.middle) / self.unit
        return contract(places, self.table.shape[0]) if self.contracted else places

    @torch.no_grad()
    def density_at(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """Return the density at points alone, without colors.

        Differentiable in: nothing.
        """
        return sample_voxels(self.log_density, self._places(points), self.table, outside=-math.inf).exp_()

    def _in_grid(self, rays: Rays, basis: Tensor, jitter: Tensor | None = None) -> GridRays:
        begin, end = self._stretch(rays)
        return GridRays(
            (rays.origins - self.middle) / self.unit,
            rays.directions / self.unit,
            begin.clamp(min=self.near),
            end,
            torch.full_like(begin, 0.5) if jitter is None else jitter,
            basis,
        )

    def _stretch(self, rays: Rays) -> tuple[Tensor, Tensor]:
        if self.contracted:
            far = torch.full_like(rays.origins[:, 0], FARTHEST * self.unit)
            return torch.zeros_like(far), far.masked_fill(rays.directions.isnan().any(-1), 0)
        size = self.middle.new_tensor(self.table.shape) * self.unit
        return clip_to_box(rays, self.middle, self.middle + size)

    @torch.no_grad()
    def render(
        self,
        camera: Camera,
        background: Float[Tensor, "3"] | None = None,
        *,
        quick: bool = False,
    ) -> RenderOutput:
        """Return what a camera sees; behind everything is `background`, or the color that was learned for it.

        Colors are in [0, 1]. Rays of an absent direction, beyond the reach of a lens, show the background. With
        `quick`, half as many samples: one for each voxel on the way.
        Differentiable in: nothing.
        """
        behind = (self.background if background is None else background).detach()
        shape = (camera.height, camera.width)
        color, opacity, distance = torch.empty(*shape, 3), torch.empty(shape), torch.empty(shape)
        rows = max(1, RAYS_AT_ONCE // camera.width)
        for top in range(0, camera.height, rows):
            band = camera.crop(0, top, height=min(rows, camera.height - top), width=camera.width)
            rays = rays_of(band).map(lambda t: t.flatten(0, 1))
            seen = self.march(
                rays, steps_per_voxel=QUICK_STEPS if quick else FINE_STEPS, skip=FINE_SKIP, stop=FINE_STOP
            )
            before = (seen.color + (1 - seen.opacity)[:, None] * behind).clamp(0, 1)
            mean = torch.where(seen.opacity > 0, seen.distance / seen.opacity, 0)
            for image, values in ((color, before), (opacity, seen.opacity), (distance, mean)):
                image[top : top + band.height].view(values.shape).copy_(values)
        return RenderOutput(color, opacity, distance)

    @checked
    def forward(
        self, points: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
    ) -> tuple[Tensor, Tensor]:
        """Return density and color at points seen in directions of unit length; both are 0 where there is no voxel.

        Differentiable in: the parameters.
        """
        places = self._places(points).flatten(0, -2)
        voxel, weights = look_up(places, self.table)
        within = (places >= 0) & (places <= places.new_tensor(self.table.shape))
        exists = within.all(-1) & (voxel >= 0)
        corners = self.table.corners[voxel].long()
        density = (self.log_density[corners] * weights).sum(-1).exp()
        mixed = embedding_bag(corners, self.harmonics, per_sample_weights=weights, mode="sum")
        mixed = mixed.unflatten(-1, (3, -1))
        basis = spherical_harmonics(directions.flatten(0, -2), self.degree)
        color = (0.5 + (mixed * basis[:, None]).sum(-1)).clamp(min=0)
        return (density * exists).reshape(points.shape[:-1]), (color * exists[:, None]).reshape(points.shape)

    @torch.no_grad()
    def keep(self, chosen: Bool[Tensor, " voxels"]) -> tuple[Self, Tensor]:
        """Return a grid with some of the voxels, and the numbers that its corners had."""
        mask = torch.zeros(self.table.shape, dtype=torch.bool)
        mask[self.table.voxel_places[chosen].long().unbind(-1)] = True
        table = VoxelTable.from_mask(mask)
        old = self.table.corner_numbers()[table.corner_places.long().unbind(-1)].long()
        return self._like(table, self.log_density[old], self.harmonics[old], self.unit), old

    @torch.no_grad()
    def split(self, degree: int | None = None) -> Self:
        """Return the same field in voxels of half the side, eight for each; its colors may get a higher degree."""
        mask = torch.zeros([2 * side for side in self.table.shape], dtype=torch.bool)
        fine = 2 * self.table.voxel_places.long()[:, None] + torch.from_numpy(CORNERS)
        mask[fine.flatten(0, 1).unbind(-1)] = True
        table = VoxelTable.from_mask(mask)
        parent, weights = self._parents(table)
        corners = self.table.corners[parent].long()
        log_density = (self.log_density[corners] * weights).sum(-1)
        mixed = torch.zeros(table.num_corners, self.harmonics.shape[1])
        for q in range(8):
            mixed.addcmul_(self.harmonics[corners[:, q]], weights[:, q, None])
        more = (max(self.degree, degree or 0) + 1) ** 2 - (self.degree + 1) ** 2
        harmonics = pad(mixed.unflatten(-1, (3, -1)), (0, more)).flatten(1) if more else mixed
        return self._like(table, log_density, harmonics, self.unit if self.contracted else self.unit / 2)

    def _parents(self, table: VoxelTable) -> tuple[Tensor, Tensor]:
        """Return, for every corner of the finer grid, one voxel it lies in, and the weights of that voxel's corners."""
        owner = torch.empty(table.num_corners, dtype=torch.long)
        for q in range(8):
            owner[table.corners[:, q].long()] = torch.arange(table.num_voxels)
        coarse = table.voxel_places[owner].long() // 2
        brick = self.table.bricks[(coarse // 4).unbind(-1)].long()
        voxel = self.table.voxels[brick, (coarse % 4) @ torch.tensor([16, 4, 1])].long()
        share = (table.corner_places / 2 - coarse)[:, None]
        return voxel, torch.where(torch.from_numpy(CORNERS) == 1, share, 1 - share).prod(-1)

    def contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all there is to save: tensors, and what describes them; `from_contents` takes both."""
        tensors = {
            "log_density": self.log_density,
            "harmonics": self.harmonics,
            "background": self.background,
            "middle": self.middle,
            "voxel_places": self.table.voxel_places.to(torch.int16),
        }
        description = {
            "unit": self.unit,
            "contracted": self.contracted,
            "near": self.near,
            "shape": list(self.table.shape),
        }
        return {name: tensor.detach() for name, tensor in tensors.items()}, description

    @classmethod
    def from_contents(cls, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """Make the field that has these contents."""
        _check_contents(tensors, description)
        mask = torch.zeros([int(side) for side in description["shape"]], dtype=torch.bool)
        mask[tensors["voxel_places"].long().unbind(-1)] = True
        table = VoxelTable.from_mask(mask)
        if not len(tensors["log_density"]) == len(tensors["harmonics"]) == table.num_corners:
            raise InputError(
                f"SparseVoxels: {table.num_corners} corners need as many densities and colors, got "
                f"{len(tensors['log_density'])} and {len(tensors['harmonics'])}"
            )
        return cls(
            table,
            tensors["log_density"],
            tensors["harmonics"],
            tensors["middle"],
            float(description["unit"]),
            tensors["background"],
            contracted=bool(description["contracted"]),
            near=float(description["near"]),
        )

    def _like(self, table: VoxelTable, log_density: Tensor, harmonics: Tensor, unit: float) -> Self:
        behind = self.background.detach()
        return type(self)(
            table,
            log_density,
            harmonics,
            self.middle,
            unit,
            behind,
            contracted=self.contracted,
            near=self.near,
        )


def _check_contents(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Refuse what no field holds, as damaged files may."""
    axes = {"log_density": 1, "harmonics": 2, "background": 1, "middle": 1, "voxel_places": 2}
    for name, count in axes.items():
        tensor = tensors[name]
        if tensor.dim() != count or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            raise InputError(f"SparseVoxels: {name} is {tensor.dtype} of shape {list(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"SparseVoxels: {name} has values that are not finite")
    widths = [3 * (degree + 1) ** 2 for degree in range(MAX_DEGREE + 1)]
    if (
        tensors["harmonics"].shape[1] not in widths
        or any(tensors[name].shape[-1] != 3 for name in ("background", "middle", "voxel_places"))
        or bool((tensors["voxel_places"] < 0).any())
    ):
        raise InputError("SparseVoxels: harmonics, background, middle or voxel_places have no right shape")
    unit, near = float(description["unit"]), float(description["near"])
    if not (0 < unit < math.inf and 0 <= near < math.inf):
        raise InputError(f"SparseVoxels: unit {unit} should be above 0, near {near} at least 0")
