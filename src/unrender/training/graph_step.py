"""The training step of a hash field on a GPU, captured as one CUDA graph.

A step draws rays, samples them in occupied cells (candidates), evaluates the density of the candidates, and trains on
those that are visible. Nothing is read back by the host: the numbers of rays and samples are on the device, the buffers
for candidates and samples have a fixed capacity. Rays beyond the capacity are dropped and counted, and the number of
rays adapts to what the last step needed. On a CPU, for tests, the same step runs on Warp's CPU device.

Activations and their gradients are in half precision. Densities, colors, transmittance, weights and all sums are in
single precision, and gradients of the table are summed in 64-bit fixed point: the same seed gives the same bits.
Against overflow, activations are clamped, the weights of MLPs decay slightly, since Adam's steps do not shrink with the
gradients and weights without effect would drift, and gradients are scaled: a step with a value that is not finite
changes nothing but halves the scale.
"""

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.data.depth_supervision import DEPTH_RAYS_PER_RAY, DeviceDepths
from unrender.data.device_pixels import DevicePixels
from unrender.fields.half_mlp import Activations, HalfMlp, Linear
from unrender.fields.uniform_samples import occupied_box
from unrender.kernels._hash_training import (
    BATCHES,
    DROPPED_RAYS,
    LEARNING_RATE,
    LOSS,
    LOSS_SCALE,
    MEAN_LOSS,
    NUM_CANDIDATES,
    NUM_COUNTERS,
    NUM_RAYS,
    NUM_SAMPLES,
    NUM_SCALARS,
    REQUESTED_CANDIDATES,
    REQUESTED_SAMPLES,
    SKIPPED,
    SKIPPED_IN_A_ROW,
    STEP,
    UPDATES,
)
from unrender.kernels._hash_training.optimizer import optimizer_kernels
from unrender.kernels._hash_training.pixel_rays import pixel_ray_kernels
from unrender.kernels._hash_training.rendering import SAMPLES_PER_THREAD, rendering_kernels
from unrender.kernels._hash_training.traversal import traversal_kernels
from unrender.kernels._warp import launch
from unrender.kernels.hash_grid import HashLevels
from unrender.kernels.hash_grid.gpu import level_rows
from unrender.kernels.traverse import blocks_of
from unrender.training.graph_extras import GraphExposures, no_depths

BETAS, EPSILON, WEIGHT_DECAY = (0.9, 0.99), 1e-15, 1e-6
"""Of Adam; the decay is L2 regularization of the MLPs (as in instant-ngp)."""
INITIAL_LOSS_SCALE = 65536.0
"""Of gradients, which are divided by the number of rays."""
GEOMETRY, HARMONICS, COLOR_ROWS = 16, 16, 8
"""Outputs of the density MLP; harmonics of a direction; rows of colors, of which three are used."""
DENSITY_ROWS = 8
"""Outputs of the density MLP that are computed for candidates; the first one is the density."""
WARM_UP = 3
"""Steps before the graph is captured: kernels are compiled, and libraries choose their algorithms."""


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What does not change from step to step."""

    center: tuple[float, float, float]
    half_extent: float
    """Of the field's cube, in world units."""
    contracted: bool
    near: float
    far: float
    """Interval of rays; in a bounded field they end at the occupied cells anyway."""
    density_unit: float
    """Densities are e^output / density_unit."""
    samples: int = 1 << 18
    """Capacity for samples, a multiple of 8."""
    candidates_per_sample: float = 3.0
    """Capacity for candidates, relative to that for samples."""
    max_rays: int = 1 << 17
    initial_rays: int = 4096
    min_weight: float = 1e-3
    """Weight from which on candidates count as visible."""
    sparse: bool = True
    """Whether table entries without a gradient, and their moments, stay as they are."""
    table_decay: float = 0.0
    """L2 regularization of the table."""
    distortion: float = 0.0
    """Weight of the distortion loss."""
    depth_weight: float = 0.0
    """Weight of the depth loss."""
    exposure_rate: float = 0.0
    """Learning rate of exposures, relative to that of the field; 0: there are none."""
    random_backgrounds: float = 1.0
    """Fraction of rays with a random background."""
    constant_background: tuple[float, float, float] | None = None
    """Background of the other rays; None: that of the field, which is trained."""
    precision: torch.dtype = torch.float16
    """Of activations."""
    seed: int = 0


class StepStatus(NamedTuple):
    """State of the training after the last step."""

    updates: int
    loss: float
    mean_loss: float
    num_rays: int
    num_candidates: int
    num_samples: int
    requested_candidates: int
    """Candidates if their number was not limited; likewise the samples of the rays whose candidates fit."""
    requested_samples: int
    dropped_rays: int
    """Rays so far beyond the capacity."""
    skipped: int
    """Steps so far with a value that was not finite."""
    skipped_in_a_row: int
    loss_scale: float


class HashParameters(NamedTuple):
    """The trained tensors of a hash field with two features per level."""

    table: Tensor
    levels: HashLevels
    density_layers: list[Linear]
    color_layers: list[Linear]
    background: Tensor


class _RaySamples:
    """Buffers of samples along rays: one row for all rays."""

    def __init__(self, rays: int, capacity: int, device: torch.device) -> None:
        self.offsets = torch.zeros(rays + 1, dtype=torch.int32, device=device)
        self.positions = torch.zeros(capacity, 3, device=device)
        self.distances, self.lengths = torch.zeros(2, capacity, device=device)
        self.rays = torch.zeros(capacity, dtype=torch.int32, device=device)


class GraphStep:
    """The training step of a hash field, and all that later steps depend on.

    The table of `parameters` is trained in place; its other tensors are replaced by views of a buffer that each step
    updates.
    """

    def __init__(
        self,
        parameters: HashParameters,
        pixels: DevicePixels,
        occupied: Tensor,
        settings: StepSettings,
        depths: DeviceDepths | None = None,
    ) -> None:
        self.pixels, self.settings = pixels, settings
        self.device = parameters.table.device
        self.depths = no_depths(self.device) if depths is None else depths
        self._depth_fraction = 0.0
        if len(self.depths.distances) > 0:
            self._depth_fraction = DEPTH_RAYS_PER_RAY / (1 + DEPTH_RAYS_PER_RAY)
        num_exposures = len(pixels.world_from_camera) if settings.exposure_rate > 0 else 0
        self.exposures = GraphExposures(num_exposures, self.device)
        self._draw = pixel_ray_kernels(torch.float32).draw
        self._traverse = traversal_kernels(torch.float32).traverse
        self._rendering = rendering_kernels(settings.precision)
        self._optimizer = optimizer_kernels(settings.precision)
        self._levels = level_rows(parameters.levels, self.device)
        self._center = torch.tensor([settings.center], device=self.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._snapshot: list[Tensor] = []
        self._make_parameters(parameters)
        self._make_buffers()
        background = self.flat[self.num_weights : self.num_weights + 3]
        constant = settings.constant_background
        self._constant_background = background if constant is None else background.new_tensor(constant)
        self._trains_background = settings.random_backgrounds < 1 and constant is None
        self.set_occupied(occupied)
        self.take_snapshot()

    def _make_parameters(self, p: HashParameters) -> None:
        layers = (p.density_layers, p.color_layers)
        sizes = [[each[0][0].shape[1], *(len(bias) for _, bias in each)] for each in layers]
        self.density, self.color = HalfMlp(sizes[0], GEOMETRY), HalfMlp(sizes[1], COLOR_ROWS)
        counts = [self.density.num_weights, self.color.num_weights, 8]
        self.num_weights = counts[0] + counts[1]
        self.flat = torch.zeros(sum(counts), device=self.device)
        self.active = torch.zeros(sum(counts), device=self.device, dtype=self.settings.precision)
        self.gradient = torch.zeros_like(self.flat)
        memories = zip(*(t.split(counts) for t in (self.flat, self.active, self.gradient)), strict=True)
        for mlp, memory in zip((self.density, self.color), memories, strict=False):
            mlp.place(*memory)
        self._pack(p)
        table = p.table.detach()
        self.moments = [torch.zeros_like(t.view(-1)) for t in (table, table, self.flat, self.flat)]
        self.sums = torch.zeros(table.numel(), dtype=torch.int64, device=self.device)
        halves = self.settings.precision != table.dtype
        self.table_copy = table.view(-1).to(self.settings.precision) if halves else table.new_zeros(0)
        self._packed_table = self.table_copy.view(torch.int32) if halves else table.view(-1).view(torch.int64)

    def _pack(self, p: HashParameters) -> None:
        """Move layers and background to one buffer, and remember where in `flat` they are."""
        tensors = [*(t.detach() for layer in (*p.density_layers, *p.color_layers) for t in layer)]
        tensors.append(p.background.detach())
        indices = [*self.density.indices(0), *self.color.indices(self.density.num_weights)]
        indices.append(torch.arange(self.num_weights, self.num_weights + 3))
        self._packed = torch.cat([t.flatten() for t in tensors])
        self._indices = torch.cat([t.flatten() for t in indices]).to(self.device)
        parts = self._packed.split([t.numel() for t in tensors])
        views = [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
        layers = list(zip(views[:-1:2], views[1:-1:2], strict=True))
        count = len(p.density_layers)
        self.parameters = HashParameters(
            p.table.detach(), p.levels, layers[:count], layers[count:], views[-1]
        )
        self.load()

    def load(self) -> None:
        """Continue with changed values of `parameters`."""
        self.flat[self._indices] = self._packed
        if hasattr(self, "table_copy") and len(self.table_copy) > 0:
            self.table_copy.copy_(self.parameters.table.view(-1))

    def packed(self, flat: Tensor) -> list[Tensor]:
        """Return the values of `flat`, such as moments, in the shapes of layers and background."""
        p = self.parameters
        shapes = [t.shape for layer in (*p.density_layers, *p.color_layers) for t in layer]
        parts = flat[self._indices].split([math.prod(shape) for shape in (*shapes, (3,))])
        return [part.view(shape) for part, shape in zip(parts, (*shapes, (3,)), strict=True)]

    def unpack(self, values: list[Tensor], flat: Tensor) -> None:
        """Fill `flat` with values in the shapes of layers and background."""
        flat[self._indices] = torch.cat([t.flatten() for t in values]).to(flat)

    def _make_buffers(self) -> None:
        s, device, rays = self.settings, self.device, self.settings.max_rays
        candidates = int(s.samples * s.candidates_per_sample) // 8 * 8
        self.counters = torch.zeros(NUM_COUNTERS, dtype=torch.int32, device=device)
        self.scalars = torch.zeros(NUM_SCALARS, device=device)
        self.counters[NUM_RAYS] = min(s.initial_rays, rays)
        self.scalars[LOSS_SCALE] = INITIAL_LOSS_SCALE
        self.origins, self.directions, self.target, self.background, self.grad_background = (
            torch.zeros(rays, 3, device=device) for _ in range(5)
        )
        self.jitter, self.loss, self.known = torch.zeros(3, rays, device=device)
        self.frame, self.per_ray = torch.zeros(2, rays, dtype=torch.int32, device=device)
        self.candidates = _RaySamples(rays, candidates, device)
        self.samples = _RaySamples(rays, s.samples, device)
        self.candidate_values = Activations(self.density, candidates, output_rows=DENSITY_ROWS, trains=False)
        self.density_values = Activations(self.density, s.samples)
        self.color_values = Activations(self.color, s.samples)
        self.sources = torch.zeros(s.samples, dtype=torch.int32, device=device)
        self.transmittance = torch.zeros(s.samples, device=device)
        self.grad_log_density = torch.zeros(s.samples, dtype=s.precision, device=device)
        self.total_loss = torch.zeros(1, device=device)
        self.occupied = self.blocks = self.box = self.largest = torch.zeros(0, device=device)

    def set_occupied(self, occupied: Tensor) -> None:
        """Sample these cells only, [side side side]."""
        fine = occupied.to(self.device)
        box = (occupied_box(fine).to(self.device) * (2 / len(fine)) - 1).float()
        new = (fine.to(torch.uint8), blocks_of(fine).to(torch.uint8), box)
        if self.occupied.shape == fine.shape:
            for old, values in zip((self.occupied, self.blocks, self.box), new, strict=True):
                old.copy_(values)
        else:
            self.occupied, self.blocks, self.box = (t.contiguous() for t in new)
            self.largest = torch.zeros(fine.shape, dtype=torch.int32, device=self.device)
            self._graph = None
        self.largest.zero_()

    @property
    def max_weight(self) -> Tensor:
        """The largest weight of a sample in each cell since `set_occupied`."""
        return self.largest.view(torch.float32)

    def run(self, steps: int, learning_rate: float, step: float) -> None:
        """Take steps with samples at this distance, in world units; nothing waits for the device."""
        self.scalars[LEARNING_RATE].fill_(learning_rate)
        self.scalars[STEP].fill_(step)
        if self.device.type != "cuda":
            for _ in range(steps):
                self._step()
            return
        while steps > 0:
            if self._graph is None:
                steps -= self._capture()
            else:
                self._graph.replay()
                steps -= 1

    def _capture(self) -> int:
        """Take steps outside of a graph, then capture one; return how many steps were taken."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._step()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step()
        return WARM_UP

    @torch.no_grad()
    def _step(self) -> None:
        self.active.copy_(self.flat)
        self._sample_rays()
        self._select_visible()
        self._render()
        self._backward()
        self._update()

    def _sample_rays(self) -> None:
        s, pixels = self.settings, self.pixels
        launch(
            self._draw, s.max_rays, s.seed, self.counters, pixels.colors, pixels.valid.view(torch.uint8),
            pixels.starts, pixels.map_starts, pixels.directions_camera, pixels.world_from_camera.flatten(1),
            self.depths.frame, self.depths.directions, self.depths.distances, self._depth_fraction,
            self._constant_background, s.random_backgrounds, pixels.has_alpha, self.origins, self.directions,
            self.target, self.background, self.jitter, self.frame, self.known,
        )  # fmt: skip
        to = self.candidates
        for writes in (False, True):
            launch(
                self._traverse, s.max_rays, self.counters, self.scalars, self.occupied, self.blocks, self.box,
                self._center, s.half_extent, s.near, s.far, s.contracted, self.origins, self.directions, self.jitter,
                writes, to.offsets, self.per_ray, to.positions, to.distances, to.lengths, to.rays,
            )  # fmt: skip
            if not writes:
                self._count(to, NUM_CANDIDATES, REQUESTED_CANDIDATES)

    def _count(self, samples: _RaySamples, count: int, requested: int) -> None:
        torch.cumsum(self.per_ray, 0, dtype=torch.int32, out=samples.offsets[1:])
        launch(
            self._optimizer.count_samples,
            1,
            self.counters,
            samples.offsets,
            len(samples.lengths),
            count,
            requested,
        )

    def _select_visible(self) -> None:
        """Evaluate the density of candidates, and copy those that are visible to the samples."""
        s, candidates, to, values = self.settings, self.candidates, self.samples, self.candidate_values
        self._encode()
        self.density.forward(values)
        for writes in (False, True):
            launch(
                self._rendering.select_visible, s.max_rays, self.counters, candidates.offsets, values.outputs,
                candidates.lengths, s.density_unit, s.min_weight, writes, to.offsets, self.per_ray,
                candidates.positions, candidates.distances, candidates.rays, self.sources, to.positions, to.distances,
                to.lengths, to.rays,
            )  # fmt: skip
            if not writes:
                self._count(to, NUM_SAMPLES, REQUESTED_SAMPLES)
        torch.index_select(values.inputs[0], 1, self.sources, out=self.density_values.inputs[0])

    def _encode(self) -> None:
        positions, features = self.candidates.positions, self.candidate_values.inputs[0]
        size = (len(self._levels), len(positions))
        launch(
            self._rendering.encode, size, self.counters, positions, self._packed_table, self._levels, features
        )

    def _render(self) -> None:
        """Evaluate both MLPs at the samples; compute the loss and its gradients by densities and colors."""
        s, samples = self.settings, self.samples
        density, color = self.density_values, self.color_values
        self.density.forward(density)
        launch(
            self._rendering.color_inputs, s.samples, self.counters, density.outputs, self.directions, samples.rays,
            color.inputs[0],
        )  # fmt: skip
        self.color.forward(color)
        self.grad_log_density.zero_()
        color.gradients[-1].zero_()
        launch(
            self._rendering.composite, s.max_rays, self.counters, self.scalars, self.candidates.offsets,
            len(self.candidates.lengths), samples.offsets, samples.lengths, samples.distances, samples.positions,
            density.outputs, color.outputs, self.target, self.background, self.directions, self.known,
            self._depth_fraction, s.depth_weight, self.frame, self.exposures.factors, s.density_unit, s.distortion,
            s.half_extent, self.exposures.sums, self.transmittance, self.largest, self.loss, self.grad_background,
            self.grad_log_density, color.gradients[-1],
        )  # fmt: skip
        torch.sum(self.loss, 0, keepdim=True, out=self.total_loss)

    def _backward(self) -> None:
        density, color = self.density_values, self.color_values
        self.color.backward(color, GEOMETRY)
        grad_geometry = density.gradients[-1]
        grad_geometry.copy_(color.gradients[0][:GEOMETRY])
        grad_geometry[0].add_(self.grad_log_density)
        self.density.backward(density, 2 * len(self._levels))
        size = (len(self._levels), 4 * -(-self.settings.samples // SAMPLES_PER_THREAD))
        launch(
            self._rendering.scatter, size, self.counters, self.samples.positions, self._levels, density.gradients[0],
            self._units, self.sums,
        )  # fmt: skip
        if self._trains_background:
            torch.sum(self.grad_background, 0, out=self.gradient[self.num_weights : self.num_weights + 3])

    @property
    def _units(self) -> float:
        """Fixed-point units to 1, for which no sum of values in half precision overflows."""
        return 2.0 ** (62 - 16 - math.ceil(math.log2(self.settings.samples)))

    def _update(self) -> None:
        s, kernels, state = self.settings, self._optimizer, (self.counters, self.scalars)
        adam = (*BETAS, EPSILON)
        table, layers = self.moments[:2], self.moments[2:]
        launch(kernels.check_finite, len(self.gradient), *state, self.gradient, *BETAS)
        values = self.parameters.table.view(-1)
        launch(
            kernels.update_table, len(values), *state, *adam, s.table_decay, self._units, s.sparse, self.sums, values,
            *table, self.table_copy,
        )  # fmt: skip
        n, all_layers = self.num_weights, (self.gradient, self.flat, *layers)
        launch(kernels.update_weights, n, *state, *adam, WEIGHT_DECAY, 1.0, *(t[:n] for t in all_layers))
        if self._trains_background:
            launch(kernels.update_weights, 3, *state, *adam, 0.0, 1.0, *(t[n : n + 3] for t in all_layers))
        if len(self.exposures) > 0:
            given = (self.exposures.take_gradient(self.scalars), *self.exposures.state())
            launch(kernels.update_weights, given[0].numel(), *state, *adam, 0.0, s.exposure_rate, *given)
            self.exposures.refresh()
        torch.index_select(self.flat, 0, self._indices, out=self._packed)
        sizes = (len(self.candidates.lengths), s.samples)
        launch(kernels.finish_step, 1, *state, self.total_loss, *sizes, s.max_rays, self._depth_fraction)

    def status(self) -> StepStatus:
        """Wait for the last step, and return its figures."""
        counters, scalars = self.counters.tolist(), self.scalars.tolist()
        return StepStatus(
            updates=counters[UPDATES],
            loss=scalars[LOSS],
            mean_loss=scalars[MEAN_LOSS],
            num_rays=counters[NUM_RAYS],
            num_candidates=counters[NUM_CANDIDATES],
            num_samples=counters[NUM_SAMPLES],
            requested_candidates=counters[REQUESTED_CANDIDATES],
            requested_samples=counters[REQUESTED_SAMPLES],
            dropped_rays=counters[DROPPED_RAYS],
            skipped=counters[SKIPPED],
            skipped_in_a_row=counters[SKIPPED_IN_A_ROW],
            loss_scale=scalars[LOSS_SCALE],
        )

    def state(self) -> list[Tensor]:
        """Return the tensors that later steps depend on; they change these in place."""
        trained = (self.parameters.table, self.flat, *self.moments)
        return [*trained, *self.exposures.state(), self.counters, self.scalars]

    def take_snapshot(self) -> None:
        """Copy the parameters and Adam's moments, for `restore_snapshot`."""
        if not self._snapshot:
            self._snapshot = [tensor.clone() for tensor in self.state()]
        for copy, tensor in zip(self._snapshot, self.state(), strict=True):
            copy.copy_(tensor)

    def restore_snapshot(self) -> None:
        """Return to the snapshot, and continue with other random numbers and a smaller loss scale."""
        batches, skipped = self.counters[BATCHES].clone(), self.counters[SKIPPED].clone()
        for copy, tensor in zip(self._snapshot, self.state(), strict=True):
            tensor.copy_(copy)
        self.counters[BATCHES], self.counters[SKIPPED] = batches, skipped
        self.scalars[LOSS_SCALE] = INITIAL_LOSS_SCALE / 16
        self.sums.zero_()
        self.exposures.refresh()
        torch.index_select(self.flat, 0, self._indices, out=self._packed)
        self.table_copy.copy_(self.parameters.table.view(-1)[: len(self.table_copy)])
