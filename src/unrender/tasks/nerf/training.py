"""A radiance field in training: what one step does, and all that the next one depends on."""

import math

import torch
from torch import Generator, Tensor

from unrender.data.depth_supervision import RAYS_OF_DEPTH, DepthSupervision
from unrender.data.pixels import PixelBatch, PixelSource
from unrender.data.scenes import Scene
from unrender.fields.hash_nerf import HashNeRF, cube_around
from unrender.fields.nerf import NeRF
from unrender.fields.occupancy import OccupancyGrid
from unrender.geometry.rays import Rays
from unrender.geometry.scene_box import SceneBox
from unrender.kernels.hash_grid import HashLevels
from unrender.losses.depth import depth_loss
from unrender.losses.distortion import distortion_loss
from unrender.render.march import RenderOutput
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.nerf.schedule import NerfSchedule
from unrender.training.exposure import Exposures
from unrender.training.gradient_step import gradient_step
from unrender.training.initial_occupancy import find_space
from unrender.training.schedule import decayed, stage_at
from unrender.training.state import State, in_folder, of_folder, optimizer_tensors, restore_optimizer
from unrender.training.step import Measured
from unrender.training.targets import constant_error, squared_error, training_targets

COARSEST_LEVEL, NUM_LEVELS, FEATURES = 16, 16, 2
LEARNING_RATES = {"hash": 2e-2, "paper": 5e-4, "tutorial": 1e-3}
"""Adam's, at first, for all parameters of the field."""
EXPOSURE_LEARNING_RATE = 1e-2
UNBOUNDED_DISTORTION_LOSS = 0.03
"""Default weight in unbounded space: without it, thin haze before the cameras costs training views next to nothing,
and stands in the way of new views."""
FIRST_SAMPLES_PER_RAY = 16
"""Expected in the first step of the hash model."""
QUERIES_PER_SAMPLE = 6
"""Largest number of density queries for each sample that is trained on."""
COUNTERS = ("num_rays", "steps_since_pruning", "samples_since_pruning")


def initial_field(scene: Scene, config: FitNerf, schedule: NerfSchedule, seed: int) -> HashNeRF | NeRF:
    """Make the untrained field for a scene."""
    generator = Generator().manual_seed(seed)
    region = find_space(scene, scene.split("train"), config.space, schedule.occupancy_resolution)
    box, occupied = cube_around(region)
    if config.model != "hash":
        make = NeRF.paper if config.model == "paper" else NeRF.tutorial
        return make(box, near=region.near, generator=generator)
    finest = schedule.finest_level * (2 if box.contracted else 1)
    return HashNeRF(
        box,
        HashLevels.geometric(COARSEST_LEVEL, finest, NUM_LEVELS, config.table_log2),
        OccupancyGrid(occupied),
        step=_step_size(box, schedule, 0.0),
        near=region.near,
        features=FEATURES,
        generator=generator,
    )


def _step_size(box: SceneBox, schedule: NerfSchedule, progress: float) -> float:
    """Return the distance between samples in world units; in unbounded space, within the inner cube."""
    stages = schedule.samples_per_side_unbounded if box.contracted else schedule.samples_per_side
    return 2 * float(box.radius) / stage_at(stages, progress)


class NerfTraining:
    """A field with its optimizer, pixels and random numbers."""

    def __init__(
        self,
        field: HashNeRF | NeRF,
        pixels: PixelSource,
        depths: DepthSupervision | None,
        config: FitNerf,
        schedule: NerfSchedule,
        seed: int,
    ) -> None:
        self.field, self.pixels, self.depths = field, pixels, depths
        self.config, self.schedule = config, schedule
        self.generator = Generator().manual_seed(seed)
        usual = UNBOUNDED_DISTORTION_LOSS if field.scene_box.contracted else 0.0
        self.distortion = usual if config.distortion is None else config.distortion
        varies = config.exposure == "each" or (config.exposure == "auto" and field.scene_box.contracted)
        self._exposures = Exposures(len(pixels.frames)) if varies else None
        groups = [{"params": list(field.parameters()), "rate": LEARNING_RATES[config.model]}]
        if self._exposures is not None:
            groups.append({"params": list(self._exposures.parameters()), "rate": EXPOSURE_LEARNING_RATE})
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self.num_rays = schedule.mlp_rays
        if config.model == "hash":
            self.num_rays = max(1, config.samples // FIRST_SAMPLES_PER_RAY)
        self.steps_since_pruning = self.samples_since_pruning = 0

    @property
    def exposures(self) -> Tensor | None:
        """Factor of each training image and channel by which it is brighter than the scene."""
        return None if self._exposures is None else self._exposures.factors().detach()

    def reseed(self, seed: int) -> None:
        """Continue with other random numbers."""
        self.generator.manual_seed(seed)

    def step(self, progress: float) -> Measured:
        """Take one step at a progress of 0 to 1; parameters stay as they are where the loss is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = decayed(group["rate"], self.schedule.final_learning_rate, progress)
        if isinstance(self.field, HashNeRF):
            self.field.step = _step_size(self.field.scene_box, self.schedule, progress)
        batch = self.pixels.draw(self.num_rays, 1)
        color, total, constant, num_samples = self._losses(batch)
        is_finite = gradient_step(self.optimizer, total)
        if isinstance(self.field, HashNeRF):
            self._prune(self.field, progress)
            self._adapt_rays(self.field, num_samples)
        return Measured(color.detach(), constant, is_finite, num_samples)

    def state(self) -> State:
        """Return all that later steps depend on."""
        tensors = in_folder("field", self.field.state_dict())
        tensors |= in_folder("adam", optimizer_tensors(self.optimizer))
        tensors |= in_folder("pixels", self.pixels.state())
        if self._exposures is not None:
            tensors |= in_folder("exposures", self._exposures.state_dict())
        tensors["random"] = self.generator.get_state()
        return State(tensors, {name: getattr(self, name) for name in COUNTERS})

    def restore(self, state: State) -> None:
        """Return to a state."""
        tensors = state.tensors
        for name in COUNTERS:
            setattr(self, name, int(state.numbers[name]))
        if isinstance(self.field, HashNeRF):  # its cells may have been refined
            self.field.occupancy = OccupancyGrid(tensors["field/occupancy.occupied"])
        self.field.load_state_dict(of_folder("field", tensors))
        if self._exposures is not None:
            self._exposures.load_state_dict(of_folder("exposures", tensors))
        restore_optimizer(self.optimizer, of_folder("adam", tensors))
        self.pixels.restore(of_folder("pixels", tensors))
        self.generator.set_state(tensors["random"])

    def _losses(self, batch: PixelBatch) -> tuple[Tensor, Tensor, Tensor, int]:
        """Return the color loss, the total loss, that of a constant image, and the number of samples."""
        rays, known = self._with_supervised_depths(batch.rays)
        seen = self.field.training_outputs(rays, self.generator)
        target, background = training_targets(
            batch, self.field.background, self.config.background, self.generator
        )
        errors = [self._color_loss(each, batch, target, background) for each in seen]
        num_samples = sum(each.weights.numel() for each in seen if each.weights is not None)
        total = torch.stack(errors).sum()
        if len(known) > 0:
            total = total + self.config.depth * sum(_depth_loss(each, known) for each in seen)
        if self.distortion > 0:
            total = total + self.distortion * sum(
                _distortion_loss(each, float(self.field.scene_box.radius)) for each in seen
            )
        return errors[-1], total, constant_error(target, background, batch.valid), num_samples

    def _color_loss(
        self, seen: RenderOutput, batch: PixelBatch, target: Tensor, background: Tensor
    ) -> Tensor:
        """Return the mean squared error of the colors along the first rays."""
        count = len(target)  # behind these come rays of depth
        color = seen.color[:count] + (1 - seen.opacity[:count])[:, None] * background
        if self._exposures is not None:
            color = self._exposures(color, batch.frame)
        return squared_error(color, target, batch.valid)

    def _with_supervised_depths(self, rays: Rays) -> tuple[Rays, Tensor]:
        """Append rays of known depth; return these distances too."""
        if self.depths is None:
            return rays, rays.origins[:0, 0]
        known = self.depths.draw(math.ceil(RAYS_OF_DEPTH * len(rays.origins)), self.generator)
        origins = torch.cat([rays.origins, known.rays.origins])
        return Rays(origins, torch.cat([rays.directions, known.rays.directions])), known.distances

    def _prune(self, field: HashNeRF, progress: float) -> None:
        """Prune unobserved cells once enough samples were taken, and refine the occupancy grid when that is due."""
        grid, schedule = field.occupancy, self.schedule
        self.steps_since_pruning += 1
        self.samples_since_pruning += field.num_queries
        if (
            self.steps_since_pruning >= schedule.pruning_steps
            and self.samples_since_pruning >= schedule.pruning_samples * grid.num_occupied
        ):
            grid.prune(schedule.min_weight_unbounded if field.scene_box.contracted else schedule.min_weight)
            self.steps_since_pruning = self.samples_since_pruning = 0
        if progress >= schedule.refine_occupancy_at and max(grid.shape) <= schedule.occupancy_resolution:
            field.occupancy = grid.split()
            self.steps_since_pruning = self.samples_since_pruning = 0

    def _adapt_rays(self, field: HashNeRF, num_samples: int) -> None:
        """Choose the number of rays with which the next step has as many samples as asked for."""
        spent = max(num_samples, field.num_queries / QUERIES_PER_SAMPLE, 1)
        wanted = self.num_rays * self.config.samples / spent
        bounded = min(max(wanted, self.num_rays / 2, 64), 1.1 * self.num_rays + 1, self.schedule.max_rays)
        self.num_rays = int(bounded)


def _depth_loss(seen: RenderOutput, known: Tensor) -> Tensor:
    """Return the depth loss of the last rays, whose depth is known."""
    samples, weights = seen.samples, seen.weights
    assert samples is not None
    assert samples.offsets is not None
    assert weights is not None
    offsets = samples.offsets[-len(known) - 1 :]
    first = int(offsets[0])
    return depth_loss(weights[first:], samples.distances[first:], offsets - first, known)


def _distortion_loss(seen: RenderOutput, unit: float) -> Tensor:
    """Return the distortion loss over t / (t + unit), which maps all distances to 0 to 1."""
    samples = seen.samples
    assert samples is not None
    assert samples.offsets is not None
    assert seen.weights is not None
    normalized = samples.distances / (samples.distances + unit)
    lengths = samples.lengths * unit / (samples.distances + unit).square()
    return distortion_loss(seen.weights, normalized, lengths, samples.offsets)
