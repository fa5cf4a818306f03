"""A sparse grid of voxels with density and view-dependent color, interpolated between their corners (Plenoxels)."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, max_pool3d, pad

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.harmonics import spherical_harmonics
from unrender.fields.protocol import DensityGrid
from unrender.fields.render_field import empty_output, fill_rows
from unrender.fields.schedules import VoxelSchedule, schedule_of
from unrender.fields.trainable import (
    FieldOptions,
    ParameterChange,
    SceneRegion,
    TrainableField,
    read_grid_shape,
    read_near,
    read_scene_box,
)
from unrender.fields.uniform_samples import (
    constant_interval,
    occupied_box,
    uniform_in_cells,
)
from unrender.fields.voxel_contents import check_contents
from unrender.fields.voxel_weights import visible_weights
from unrender.geometry.camera import Camera
from unrender.geometry.rays import RayInterval, Rays, clip_to_box, present_rays
from unrender.geometry.scene_box import SceneBox
from unrender.kernels.march_voxels import VoxelMarch, march_voxels
from unrender.kernels.march_voxels.rays import GridRays, Strides
from unrender.kernels.march_voxels.reference import locate_voxels
from unrender.kernels.march_voxels.table import BRICK, CORNERS, VoxelTable
from unrender.kernels.march_voxels.visible import visible_samples
from unrender.kernels.sample_voxels import sample_voxels
from unrender.kernels.total_variation import total_variation
from unrender.kernels.traverse import CellGrid
from unrender.render.march import RenderOutput
from unrender.render.sample import RaySamples
from unrender.workers import current_workers

RAYS_PER_CHUNK = 65_536
"""Rays rendered at once: memory does not depend on the size of the image."""
QUICK_STEPS, FINE_STEPS = 1.0, 2.0
"""Samples per voxel along a ray, in quick and in full renderings."""
FINE_SKIP, FINE_STOP = 1e-4, 1e-3
"""Weight below which a sample is skipped, and transmittance at which a ray terminates, in renderings."""
SKIP, STOP = 1e-3, 1e-3
"""The same in training."""
SCHEDULE = VoxelSchedule()
MAX_KEPT = 0.95
"""Fraction of the voxels: if pruning would keep more, it keeps all, to save the time of rebuilding the table."""
INITIAL_OPACITY, INITIAL_OPACITY_CONTRACTED = 0.05, 0.01
"""Initial opacity of voxels: lower in contracted space, where cameras are among them and look through them."""
DENSITY_RATE, COLOR_RATE, ADAM_EPSILON = 0.3, 0.02, 1e-12
"""Learning rates of the log density and of the color coefficients, and ε, of Adam."""


class SparseVoxels(TrainableField):
    """Density and color in the voxels of a box, or of all space.

    Voxels are cubes along the axes of the scene box. Between their corners, the log of the density (per world unit) and
    the coefficients of the color are interpolated; the color is max(0, ½ + Σ coefficient · harmonic). Where there is no
    voxel, the density is 0. In contracted space, the voxels fill the whole cube of contracted coordinates.
    """

    final_learning_rate, keeps_samples, patch_size = 0.1, False, 4

    def __init__(
        self,
        table: VoxelTable,
        log_density: Float[Tensor, " corners"],
        harmonics: Float[Tensor, "corners coefficients"],
        scene_box: SceneBox,
        background: Float[Tensor, "3"] | None = None,
        *,
        near: float = 0.0,
    ) -> None:
        super().__init__(scene_box, near=near, background=background)
        sizes = scene_box.half_extent / scene_box.half_extent.new_tensor(table.shape)
        if float(sizes.amax()) > 1.001 * float(sizes.amin()):
            raise InputError(
                f"SparseVoxels: {list(table.shape)} voxels in a box of {(2 * scene_box.half_extent).tolist()} are not "
                "cubes"
            )
        self.log_density, self.harmonics = nn.Parameter(log_density), nn.Parameter(harmonics)
        self._stage = self._age = 0
        self._set_table(table)

    def _set_table(self, table: VoxelTable) -> None:
        box = self.scene_box
        self.table = table
        self.voxel_size = 2 * float(box.half_extent[0]) * (2 if box.contracted else 1) / table.shape[0]
        """Side of a voxel, in world units; in contracted space, of those in the inner cube."""
        self._max_weight = torch.zeros(table.num_voxels, device=box.center.device)
        self._neighbors: Tensor | None = None

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the table of voxels, too, where the module is moved."""
        super()._apply(function, recurse)
        self.table, self._max_weight = self.table.map(function), function(self._max_weight)
        self._neighbors = None if self._neighbors is None else function(self._neighbors)
        return self

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics."""
        return int((self.harmonics.shape[1] // 3) ** 0.5) - 1

    @classmethod
    def from_mask(
        cls,
        mask: Bool[Tensor, "x y z"],
        scene_box: SceneBox,
        *,
        near: float = 0.0,
        degree: int = 2,
        opacity: float = 0.05,
    ) -> Self:
        """Return a gray field of uniform opacity per voxel, in the voxels of a mask that fills the scene box."""
        table = VoxelTable.from_mask(mask)
        harmonics = torch.zeros(table.num_corners, 3 * (degree + 1) ** 2)
        field = cls(table, torch.zeros(table.num_corners), harmonics, scene_box, near=near)
        nn.init.constant_(field.log_density, math.log(-math.log1p(-opacity) / field.voxel_size))
        return field

    @classmethod
    def region_cells(cls, options: FieldOptions) -> int:
        """Return the size of the initial, coarsest grid."""
        return options.resolution // schedule_of(options.schedule, SCHEDULE).coarsening[0][1]

    @classmethod
    def create(cls, region: SceneRegion, options: FieldOptions, generator: torch.Generator) -> Self:
        """Return a gray field of uniform opacity in the voxels of the region; the generator is not used."""
        contracted = region.scene_box.contracted
        opacity = INITIAL_OPACITY_CONTRACTED if contracted else INITIAL_OPACITY
        field = cls.from_mask(region.occupied, region.scene_box, near=region.near, degree=0, opacity=opacity)
        field.expected_growth = schedule_of(options.schedule, SCHEDULE).growth(options.degree)
        return field

    def opacities(self) -> Float[Tensor, " corners"]:
        """Return the opacity, in [0, 1], of a ray segment of one voxel size at the density of each corner.

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
        keep_voxel_weights: bool = False,
    ) -> VoxelMarch:
        """Render a row of rays on black with `march_voxels`; samples lie at the centers of steps, or at `jitter`."""
        grid_rays = self._grid_rays(rays, spherical_harmonics(rays.directions, self.degree), jitter)
        strides = self._strides(steps_per_voxel, skip, stop)
        return march_voxels(
            grid_rays,
            self.log_density,
            self.harmonics,
            self.table,
            strides,
            keep_voxel_weights=keep_voxel_weights,
        )

    def _strides(self, steps_per_voxel: float, skip: float, stop: float) -> Strides:
        return Strides(self.voxel_size / steps_per_voxel, skip, stop, self.scene_box.contracted)

    @torch.no_grad()
    def sample(
        self, rays: Rays, *, quick: bool = False, generator: torch.Generator | None = None
    ) -> RaySamples:
        """Return the visible samples: two per voxel, one with `quick`.

        Samples of weights below 1e-4 are skipped, and a ray terminates at a transmittance of 1e-3.
        Differentiable in: nothing.
        """
        strides = self._strides(QUICK_STEPS if quick else FINE_STEPS, FINE_SKIP, FINE_STOP)
        grid_rays = self._grid_rays(rays, rays.directions[:, :0], _jitter(rays, generator))
        return RaySamples(*visible_samples(grid_rays, self.log_density, self.table, strides))

    def bounds(self) -> Float[Tensor, "2 3"]:
        """Return the corners of the box around all voxels or, in contracted space, of the inner cube."""
        bounds = self.scene_box.bounds
        if self.scene_box.contracted:
            return bounds
        return bounds[0] + occupied_box(self.table.bricks >= 0) * (BRICK * self.voxel_size)

    @torch.no_grad()
    def sample_uniform(
        self, rays: Rays, num_samples: int, *, near: float | None = None, far: float | None = None
    ) -> RaySamples:
        """Return the centers of equal intervals of each ray, but for those far from any voxel.

        Intervals divide the ray within the box around all voxels or, where both are given, from `near` to `far`. In
        contracted space, those of whole rays grow from three half extents on. Differentiable in: nothing.
        """
        box = self.scene_box
        grid = CellGrid.from_mask(
            self.table.bricks >= 0, box.center, box.half_extent, contracted=box.contracted
        )
        given = None if near is None or far is None else constant_interval(rays, near, far)
        interval = given or (
            box.intersect(rays, self.near) if box.contracted else self._filled_interval(rays)
        )
        return uniform_in_cells(rays, grid, box, interval, num_samples, is_given=given is not None)

    def _filled_interval(self, rays: Rays) -> RayInterval:
        t_near, t_far = clip_to_box(rays, *self.bounds())
        hits = t_far > t_near
        t_near, t_far = (torch.where(hits, t, 0) for t in (t_near, t_far))  # misses may be infinite
        return RayInterval(t_near.clamp(min=self.near), t_far)

    def _grid_points(self, points: Tensor) -> Tensor:
        """Return positions in the grid, in voxels."""
        if self.scene_box.contracted:
            return self.scene_box.normalize(points) * self.table.shape[0]
        return (points - self.scene_box.bounds[0]) / self.voxel_size

    @torch.no_grad()
    def density(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """Return the density per world unit alone, without colors.

        Differentiable in: nothing.
        """
        return sample_voxels(
            self.log_density, self._grid_points(points), self.table, outside=-math.inf
        ).exp_()

    def _grid_rays(self, rays: Rays, basis: Tensor, jitter: Tensor | None) -> GridRays:
        box = self.scene_box
        t_near, t_far = box.intersect(rays, self.near)
        if box.contracted:
            local = box.local_rays(rays)
        else:
            local = Rays((rays.origins - box.bounds[0]) / self.voxel_size, rays.directions / self.voxel_size)
        jitter = torch.full_like(t_near, 0.5) if jitter is None else jitter
        return GridRays(local.origins, local.directions, t_near, t_far, jitter, basis)

    @torch.no_grad()
    def render(
        self, camera: Camera, background: Float[Tensor, "3"] | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Render the view of a camera on `background` or the field's own.

        Colors are in [0, 1]. Rays without a direction, outside the field of view of a lens, show the background. With
        `quick`, there are half as many samples: one per voxel.
        Differentiable in: nothing.
        """
        background_color = self.background if background is None else background
        background_color = background_color.detach().to(self.background.device)
        camera = camera.to(background_color.device)
        output = empty_output(camera, background_color)
        rows = max(1, RAYS_PER_CHUNK // camera.width)
        steps = QUICK_STEPS if quick else FINE_STEPS
        for top in range(0, camera.height, rows):
            band = camera.crop(0, top, height=min(rows, camera.height - top), width=camera.width)
            rays, valid = present_rays(band)
            found = self.march(rays, steps_per_voxel=steps, skip=FINE_SKIP, stop=FINE_STOP)
            color = found.color + (1 - found.opacity)[:, None] * background_color
            rendered = RenderOutput(color, found.opacity, found.distance)
            fill_rows(output, slice(top, top + band.height), valid, rendered)
        return output

    @checked
    def forward(
        self, points: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
    ) -> tuple[Tensor, Tensor]:
        """Return density and color at points viewed along unit directions; both are 0 where there is no voxel.

        Differentiable in: the parameters.
        """
        positions = self._grid_points(points).flatten(0, -2)
        voxel, weights = locate_voxels(positions, self.table)
        within = (positions >= 0) & (positions <= positions.new_tensor(self.table.shape))
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
        """Return a field with some of the voxels, and the indices of its corners in this field."""
        mask = chosen.new_zeros(self.table.shape)
        mask[self.table.voxel_positions[chosen].long().unbind(-1)] = True
        table = VoxelTable.from_mask(mask)
        old = self.table.corner_numbers()[table.corner_positions.long().unbind(-1)].long()
        return self._like(table, self.log_density[old], self.harmonics[old]), old

    def crop(self, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> Self | None:
        """Return the voxels whose centers lie between two corners; None if there are none."""
        size = self.background.new_tensor(self.table.shape)
        centers = self.scene_box.denormalize((self.table.voxel_positions + 0.5) / size)
        inside = ((centers >= low.to(centers)) & (centers <= high.to(centers))).all(-1)
        return self.keep(inside)[0] if bool(inside.any()) else None

    @torch.no_grad()
    def density_grid(self) -> DensityGrid:
        """Return the log of the density at all corners of the grid, and where corners exist."""
        shape = [side + 1 for side in self.table.shape]
        positions = self.table.corner_positions.long().unbind(-1)
        values = self.log_density.new_full(shape, -math.inf, dtype=torch.float32)
        known = torch.zeros_like(values, dtype=torch.bool)
        known[positions] = True
        values[positions] = self.log_density.detach().float()
        return DensityGrid(values, known, self.voxel_size)

    @torch.no_grad()
    def split(self, degree: int | None = None) -> Self:
        """Return the same field in voxels of half the side, eight for each; the degree of the colors may be raised."""
        device = self.log_density.device
        mask = torch.zeros([2 * side for side in self.table.shape], dtype=torch.bool, device=device)
        fine = 2 * self.table.voxel_positions.long()[:, None] + torch.from_numpy(CORNERS).to(device)
        mask[fine.flatten(0, 1).unbind(-1)] = True
        table = VoxelTable.from_mask(mask)
        parent, weights = self._parents(table)
        corners = self.table.corners[parent].long()
        log_density = (self.log_density[corners] * weights).sum(-1)
        mixed = self.harmonics.new_zeros(table.num_corners, self.harmonics.shape[1])
        for q in range(8):
            mixed.addcmul_(self.harmonics[corners[:, q]], weights[:, q, None])
        more = (max(self.degree, degree or 0) + 1) ** 2 - (self.degree + 1) ** 2
        harmonics = pad(mixed.unflatten(-1, (3, -1)), (0, more)).flatten(1) if more else mixed
        return self._like(table, log_density, harmonics)

    def _parents(self, table: VoxelTable) -> tuple[Tensor, Tensor]:
        """Return, for every corner of the finer grid, one voxel it lies in, and the weights of that voxel's corners."""
        device = table.corners.device
        owner = torch.empty(table.num_corners, dtype=torch.long, device=device)
        for q in range(8):
            owner[table.corners[:, q].long()] = torch.arange(table.num_voxels, device=device)
        coarse = table.voxel_positions[owner].long() // 2
        brick = self.table.bricks[(coarse // 4).unbind(-1)].long()
        x, y, z = (coarse % 4).unbind(-1)
        voxel = self.table.voxels[brick, 16 * x + 4 * y + z].long()
        fraction = (table.corner_positions / 2 - coarse)[:, None]
        return voxel, torch.where(torch.from_numpy(CORNERS).to(device) == 1, fraction, 1 - fraction).prod(-1)

    def _like(self, table: VoxelTable, log_density: Tensor, harmonics: Tensor) -> Self:
        background = self.background.detach()
        return type(self)(table, log_density, harmonics, self.scene_box, background, near=self.near)

    def training_outputs(self, rays: Rays, generator: torch.Generator) -> tuple[RenderOutput, ...]:
        """Render rays on black, from randomly placed samples, and record the weights of voxels.

        Differentiable in: the parameters.
        """
        found = self.march(
            rays,
            jitter=torch.rand(len(rays.origins), generator=generator, device=generator.device).to(
                rays.origins
            ),
            skip=SKIP,
            stop=STOP,
            keep_voxel_weights=True,
        )
        assert found.voxel_weights is not None
        self._max_weight = torch.maximum(self._max_weight, found.voxel_weights.to(self._max_weight))
        return (RenderOutput(found.color, found.opacity, found.distance),)

    def training_weights(self, rays: Rays, generator: torch.Generator) -> tuple[RaySamples, Tensor]:
        """Return the visible samples of rays, randomly placed, and their weights."""
        grid_rays = self._grid_rays(rays, rays.directions[:, :0], _jitter(rays, generator))
        return visible_weights(grid_rays, self.log_density, self.table, self._strides(1.0, SKIP, STOP))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return densities and colors with a learning rate each."""
        return [
            {"params": [self.log_density], "lr": DENSITY_RATE, "eps": ADAM_EPSILON},
            {"params": [self.harmonics, self.background], "lr": COLOR_RATE, "eps": ADAM_EPSILON},
        ]

    def regularization(self, options: FieldOptions) -> Tensor | None:
        """Return the total variation of opacity and color, and the mean opacity, weighted."""
        if options.smoothness == options.sparsity == 0:
            return None
        if self._neighbors is None:
            self._neighbors = self.table.neighbors()
        opacity = self.opacities()
        variation = total_variation(opacity[:, None], self._neighbors) + total_variation(
            self.harmonics, self._neighbors
        )
        return options.smoothness * variation + options.sparsity * opacity.mean()

    def num_rays(self, progress: float, options: FieldOptions) -> int:
        """Return fewer rays while the grid is coarse, in whole patches."""
        patch, coarsening = self.patch_size**2, schedule_of(options.schedule, SCHEDULE).coarsening
        return patch * max(1, options.rays // patch // coarsening[self._stage][1])

    def begin_step(self, progress: float, options: FieldOptions) -> ParameterChange | None:
        """Prune at regular intervals, and split voxels when the next stage of the schedule is reached."""
        schedule = schedule_of(options.schedule, SCHEDULE)
        pause, stages = schedule.pruning_steps, schedule.coarsening
        if options.steps is not None:
            pause = min(pause, max(1, int(options.steps * schedule.pruning_fraction)))
        if self._age < pause:
            return None
        self._age = 0
        is_due = self._stage + 1 < len(stages) and progress >= stages[self._stage + 1][0]
        old = self._prune(schedule.min_weight)
        if is_due:  # coarse grids have colors of low degree: 0, then 1, then all
            self._stage += 1
            last = self._stage == len(stages) - 1
            self._replace(self.split(options.degree if last else min(self._stage, options.degree)))
            return ParameterChange(dict.fromkeys(("log_density", "harmonics", "background")))
        return None if old is None else ParameterChange({"log_density": old, "harmonics": old})

    def end_step(self, progress: float, options: FieldOptions) -> None:
        """Count the steps since the last pruning."""
        self._age += 1

    def _prune(self, min_weight: float) -> Tensor | None:
        """Remove voxels without weight in them or a neighbor; return the old indices of the remaining corners."""
        current_workers().maximum(self._max_weight)
        positions = self.table.voxel_positions.long().unbind(-1)
        dense = self.log_density.new_zeros(self.table.shape, dtype=torch.float32)
        dense[positions] = (self._max_weight > min_weight).float()
        for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
            dense = max_pool3d(dense[None], size, 1, tuple(n // 2 for n in size))[0]
        kept = dense[positions] > 0
        self._max_weight.zero_()
        if not 0 < int(kept.sum()) <= MAX_KEPT * len(kept):
            return None
        field, old = self.keep(kept)
        self._replace(field)
        return old

    def _replace(self, other: Self) -> None:
        """Adopt the voxels and parameters of another field."""
        self.log_density, self.harmonics = other.log_density, other.harmonics
        self._set_table(other.table)

    def training_state(self) -> tuple[dict[str, Tensor], dict[str, int | float]]:
        """Return the recorded weights, the stage, and the steps since the last pruning."""
        current_workers().maximum(self._max_weight)
        return {"max_weight": self._max_weight}, {"stage": self._stage, "age": self._age}

    def load_training_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, int | float]) -> None:
        """Restore the result of `training_state`."""
        self._max_weight = tensors["max_weight"].to(self.log_density.device, copy=True)
        self._stage, self._age = int(numbers["stage"]), int(numbers["age"])

    def contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all there is to save: tensors, and a description; `from_contents` reads both."""
        tensors, description = super().contents()
        voxels = self.table.voxel_positions.to(torch.int16)
        return tensors | {"voxels": voxels}, description | {"shape": list(self.table.shape)}

    @classmethod
    def from_contents(cls, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """Return the field with these contents."""
        check_contents(tensors)
        mask = torch.zeros(read_grid_shape(description), dtype=torch.bool)
        mask[tensors["voxels"].long().unbind(-1)] = True
        table = VoxelTable.from_mask(mask)
        if not len(tensors["log_density"]) == len(tensors["harmonics"]) == table.num_corners:
            raise InputError(
                f"SparseVoxels: {table.num_corners} corners need as many densities and colors, got "
                f"{len(tensors['log_density'])} and {len(tensors['harmonics'])}"
            )
        return cls(
            table,
            tensors["log_density"].clone(),
            tensors["harmonics"].clone(),
            read_scene_box(tensors, description),
            tensors["background"],
            near=read_near(description),
        )

    def describe(self) -> dict[str, int | float]:
        """Return the number and size of voxels."""
        return {
            "num_voxels": self.table.num_voxels,
            "voxel_size": self.voxel_size,
            "longest_side": max(self.table.shape),
            "degree": self.degree,
        }


def _jitter(rays: Rays, generator: torch.Generator | None) -> Tensor | None:
    if generator is None:
        return None
    return torch.rand(len(rays.origins), generator=generator, device=generator.device).to(rays.origins.device)
