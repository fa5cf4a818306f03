"""A radiance field in a hash table (Instant-NGP): fast to train on any machine."""

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unrender.errors import InputError
from unrender.fields.early_termination import density_with_early_termination
from unrender.fields.harmonics import spherical_harmonics
from unrender.fields.occupancy import OccupancyGrid
from unrender.fields.schedules import HashSchedule, schedule_of, stage_at
from unrender.fields.trainable import (
    FieldOptions,
    ParameterChange,
    SceneRegion,
    TrainableField,
    read_near,
    read_scene_box,
)
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays
from unrender.geometry.scene_box import SceneBox
from unrender.kernels._dispatch import implementation
from unrender.kernels.composite import composite
from unrender.kernels.hash_grid import HashLevels, hash_grid
from unrender.kernels.tiny_mlp import tiny_mlp
from unrender.kernels.tiny_mlp.reference import truncated_exp
from unrender.render.march import RenderOutput
from unrender.render.sample import RaySamples

WIDTH, GEOMETRY = 64, 16
"""Width of the hidden layers, and of what the density MLP passes to the color MLP."""
DEGREE = 3
"""Degree of the spherical harmonics that encode directions."""
TABLE_RANGE = 1e-4
"""Features are initialized within ± this (Müller et al. 2022, section 4)."""
INITIAL_OPACITY = 0.01
"""Initial opacity of the interval between samples."""
STOP, SKIP = 1e-3, 1e-3
"""Transmittance at which a ray ends, and weight below which a sample is skipped."""
ROUNDS = (6, 12, 24, 48, 96, 128, 160, 192, 256, 384)
"""Samples of a ray after which early termination is tested."""
COARSEST, NUM_LEVELS = 16, 16
MAX_STEPS = 1 << 16
"""Maximum number of steps across the scene box of a field from a file, which may be damaged."""
SAMPLES_PER_RAY = 16
"""Expected number of samples per ray in the first step."""
QUERIES_PER_SAMPLE = 6
"""Largest number of density queries for each sample at which the field is trained."""
SCHEDULE = HashSchedule()
COUNTERS = ("_num_rays", "_num_samples", "num_queries", "_steps_since_pruning", "_samples_since_pruning")


class _Visible(NamedTuple):
    """Samples that are visible, their rays, and their coordinates in the unit cube."""

    samples: RaySamples
    ray: Int[Tensor, " samples"]
    coordinates: Float[Tensor, "samples 3"]


class HashNeRF(TrainableField):
    """Density and color from features in a multiresolution hash table, by two small MLPs.

    The first maps features to the log of the density and to the input of the second, which also takes the direction and
    returns the color. Density is exp(first output) in units of 1 / `density_unit`, so that the initial opacity of all
    steps is the same.
    Source: Müller et al. 2022 (Instant-NGP), sections 3 and 5.4.

    step: distance between samples, in world units; in contracted space, between those in the inner cube.
    density_unit: a length, by default `step`.
    """

    learning_rate = 2e-2
    gpu_schedule = HashSchedule(finest_level=2048)  # fine levels cost little there
    has_graph_step = True

    def __init__(
        self,
        scene_box: SceneBox,
        levels: HashLevels,
        occupancy: OccupancyGrid,
        *,
        step: float,
        density_unit: float | None = None,
        near: float = 0.0,
        features: int = 2,
        color_layers: int = 2,
        background: Float[Tensor, "3"] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(scene_box, near=near, background=background)
        self.levels, self.occupancy = levels, occupancy
        self.step, self.density_unit = step, density_unit or step
        self.num_queries = 0
        """Points at which the density was evaluated for the last rays."""
        self._num_rays = self._num_samples = self._steps_since_pruning = self._samples_since_pruning = 0
        table = torch.rand(levels.num_entries, features, generator=generator)
        self.table = nn.Parameter((2 * table - 1) * TABLE_RANGE)
        self.density_layers = _mlp([len(levels.resolutions) * features, WIDTH, GEOMETRY], generator)
        last = self.density_layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias[0] = math.log(-math.log1p(-INITIAL_OPACITY))
        inputs = GEOMETRY + (DEGREE + 1) ** 2
        self.color_layers = _mlp([inputs, *[WIDTH] * color_layers, 3], generator)

    @classmethod
    def region_cells(cls, options: FieldOptions) -> int:
        """Return the initial size of the occupancy grid."""
        return schedule_of(options.schedule, SCHEDULE).occupancy_resolution

    @classmethod
    def create(cls, region: SceneRegion, options: FieldOptions, generator: torch.Generator) -> Self:
        """Return a new field of 16 levels in the smallest cube around the region."""
        box, occupied, near = region.cube()
        schedule = schedule_of(options.schedule, SCHEDULE)
        finest = schedule.finest_level * (2 if box.contracted else 1)
        levels = HashLevels.geometric(COARSEST, finest, NUM_LEVELS, options.table_log2)
        grid, step = OccupancyGrid(occupied), _step(box, schedule, 0.0)
        return cls(box, levels, grid, step=step, near=near, generator=generator)

    def forward(
        self, points: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
    ) -> tuple[Tensor, Tensor]:
        """Return density per world unit and color in [0, 1], at points viewed along unit directions.

        The density is 0 outside a box that is not contracted, and in pruned cells.
        Differentiable in: the parameters, points.
        """
        coordinates = self.scene_box.normalize(points)
        density, color = self._evaluate(coordinates, spherical_harmonics(directions, DEGREE))
        return torch.where(self.occupancy.contains(coordinates), density, 0), color

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the density per world unit alone, without colors. Differentiable in: the parameters, points."""
        coordinates = self.scene_box.normalize(points)
        occupied = self.occupancy.contains(coordinates)
        density = self._density(self._geometry(coordinates[occupied]))
        return density.new_zeros(len(points)).masked_scatter(occupied, density)

    def _evaluate(self, coordinates: Tensor, harmonics: Tensor) -> tuple[Tensor, Tensor]:
        geometry = self._geometry(coordinates)
        inputs = torch.cat([geometry, harmonics], 1)
        return self._density(geometry), tiny_mlp(inputs, *_parameters(self.color_layers), output="sigmoid")

    def _geometry(self, coordinates: Tensor) -> Tensor:
        return tiny_mlp(hash_grid(coordinates, self.table, self.levels), *_parameters(self.density_layers))

    def _density(self, geometry: Tensor) -> Tensor:
        return truncated_exp(geometry[:, 0]) / self.density_unit

    def sample(
        self, rays: Rays, *, quick: bool = False, generator: torch.Generator | None = None
    ) -> RaySamples:
        """Return the samples at regular steps in occupied cells, without occluded ones and those of low weight."""
        return self._visible(rays, self.step * (2 if quick else 1), generator).samples

    def render(
        self, camera: Camera, background: Float[Tensor, "3"] | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Render the view of a camera on `background` or the field's own; on a GPU, MLPs run in half precision."""
        if self.table.device.type != "cuda" or not self._has_renderer():
            return super().render(camera, background, quick=quick)
        from unrender.fields.hash_renderer import HashRenderer, render_view

        layers = (self.density_layers, self.color_layers)
        cells = self.occupancy.cells(self.scene_box)
        renderer = HashRenderer(self.table, self.levels, layers, cells, self.density_unit, self.near)
        background_color = (self.background if background is None else background).detach().to(self.table)
        step = self.step * (2 if quick else 1)
        return render_view(renderer, camera, background_color, step, self.occupancy.occupied_bounds)

    def _has_renderer(self) -> bool:
        """Return whether `HashRenderer` supports the field."""
        cube = bool((self.scene_box.half_extent == self.scene_box.half_extent[0]).all())
        return (
            cube and self.table.shape[1] == 2 and implementation("hash_grid", self.table.device) is not None
        )

    def bounds(self) -> Float[Tensor, "2 3"]:
        """Return the corners of the box around all occupied cells or, in contracted space, of the inner cube."""
        box = self.scene_box
        if box.contracted:
            return box.bounds
        return box.center + box.half_extent * self.occupancy.occupied_bounds

    def crop(self, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> Self | None:
        """Return the cells whose centers lie between two corners, with the same parameters; None if there are none."""
        box, occupied = self.scene_box, self.occupancy.occupied
        numbers = occupied.nonzero()
        centers = box.denormalize((numbers + 0.5) / box.center.new_tensor(occupied.shape))
        inside = ((centers >= low.to(centers)) & (centers <= high.to(centers))).all(-1)
        if not bool(inside.any()):
            return None
        kept = torch.zeros_like(occupied)
        kept[numbers[inside].unbind(-1)] = True
        cropped = copy.copy(self)
        cropped._modules = {**self._modules, "occupancy": OccupancyGrid(kept)}
        return cropped

    def sample_uniform(
        self, rays: Rays, num_samples: int, *, near: float | None = None, far: float | None = None
    ) -> RaySamples:
        """Return the centers of equal intervals of each ray, but for those in cells that are not occupied.

        Intervals divide the ray within the box of occupied cells or, where both are given, from `near` to `far`. In
        contracted space, those of whole rays grow from three half extents on.
        """
        return self.occupancy.sample_uniform(
            rays, self.scene_box, num_samples, first=self.near, near=near, far=far
        )

    def training_outputs(self, rays: Rays, generator: torch.Generator) -> tuple[RenderOutput, ...]:
        """Render rays on black, from randomly placed samples, and record their weights in the occupancy grid.

        Differentiable in: the parameters.
        """
        samples, ray, coordinates = self._visible(rays, self.step, generator)
        density, color = self._evaluate(coordinates, spherical_harmonics(rays.directions, DEGREE)[ray])
        found = composite(density, samples.lengths, color, samples.distances, offsets=samples.offsets)
        assert found.color is not None
        assert found.distance is not None
        self.occupancy.record(coordinates, found.weights.detach())
        self._num_samples = len(ray)
        return (RenderOutput(found.color, found.opacity, found.distance, found.weights, samples),)

    @torch.no_grad()
    def _visible(self, rays: Rays, step: float, generator: torch.Generator | None) -> _Visible:
        """Return the samples whose weight is above `SKIP`, up to early termination at the transmittance `STOP`."""
        jitter = (
            torch.full_like(rays.origins[:, 0], 0.5)
            if generator is None
            else torch.rand(len(rays.origins), generator=generator, device=generator.device).to(rays.origins)
        )
        samples = self.occupancy.sample(rays, self.scene_box, step, self.near, jitter)
        assert samples.offsets is not None
        self.num_queries = len(samples.distances)
        ray = torch.repeat_interleave(samples.offsets.diff())
        points = torch.addcmul(rays.origins[ray], samples.distances[:, None], rays.directions[ray])
        coordinates = self.scene_box.normalize(points)
        density = density_with_early_termination(
            lambda chosen, _: self._density(self._geometry(coordinates[chosen])),
            samples,
            rounds=ROUNDS,
            stop=STOP,
        )
        weights = composite(density, samples.lengths, offsets=samples.offsets, stop_below=STOP).weights
        kept = (weights > SKIP).nonzero()[:, 0]
        counts = torch.bincount(ray[kept], minlength=len(rays.origins))
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        visible = RaySamples(samples.distances[kept], samples.lengths[kept], offsets)
        return _Visible(visible, ray[kept], coordinates[kept])

    def num_rays(self, progress: float, options: FieldOptions) -> int:
        """Return the number of rays that is expected to yield `options.samples` samples."""
        if self._num_rays == 0:
            self._num_rays = max(1, options.samples // SAMPLES_PER_RAY)
        return self._num_rays

    def begin_step(self, progress: float, options: FieldOptions) -> ParameterChange | None:
        """Reduce the distance between samples as the training progresses."""
        self.step = _step(self.scene_box, schedule_of(options.schedule, SCHEDULE), progress)
        return None

    def end_step(self, progress: float, options: FieldOptions) -> None:
        """Prune and split the occupancy grid, and adapt the number of rays."""
        grid, schedule = self.occupancy, schedule_of(options.schedule, SCHEDULE)
        self._steps_since_pruning += 1
        self._samples_since_pruning += self.num_queries
        enough = schedule.pruning_samples * grid.num_occupied
        if self._steps_since_pruning >= schedule.pruning_steps and self._samples_since_pruning >= enough:
            contracted = self.scene_box.contracted
            grid.prune(schedule.min_weight_contracted if contracted else schedule.min_weight)
            self._steps_since_pruning = self._samples_since_pruning = 0
        if progress >= schedule.split_at and max(grid.shape) <= schedule.occupancy_resolution:
            self.occupancy = grid.split()
            self._steps_since_pruning = self._samples_since_pruning = 0
        spent = max(self._num_samples, self.num_queries / QUERIES_PER_SAMPLE, 1)
        wanted = self._num_rays * options.samples / spent
        most = min(1.1 * self._num_rays + 1, schedule.max_rays)
        self._num_rays = int(min(max(wanted, self._num_rays / 2, 64), most))

    def counters(self) -> dict[str, int]:
        """Return the number of samples, and of density queries, of the last training outputs."""
        return {"num_samples": self._num_samples, "num_queries": self.num_queries}

    def set_counters(self, counts: Mapping[str, int]) -> None:
        """Set these numbers to those of a whole step."""
        self._num_samples, self.num_queries = counts["num_samples"], counts["num_queries"]

    def training_state(self) -> tuple[dict[str, Tensor], dict[str, int | float]]:
        """Return the recorded weights, and counters of rays and samples."""
        self.occupancy.combine_weights()
        counters = {name.strip("_"): getattr(self, name) for name in COUNTERS}
        return {"max_weight": self.occupancy.max_weight}, counters

    def load_training_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, int | float]) -> None:
        """Restore the result of `training_state`."""
        self.occupancy.max_weight.copy_(tensors["max_weight"])
        for name in COUNTERS:
            setattr(self, name, int(numbers[name.strip("_")]))

    def contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all there is to save: tensors, and a description; `from_contents` reads both."""
        tensors, description = super().contents()
        tensors.pop("occupancy.max_weight")
        return tensors, description | {
            "resolutions": list(self.levels.resolutions),
            "log2_hashmap_size": self.levels.log2_hashmap_size,
            "step": self.step,
            "density_unit": self.density_unit,
        }

    @classmethod
    def from_contents(cls, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """Return the field with these contents."""
        box = read_scene_box(tensors, description)
        levels = HashLevels(tuple(description["resolutions"]), int(description["log2_hashmap_size"]))
        _check_contents(tensors, description, box, levels)
        field = cls(
            box,
            levels,
            OccupancyGrid(tensors["occupancy.occupied"]),
            step=float(description["step"]),
            density_unit=float(description["density_unit"]),
            near=read_near(description),
            features=tensors["table"].shape[1],
            color_layers=sum(name.startswith("color_layers") for name in tensors) // 2 - 1,
        )
        field.load_tensors({**tensors, "occupancy.max_weight": field.occupancy.max_weight})
        return field


def _step(box: SceneBox, schedule: HashSchedule, progress: float) -> float:
    """Return the distance between samples, in world units."""
    stages = schedule.samples_per_side_contracted if box.contracted else schedule.samples_per_side
    return 2 * float(box.radius) / stage_at(stages, progress)


def _mlp(widths: list[int], generator: torch.Generator | None) -> nn.ModuleList:
    layers = nn.ModuleList()
    for inputs, outputs in itertools.pairwise(widths):
        layer = nn.Linear(inputs, outputs)
        bound = math.sqrt(6 / inputs)  # He et al. 2015, eq. 10, uniform
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
    return layers


def _parameters(layers: nn.ModuleList) -> tuple[list[Tensor], list[Tensor]]:
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return [layer.weight for layer in linear], [layer.bias for layer in linear]


def _check_contents(
    tensors: Mapping[str, Tensor], description: Mapping[str, Any], box: SceneBox, levels: HashLevels
) -> None:
    """Raise InputError for contents of damaged files, before memory is allocated for them."""
    needed = ("table", "background", "occupancy.occupied", "density_layers.0.weight", "color_layers.0.weight")
    if missing := [name for name in needed if name not in tensors]:
        raise InputError(f"HashNeRF: {', '.join(missing)} is missing")
    if len(tensors["table"]) != levels.num_entries:
        raise InputError(
            f"HashNeRF: {levels} have {levels.num_entries} entries, but the table has {len(tensors['table'])} rows"
        )
    for name in ("step", "density_unit"):
        value = description[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"HashNeRF: `{name}` should be a length, got {value!r}")
    step, side = float(description["step"]), 2 * float(box.radius)
    if not side / MAX_STEPS <= step <= side:
        raise InputError(
            f"HashNeRF: `step` should be {side / MAX_STEPS:.3g} to {side:.3g}, {MAX_STEPS} to 1 steps across the box, "
            f"got {step:g}"
        )
    if not 0 < float(description["density_unit"]) < math.inf:
        raise InputError(
            f"HashNeRF: `density_unit` should be a length > 0, got {description['density_unit']}"
        )
