"""The training step of a hash field on a GPU, as one CUDA graph.

Rays are drawn, samples placed, networks evaluated and differentiated, and parameters updated without a question from
the host: the number of rays is on the device, and so is that of samples, whose room is fixed. Rays that find no room
are left out and counted; the number of rays follows what the last steps took. On a CPU, for tests, the same step runs
on Warp's CPU device, operation by operation.

Half precision: the networks' activations and their gradients. Densities, colors, light, weights and all sums are in
single precision, and gradients of the table are sums in 64-bit fixed point: the same seed gives the same bits.
What keeps numbers finite: activations are limited; weights decay a little, as Adam moves by its rate however small
gradients are, and weights that have no effect would drift until activations overflow; gradients are scaled, and a step
that meets a number that is not finite changes nothing but halves the scale.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.data.device_pixels import DevicePixels
from unrender.fields.uniform_samples import occupied_box
from unrender.kernels._hash_training import (
    BAD_IN_A_ROW,
    DRAWS,
    DROPPED,
    LOSS,
    LOSS_SCALE,
    MEAN_LOSS,
    NUM_COUNTS,
    NUM_NUMBERS,
    NUM_RAYS,
    NUM_SAMPLES,
    RATE,
    SKIPPED,
    STEP,
    UPDATES,
    WANTED,
)
from unrender.kernels._hash_training.drawing import drawing
from unrender.kernels._hash_training.light import TOGETHER, light_kernels
from unrender.kernels._hash_training.traversal import traversal_kernels
from unrender.kernels._hash_training.updates import update_kernels
from unrender.kernels._warp import launch
from unrender.kernels.composite import composite
from unrender.kernels.hash_grid import HashLevels
from unrender.kernels.hash_grid.gpu import level_rows
from unrender.kernels.traverse import blocks_of

BETAS, EPSILON, DECAY = (0.9, 0.99), 1e-15, 1e-6
"""Of Adam; the decay is that of the layers' weights, by their gradients (as in instant-ngp)."""
MOST_ACTIVE = 16384.0
"""Activations of hidden layers are limited to what leaves room in half precision for their sums."""
FIRST_SCALE = 65536.0
"""Of gradients, which are divided by the number of rays."""
GEOMETRY, HARMONICS, COLORS = 16, 16, 8
"""Numbers from the density network; of a direction; rows of colors, of which three are used."""
WARM_UP = 3
"""Steps before the graph is captured: kernels are compiled, and libraries choose their algorithms."""


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What stays the same from step to step."""

    center: tuple[float, float, float]
    half_side: float
    """Of the field's cube, in world units."""
    contracted: bool
    near: float
    far: float
    """Distances between which samples lie; a bounded field ends at its cells anyway."""
    unit: float
    """Densities are e^output / unit."""
    samples: int = 1 << 18
    """Room for samples, a multiple of 8."""
    most_rays: int = 1 << 17
    first_rays: int = 4096
    distortion: float = 0.0
    random_background: bool = True
    """Draw a background color for each ray; otherwise it is the field's own."""
    learns_background: bool = False
    precision: torch.dtype = torch.float16
    """Of activations."""
    seed: int = 0


class StepStatus(NamedTuple):
    """Where training stands, as of the last step."""

    updates: int
    loss: float
    mean_loss: float
    num_rays: int
    num_samples: int
    wanted: int
    """Samples that the rays would have taken, had there been room."""
    dropped_rays: int
    """Rays so far that found no room."""
    skipped: int
    """Steps so far that met a number that is not finite."""
    skipped_in_a_row: int
    loss_scale: float


class Layers:
    """A small MLP in half precision whose last outputs are in single precision; activations lie by channels.

    Weights and biases of a layer are one matrix, whose last used column is the bias: inputs have a row of ones.
    """

    def __init__(
        self, sizes: Sequence[int], last_rows: int, room: int, flat: Tensor, active: Tensor, gradient: Tensor
    ):
        self.sizes, self.pitches = list(sizes), [-(-(n + 1) // 8) * 8 for n in sizes[:-1]]
        self.rows = [*sizes[1:-1], last_rows]
        self.weights, self.active, self.gradients, at = [], [], [], 0
        for rows, pitch in zip(self.rows, self.pitches, strict=True):
            part = slice(at, at + rows * pitch)
            self.weights.append(flat[part].view(rows, pitch))
            self.active.append(active[part].view(rows, pitch))
            self.gradients.append(gradient[part].view(rows, pitch))
            at += rows * pitch
        self.inputs = [active.new_zeros(pitch, room) for pitch in self.pitches]
        for size, values in zip(sizes, self.inputs, strict=False):
            values[size] = 1
        self.outputs = flat.new_zeros(last_rows, room)
        self.slopes = [active.new_zeros(size, room) for size in [*sizes[:-1], last_rows]]

    @staticmethod
    def count(sizes: Sequence[int], last_rows: int) -> int:
        """Return how many numbers the matrices hold."""
        rows = [*sizes[1:-1], last_rows]
        return sum(r * (-(-(n + 1) // 8) * 8) for r, n in zip(rows, sizes[:-1], strict=True))

    def load(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take weights and biases from elsewhere."""
        for matrix, (weight, bias) in zip(self.weights, layers, strict=True):
            matrix.zero_()
            matrix[: len(bias), : weight.shape[1]] = weight.detach()
            matrix[: len(bias), weight.shape[1]] = bias.detach()

    def store(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Bring weights and biases back."""
        with torch.no_grad():
            for matrix, (weight, bias) in zip(self.weights, layers, strict=True):
                weight.copy_(matrix[: len(bias), : weight.shape[1]])
                bias.copy_(matrix[: len(bias), weight.shape[1]])

    def forward(self) -> None:
        """Fill `outputs` from the first of `inputs`."""
        for n, (weight, size) in enumerate(zip(self.active[:-1], self.sizes[1:], strict=False)):
            values = self.inputs[n + 1][:size]
            torch.mm(weight, self.inputs[n], out=values)
            torch.clamp(values, 0.0, MOST_ACTIVE, out=values)
        product(self.active[-1], self.inputs[-1], self.outputs)

    def backward(self, rows: int) -> None:
        """Fill the gradients, and the slopes by the first inputs, so many of them, from the last of `slopes`."""
        for n in range(len(self.weights) - 1, -1, -1):
            product(self.slopes[n + 1], self.inputs[n].mT, self.gradients[n])
            size = self.sizes[n] if n > 0 else rows
            below = self.slopes[n][:size]
            torch.mm(self.active[n][:, :size].mT, self.slopes[n + 1], out=below)
            if n > 0:
                torch.ops.aten.threshold_backward.grad_input(
                    below, self.inputs[n][:size], 0, grad_input=below
                )


def product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Multiply matrices in half precision into one in single precision."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    elif left.device.type == "cpu":
        torch.mm(left.float(), right.float(), out=out)
    elif _has_mixed_products(left.device):
        torch.ops.aten.mm.dtype_out(left, right, out.dtype, out=out)
    else:
        out.copy_(left @ right)


@functools.cache
def _has_mixed_products(device: torch.device) -> bool:
    """Say whether torch multiplies in half precision into single precision; older versions do not."""
    ones = torch.ones(8, 8, dtype=torch.float16, device=device)
    try:
        torch.ops.aten.mm.dtype_out(ones, ones, torch.float32, out=ones.float())
    except (AttributeError, RuntimeError):
        return False
    return True


class HashParameters(NamedTuple):
    """The tensors of a hash field that are trained; the step writes to the table at once, to the rest when asked."""

    table: Tensor
    levels: HashLevels
    density_layers: list[tuple[Tensor, Tensor]]
    """Weights and biases."""
    color_layers: list[tuple[Tensor, Tensor]]
    background: Tensor


class GraphStep:
    """A training step of a hash field with two features on each level, and all that later steps depend on."""

    def __init__(
        self, parameters: HashParameters, pixels: DevicePixels, occupied: Tensor, settings: StepSettings
    ) -> None:
        self.parameters, self.pixels, self.settings = parameters, pixels, settings
        self.device = device = parameters.table.device
        self._draw = drawing().draw
        self._traverse = traversal_kernels(torch.float32).traverse
        self._light, self._updates = light_kernels(settings.precision), update_kernels()
        self._levels = level_rows(parameters.levels, device)
        self._center = torch.tensor([settings.center], device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._good: list[Tensor] = []
        self._make_parameters()
        self._make_buffers()
        self.set_occupied(occupied)
        self.remember()

    def _make_parameters(self) -> None:
        p, device = self.parameters, self.device
        sizes = [
            [layer[0][0].shape[1], *(len(bias) for _, bias in layer)]
            for layer in (p.density_layers, p.color_layers)
        ]
        last = (GEOMETRY, COLORS)
        counts = [Layers.count(each, rows) for each, rows in zip(sizes, last, strict=True)]
        self.num_weights = sum(counts)
        self.flat = torch.zeros(self.num_weights + 8, device=device)
        self.active = torch.zeros(len(self.flat), device=device, dtype=self.settings.precision)
        self.gradient = torch.zeros_like(self.flat)
        room, networks, at = self.settings.samples, [], 0
        for each, rows, count in zip(sizes, last, counts, strict=True):
            part = slice(at, at + count)
            networks.append(Layers(each, rows, room, self.flat[part], self.active[part], self.gradient[part]))
            at += count
        self.density, self.color = networks
        self.load()
        table = p.table.detach()
        self.moments = [torch.zeros_like(t.view(-1)) for t in (table, table, self.flat, self.flat)]
        self.sums = torch.zeros(table.numel(), dtype=torch.int64, device=device)

    def load(self) -> None:
        """Take the layers and the background from the field."""
        self.density.load(self.parameters.density_layers)
        self.color.load(self.parameters.color_layers)
        self.flat[self.num_weights : self.num_weights + 3] = self.parameters.background.detach()

    def store(self) -> None:
        """Bring the layers and the background back to the field; its table is trained in place."""
        self.density.store(self.parameters.density_layers)
        self.color.store(self.parameters.color_layers)
        with torch.no_grad():
            self.parameters.background.copy_(self.flat[self.num_weights : self.num_weights + 3])

    def _make_buffers(self) -> None:
        device, rays, room = self.device, self.settings.most_rays, self.settings.samples
        self.counts = torch.zeros(NUM_COUNTS, dtype=torch.int32, device=device)
        self.numbers = torch.zeros(NUM_NUMBERS, device=device)
        self.counts[NUM_RAYS] = min(self.settings.first_rays, rays)
        self.numbers[LOSS_SCALE] = FIRST_SCALE
        self.origins, self.directions, self.target, self.behind, self.to_behind = (
            torch.zeros(rays, 3, device=device) for _ in range(5)
        )
        self.jitter, self.loss = torch.zeros(2, rays, device=device)
        self.frame, self.per_ray = torch.zeros(2, rays, dtype=torch.int32, device=device)
        self.offsets = torch.zeros(rays + 1, dtype=torch.int32, device=device)
        self.places = torch.zeros(room, 3, device=device)
        self.distances, self.lengths, self.entering = torch.zeros(3, room, device=device)
        self.ray = torch.zeros(room, dtype=torch.int32, device=device)
        self.to_density = torch.zeros(room, dtype=self.settings.precision, device=device)
        self.total_loss = torch.zeros(1, device=device)
        self.occupied = self.blocks = self.box = self.largest = torch.zeros(0, device=device)

    def set_occupied(self, occupied: Tensor) -> None:
        """Look for samples in these cells only, [side side side]."""
        fine = occupied.to(self.device)
        box = (occupied_box(fine).to(self.device) * (2 / len(fine)) - 1).float()
        new = (fine.to(torch.uint8), blocks_of(fine).to(torch.uint8), box)
        self.num_occupied = int(fine.sum())
        if self.occupied.shape == fine.shape:
            for old, values in zip((self.occupied, self.blocks, self.box), new, strict=True):
                old.copy_(values)
        else:
            self.occupied, self.blocks, self.box = (t.contiguous() for t in new)
            self.largest = torch.zeros(fine.shape, dtype=torch.int32, device=self.device)
            self._graph = None
        self.largest.zero_()

    @property
    def weights_of_cells(self) -> Tensor:
        """The largest weight of a sample in each cell since the cells were set."""
        return self.largest.view(torch.float32)

    def run(self, steps: int, rate: float, step: float) -> None:
        """Take steps, with a learning rate and samples so far apart, in world units; nothing waits for them."""
        self.numbers[RATE].fill_(rate)
        self.numbers[STEP].fill_(step)
        if self.device.type != "cuda":
            for _ in range(steps):
                self._step()
            return
        if self._graph is None:
            steps -= self._capture()
        for _ in range(steps):
            assert self._graph is not None
            self._graph.replay()

    def _capture(self) -> int:
        """Take steps outside of a graph, then capture one; return how many steps were taken."""
        beside = torch.cuda.Stream(self.device)
        beside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                self._step()
        torch.cuda.current_stream(self.device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step()
        return WARM_UP

    @torch.no_grad()
    def _step(self) -> None:
        self.active.copy_(self.flat)
        self._place_samples()
        self._evaluate()
        self._go_back()
        self._descend()

    def _place_samples(self) -> None:
        s, pixels, rays = self.settings, self.pixels, self.settings.most_rays
        background = self.flat[self.num_weights : self.num_weights + 3]
        launch(
            self._draw, rays, s.seed, self.counts, pixels.colors, pixels.valid.view(torch.uint8), pixels.starts,
            pixels.map_starts, pixels.directions_camera, pixels.world_from_camera.flatten(1), background,
            s.random_background, pixels.has_alpha, self.origins, self.directions, self.target, self.behind,
            self.jitter, self.frame,
        )  # fmt: skip
        self._traverse_rays()

    def _traverse_rays(self) -> None:
        s, rays = self.settings, self.settings.most_rays
        for writes in (False, True):
            launch(
                self._traverse, rays, self.counts, self.numbers, self.occupied, self.blocks, self.box, self._center,
                s.half_side, s.near, s.far, s.contracted, self.origins, self.directions, self.jitter, writes,
                self.offsets, self.per_ray, self.places, self.distances, self.lengths, self.ray,
            )  # fmt: skip
            if not writes:
                torch.cumsum(self.per_ray, 0, dtype=torch.int32, out=self.offsets[1:])
                launch(self._updates.begin, 1, self.counts, self.offsets, s.samples)

    def _evaluate_networks(self) -> None:
        s, table = self.settings, self.parameters.table.detach().view(torch.int64)
        size, features = (len(self._levels), s.samples), self.density.inputs[0]
        launch(self._light.encode, size, self.counts, self.places, table, self._levels, features)
        self.density.forward()
        geometry, inputs = self.density.outputs, self.color.inputs[0]
        launch(self._light.color_inputs, s.samples, self.counts, geometry, self.directions, self.ray, inputs)
        self.color.forward()

    def _evaluate(self) -> None:
        s, geometry = self.settings, self.density.outputs
        self._evaluate_networks()
        self.to_density.zero_()
        self.color.slopes[-1].zero_()
        launch(
            self._light.see, s.most_rays, self.counts, self.numbers, self.offsets, self.lengths, self.distances,
            self.places, geometry, self.color.outputs, self.target, self.behind, self.directions, s.unit,
            s.distortion, s.half_side, self.entering, self.largest, self.loss, self.to_behind, self.to_density,
            self.color.slopes[-1],
        )  # fmt: skip
        torch.sum(self.loss, 0, keepdim=True, out=self.total_loss)

    def _go_back(self) -> None:
        self.color.backward(GEOMETRY)
        of_geometry = self.density.slopes[-1]
        of_geometry.copy_(self.color.slopes[0][:GEOMETRY])
        of_geometry[0].add_(self.to_density)
        self.density.backward(2 * len(self._levels))
        groups = -(-self.settings.samples // TOGETHER)
        launch(
            self._light.scatter, (len(self._levels), groups), self.counts, self.places, self._levels,
            self.density.slopes[0], self._units, self.sums,
        )  # fmt: skip
        if self.settings.learns_background:
            torch.sum(self.to_behind, 0, out=self.gradient[self.num_weights : self.num_weights + 3])

    @property
    def _units(self) -> float:
        """How many units of fixed point there are to each 1: no sum of numbers in half precision overflows."""
        return 2.0 ** (62 - 16 - math.ceil(math.log2(self.settings.samples)))

    def _descend(self) -> None:
        u, given = self._updates, (self.counts, self.numbers)
        adam = (*BETAS, EPSILON)
        table, layers = self.moments[:2], self.moments[2:]
        launch(u.look_over, len(self.gradient), *given, self.gradient, *BETAS)
        values = self.parameters.table.detach().view(-1)
        launch(u.update_table, len(values), *given, *adam, self._units, self.sums, values, *table)
        n, all_layers = self.num_weights, (self.gradient, self.flat, *layers)
        launch(u.update_layers, n, *given, *adam, DECAY, *(t[:n] for t in all_layers))
        if self.settings.learns_background:
            launch(u.update_layers, 3, *given, *adam, 0.0, *(t[n : n + 3] for t in all_layers))
        launch(u.finish, 1, *given, self.total_loss, self.settings.samples, self.settings.most_rays)

    @torch.no_grad()
    def render(self, origins: Tensor, directions: Tensor, step: float) -> tuple[Tensor, Tensor]:
        """Return color, with nothing behind it, and opacity along rays [n, 3], as the next step would see them.

        Rays are taken as many at a time as there is room for: each part asks the device how many samples there are.
        """
        kept = self.counts.clone(), self.numbers.clone(), self.jitter.clone()
        self.active.copy_(self.flat)
        self.numbers[STEP].fill_(step)
        self.jitter.fill_(0.5)
        parts, begin, size = [], 0, self.settings.most_rays
        while begin < len(origins):
            count = min(size, len(origins) - begin)
            self.counts[NUM_RAYS].fill_(count)
            self.origins[:count], self.directions[:count] = (
                t[begin : begin + count] for t in (origins, directions)
            )
            self._traverse_rays()
            wanted = int(self.counts[WANTED])
            if wanted > self.settings.samples and count > 1:
                size = max(1, min(int(0.9 * count * self.settings.samples / wanted), count - 1))
                continue
            parts.append(self._shade(count, min(wanted, self.settings.samples)))
            begin, size = begin + count, min(size + size // 8 + 1, self.settings.most_rays)
        for tensor, copy in zip((self.counts, self.numbers, self.jitter), kept, strict=True):
            tensor.copy_(copy)
        color, opacity = zip(*parts, strict=True)
        return torch.cat(color), torch.cat(opacity)

    def _shade(self, rays: int, samples: int) -> tuple[Tensor, Tensor]:
        """Evaluate the networks, and composite."""
        self._evaluate_networks()
        density = self.density.outputs[0, :samples].clamp(max=15).exp() / self.settings.unit
        color = self.color.outputs[:3, :samples].sigmoid().mT.contiguous()
        offsets = self.offsets[: rays + 1].long()
        seen = composite(density, self.lengths[:samples], color, offsets=offsets, stop_below=1e-4)
        assert seen.color is not None
        return seen.color, seen.opacity

    def status(self) -> StepStatus:
        """Wait for the last step and tell where training stands."""
        counts, numbers = self.counts.tolist(), self.numbers.tolist()
        return StepStatus(
            counts[UPDATES],
            numbers[LOSS],
            numbers[MEAN_LOSS],
            counts[NUM_RAYS],
            counts[NUM_SAMPLES],
            counts[WANTED],
            counts[DROPPED],
            counts[SKIPPED],
            counts[BAD_IN_A_ROW],
            numbers[LOSS_SCALE],
        )

    def _state(self) -> list[Tensor]:
        return [self.parameters.table.detach(), self.flat, *self.moments, self.counts, self.numbers]

    def remember(self) -> None:
        """Keep a copy of the parameters and of Adam's moments, to which `go_back` returns."""
        if not self._good:
            self._good = [tensor.clone() for tensor in self._state()]
        for copy, tensor in zip(self._good, self._state(), strict=True):
            copy.copy_(tensor)

    def return_to_good(self) -> None:
        """Return to the copy, and go on with other random numbers and a smaller scale of gradients."""
        draws, skipped = self.counts[DRAWS].clone(), self.counts[SKIPPED].clone()
        for copy, tensor in zip(self._good, self._state(), strict=True):
            tensor.copy_(copy)
        self.counts[DRAWS], self.counts[SKIPPED] = draws, skipped
        self.numbers[LOSS_SCALE] = FIRST_SCALE / 16
        self.sums.zero_()
