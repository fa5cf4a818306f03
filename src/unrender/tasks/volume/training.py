"""Voxels in training: what one step does, and all that the next one depends on."""

import math
from typing import NamedTuple, Self

import torch
from torch import Generator, Tensor
from torch.nn.functional import max_pool3d

from unrender.data.depth_supervision import RAYS_OF_DEPTH, DepthSupervision
from unrender.data.pixels import PixelBatch, PixelSource
from unrender.fields.trainable import SceneRegion
from unrender.fields.voxels import SparseVoxels
from unrender.geometry.rays import Rays
from unrender.kernels.march_voxels import VoxelMarch
from unrender.kernels.total_variation import total_variation
from unrender.losses.depth import depth_loss
from unrender.tasks.volume.config import FitVolume
from unrender.tasks.volume.schedule import VolumeSchedule
from unrender.training.gradient_step import gradient_step
from unrender.training.schedule import decayed
from unrender.training.state import State, in_folder, of_folder, optimizer_tensors, restore_optimizer
from unrender.training.step import Measured
from unrender.training.targets import constant_error, squared_error, training_targets

PATCH_SIZE = 4
"""Rays of neighboring pixels in squares of this side meet the same voxels: half the time, for the same rays."""
FIRST_OPACITY, FIRST_OPACITY_UNBOUNDED = 0.05, 0.01
"""Of each voxel at first. In unbounded space cameras stand among the voxels, and have to see what lies behind them."""
MIN_SAMPLE_WEIGHT, MIN_TRANSMITTANCE = 1e-3, 1e-3
"""Weight below which a sample is skipped, and transmittance at which a ray ends, in training."""
MAX_KEPT = 0.95
"""Fraction of voxels: if more would stay, all do, for pruning takes time too."""


class _Weights(NamedTuple):
    """Of the losses that are added to the error of colors."""

    depth: float
    smoothness: float
    sparsity: float

    @property
    def is_regularized(self) -> bool:
        """Whether neighbors should resemble each other."""
        return self.smoothness > 0 or self.sparsity > 0


def _weights(config: FitVolume, contracted: bool) -> _Weights:
    """Choose the weights that the config leaves open."""
    smoothness, sparsity = (0.3, 0.03) if contracted else (0.0, 0.0)
    return _Weights(
        config.depth,
        smoothness if config.smoothness is None else config.smoothness,
        sparsity if config.sparsity is None else config.sparsity,
    )


class _Grid:
    """The field at one resolution with its optimizer, and the largest weight that each voxel had on a ray."""

    def __init__(self, field: SparseVoxels, schedule: VolumeSchedule, with_neighbors: bool) -> None:
        groups = [
            {"params": [field.log_density], "rate": schedule.density_learning_rate},
            {"params": [field.harmonics, field.background], "rate": schedule.color_learning_rate},
        ]
        self.field, self.schedule = field, schedule
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12, fused=True)
        self.voxel_weight = torch.zeros(field.table.num_voxels)
        self.neighbors = field.table.neighbors() if with_neighbors else None

    def set_learning_rates(self, progress: float) -> None:
        """Set the learning rates for a progress from 0 to 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = decayed(group["rate"], self.schedule.final_learning_rate, progress)

    def pruned(self) -> Self:
        """Return a grid without voxels that had no weight on any ray, nor any of their neighbors; reset the weights."""
        places = self.field.table.voxel_places.long().unbind(-1)
        dense = torch.zeros(self.field.table.shape)
        dense[places] = (self.voxel_weight > self.schedule.min_weight).float()
        for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
            dense = max_pool3d(dense[None], size, 1, tuple(n // 2 for n in size))[0]
        stays = dense[places] > 0
        self.voxel_weight.zero_()
        if not 0 < int(stays.sum()) <= MAX_KEPT * len(stays):
            return self
        field, old = self.field.keep(stays)
        grid = type(self)(field, self.schedule, self.neighbors is not None)
        grid._take_moments(self, old)
        return grid

    def _take_moments(self, other: Self, old: Tensor) -> None:
        """Take over Adam's moments of the corners, which were numbered `old` in the other grid."""
        for here, there in zip(self.optimizer.param_groups, other.optimizer.param_groups, strict=True):
            for mine, theirs in zip(here["params"], there["params"], strict=True):
                if state := other.optimizer.state.get(theirs):
                    rows = old if len(theirs) == other.field.table.num_corners else slice(None)
                    self.optimizer.state[mine] = {
                        name: value[rows] if value.dim() else value for name, value in state.items()
                    }


class VolumeTraining:
    """Voxels with their optimizer, pixels and random numbers."""

    def __init__(
        self,
        region: SceneRegion,
        pixels: PixelSource,
        depths: DepthSupervision | None,
        config: FitVolume,
        schedule: VolumeSchedule,
        seed: int,
    ) -> None:
        self.pixels, self.depths, self.config, self.schedule = pixels, depths, config, schedule
        self.generator = Generator().manual_seed(seed)
        contracted = region.scene_box.contracted
        self.weights = _weights(config, contracted)
        fog = SparseVoxels.from_mask(
            region.occupied,
            region.scene_box,
            near=region.near,
            degree=0,
            opacity=FIRST_OPACITY_UNBOUNDED if contracted else FIRST_OPACITY,
        )
        self.grid = self._grid_of(fog)
        self.stage = self.steps_since_pruning = 0
        self.pruning_steps = schedule.pruning_steps
        if config.steps is not None:
            self.pruning_steps = min(
                self.pruning_steps, max(1, int(config.steps * schedule.pruning_fraction))
            )

    @property
    def field(self) -> SparseVoxels:
        """The field as it is now."""
        return self.grid.field

    @property
    def exposures(self) -> None:
        """Exposure is not optimized."""

    def reseed(self, seed: int) -> None:
        """Continue with other random numbers."""
        self.generator.manual_seed(seed)

    def step(self, progress: float) -> Measured:
        """Take one step at a progress of 0 to 1; parameters stay as they are where the loss is not finite."""
        if self.steps_since_pruning >= self.pruning_steps:
            self._prune(progress)
        self.grid.set_learning_rates(progress)
        coarsening = self.schedule.coarsening[self.stage][1]
        batch = self.pixels.draw(max(1, self.config.rays // PATCH_SIZE**2 // coarsening), PATCH_SIZE)
        color, total, constant = self._losses(batch)
        is_finite = gradient_step(self.grid.optimizer, total)
        self.steps_since_pruning += 1
        return Measured(color.detach(), constant, is_finite, None)

    def state(self) -> State:
        """Return all that later steps depend on."""
        contents, description = self.field.contents()
        tensors = in_folder("field", contents)
        tensors |= in_folder("adam", optimizer_tensors(self.grid.optimizer))
        tensors |= in_folder("pixels", self.pixels.state())
        tensors |= {"voxel_weight": self.grid.voxel_weight, "random": self.generator.get_state()}
        numbers = {"stage": self.stage, "steps_since_pruning": self.steps_since_pruning}
        return State(tensors, numbers | {"field": description})

    def restore(self, state: State) -> None:
        """Return to a state."""
        contents = {name: value.clone() for name, value in of_folder("field", state.tensors).items()}
        self.grid = self._grid_of(SparseVoxels.from_contents(contents, state.numbers["field"]))
        restore_optimizer(self.grid.optimizer, of_folder("adam", state.tensors))
        self.grid.voxel_weight = state.tensors["voxel_weight"].clone()
        self.pixels.restore(of_folder("pixels", state.tensors))
        self.generator.set_state(state.tensors["random"])
        self.stage = int(state.numbers["stage"])
        self.steps_since_pruning = int(state.numbers["steps_since_pruning"])

    def _grid_of(self, field: SparseVoxels) -> _Grid:
        return _Grid(field, self.schedule, self.weights.is_regularized)

    def _prune(self, progress: float) -> None:
        """Prune unobserved voxels, and halve their size when that is due."""
        self.grid, self.steps_since_pruning = self.grid.pruned(), 0
        last = len(self.schedule.coarsening) - 1
        if self.stage < last and progress >= self.schedule.coarsening[self.stage + 1][0]:
            self.stage += 1  # coarse grids have coarse colors: of degrees 0, 1, and then all
            degree = self.config.degree if self.stage == last else min(self.stage, self.config.degree)
            self.grid = self._grid_of(self.field.split(degree))

    def _losses(self, batch: PixelBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the color loss, the total loss, and that of a constant image."""
        marched = self._march(batch.rays)
        target, background = training_targets(
            batch, self.field.background, self.config.background, self.generator
        )
        color = squared_error(
            marched.color + (1 - marched.opacity)[:, None] * background, target, batch.valid
        )
        total = color
        if self.grid.neighbors is not None:
            opacity = self.field.opacities()
            variation = total_variation(opacity[:, None], self.grid.neighbors) + total_variation(
                self.field.harmonics, self.grid.neighbors
            )
            total = total + self.weights.smoothness * variation + self.weights.sparsity * opacity.mean()
        if self.depths is not None:
            total = total + self.weights.depth * self._depth_loss(self.depths, len(batch.colors))
        return color, total, constant_error(target, background, batch.valid)

    def _depth_loss(self, depths: DepthSupervision, num_rays: int) -> Tensor:
        """Return the depth loss of random rays; a ray counts as ending at its mean distance."""
        known = depths.draw(math.ceil(RAYS_OF_DEPTH * num_rays), self.generator)
        marched = self._march(known.rays)
        offsets = torch.arange(len(marched.opacity) + 1)
        return depth_loss(marched.opacity, marched.distance, offsets, known.distances)

    def _march(self, rays: Rays) -> VoxelMarch:
        jitter = torch.rand(len(rays.origins), generator=self.generator)
        marched = self.field.march(
            rays,
            jitter=jitter,
            skip=MIN_SAMPLE_WEIGHT,
            stop=MIN_TRANSMITTANCE,
            keep_voxel_weights=True,
        )
        assert marched.voxel_weights is not None
        self.grid.voxel_weight = torch.maximum(self.grid.voxel_weight, marched.voxel_weights)
        return marched
