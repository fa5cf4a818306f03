"""Training of a hash field on a GPU by graph steps, with the state of the training on a CPU."""

import dataclasses
from typing import cast

import torch
from torch import Tensor, nn

from unrender.data.depth_supervision import DeviceDepths
from unrender.data.device_pixels import DevicePixels
from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.occupancy import OccupancyGrid
from unrender.fields.schedules import HashSchedule, stage_at
from unrender.fields.trainable import TrainableField
from unrender.geometry.scene_box import FAR
from unrender.kernels._hash_training import BATCHES, LOSS, SKIPPED_IN_A_ROW, UPDATES
from unrender.training.field_training import EXPOSURE_LEARNING_RATE, Objective, check_training_state
from unrender.training.graph_step import GraphStep, HashParameters, StepSettings
from unrender.training.saved_state import check_moments, check_tensors
from unrender.training.state import State, in_folder, of_folder
from unrender.training.step import Measured

MAX_SKIPPED_IN_A_ROW = 16
"""Consecutive steps with values that are not finite: each halves the loss scale, which helps against overflow only."""
STEPS_BETWEEN_CONSTANTS = 16
"""Steps between two measurements of the error of a constant image."""
FAR_BOUNDED = 1e9


@dataclasses.dataclass(frozen=True)
class GraphOptions:
    """How graph steps train a hash field."""

    samples: int = 1 << 18
    """Visible samples of a step."""
    candidates_per_sample: float = 3.0
    """Samples at which the density is evaluated, at most, for each at which the field is trained."""
    min_visible_weight: float = 1e-3
    """Weight from which on samples are visible."""
    sparse_updates: bool = True
    """Whether table entries without a gradient stay as they are."""
    table_decay: float = 0.0
    """L2 regularization of the hash table."""
    learning_rate: float = HashNeRF.learning_rate
    final_learning_rate: float = HashNeRF.final_learning_rate
    """Fraction of the learning rate that is left at the end."""
    schedule: HashSchedule = dataclasses.field(default_factory=HashSchedule)
    """Its number of rays does not apply: steps have as many as their samples allow."""


class GraphTraining:
    """A hash field on a GPU with its pixels and its step."""

    def __init__(
        self,
        field: TrainableField,
        pixels: DevicePixels,
        options: GraphOptions,
        objective: Objective,
        seed: int,
        pixel_state: dict[str, Tensor] | None = None,
        depths: DeviceDepths | None = None,
    ) -> None:
        self._depths = depths
        self.options, self.pixels, self.objective, self.seed = options, pixels, objective, seed
        self._pixel_state = pixel_state or {}
        """Of a `PixelSource` that has not drawn yet: what a training on a CPU resumes with."""
        self._random = torch.Generator().manual_seed(seed).get_state()
        self._begin(cast("HashNeRF", field))

    def _begin(self, field: HashNeRF) -> None:
        """Make the step of a field, and let the field's parameters be what it updates."""
        p = HashParameters(
            field.table,
            field.levels,
            _linear(field.density_layers),
            _linear(field.color_layers),
            field.background,
        )
        self._field = field
        occupied, settings = field.occupancy.occupied, self._settings(field)
        self.graph_step = GraphStep(p, self.pixels, occupied, settings, self._depths)
        self._constant = torch.zeros((), device=self.graph_step.device)
        self._since_pruning = 0
        p = self.graph_step.parameters
        for layers, given in (
            (field.density_layers, p.density_layers),
            (field.color_layers, p.color_layers),
        ):
            for layer, (weight, bias) in zip(layers, given, strict=True):
                layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        field.table, field.background = nn.Parameter(p.table), nn.Parameter(p.background)

    def _settings(self, field: HashNeRF) -> StepSettings:
        options, objective, box = self.options, self.objective, field.scene_box
        half_extent = float(box.half_extent.max())
        random = {"auto": 1 - objective.white_fraction, "random": 1.0}.get(objective.background, 0.0)
        constant = (0.0, 0.0, 0.0) if objective.background == "black" else (1.0, 1.0, 1.0)
        exposure_rate = EXPOSURE_LEARNING_RATE / options.learning_rate
        return StepSettings(
            cast("tuple[float, float, float]", tuple(box.center.tolist())),
            half_extent,
            box.contracted,
            field.near,
            FAR * half_extent if box.contracted else FAR_BOUNDED,
            field.density_unit,
            samples=options.samples // 8 * 8,
            candidates_per_sample=options.candidates_per_sample,
            max_rays=min(1 << 17, options.samples),
            initial_rays=max(64, options.samples // 64),
            min_weight=options.min_visible_weight,
            sparse=options.sparse_updates,
            table_decay=options.table_decay,
            distortion=objective.distortion_loss_weight,
            depth_weight=objective.depth_loss_weight,
            exposure_rate=exposure_rate if objective.per_image_exposure else 0.0,
            random_backgrounds=random if self.pixels.has_alpha else 0.0,
            constant_background=constant if self.pixels.has_alpha else None,
            seed=self.seed,
        )

    @property
    def field(self) -> HashNeRF:
        """The field as it is now."""
        return self._field

    @property
    def exposures(self) -> Tensor | None:
        """Factor of each training image and channel by which it is brighter than the scene."""
        exposures = self.graph_step.exposures
        return exposures.factors.clone() if len(exposures) else None

    def reseed(self, seed: int) -> None:
        """Continue with other random numbers."""
        self.graph_step.counters[BATCHES] = 1_000_000 * (1 + seed % 2000)

    def step(self, progress: float) -> Measured:
        """Take one step at a progress of 0 to 1; parameters stay as they are where the loss is not finite."""
        options, field, step = self.options, self._field, self.graph_step
        s = options.schedule
        stages = s.samples_per_side_contracted if field.scene_box.contracted else s.samples_per_side
        field.step = 2 * step.settings.half_extent / stage_at(stages, progress)
        step.run(1, options.learning_rate * options.final_learning_rate**progress, field.step)
        if self._since_pruning % STEPS_BETWEEN_CONSTANTS == 0:
            self._constant = self._constant_error()
        self._since_pruning += 1
        self._prune()
        if progress >= s.split_at and field.occupancy.shape[0] <= s.occupancy_resolution:
            self._set_occupancy(field.occupancy.split())
        is_finite = step.counters[SKIPPED_IN_A_ROW] < MAX_SKIPPED_IN_A_ROW
        return Measured(step.scalars[LOSS].clone(), self._constant, is_finite, None)

    def _constant_error(self) -> Tensor:
        """Return the error of the better of two constant images for the rays of the last step."""
        step, count = self.graph_step, 1024
        target, background = step.target[:count], step.background[:count]
        mean = (target - target.mean(0)).square().mean()
        return torch.minimum(mean, (target - background).square().mean())

    def _prune(self) -> None:
        """Prune unobserved cells once enough samples were taken."""
        s, grid = self.options.schedule, self._field.occupancy
        samples = self._since_pruning * self.options.samples
        if self._since_pruning < s.pruning_steps or samples < s.pruning_samples * grid.num_occupied:
            return
        grid.max_weight.copy_(self.graph_step.max_weight)
        contracted = self._field.scene_box.contracted
        grid.prune(s.min_weight_contracted if contracted else s.min_weight)
        self._set_occupancy(grid)

    def _set_occupancy(self, grid: OccupancyGrid) -> None:
        self._field.occupancy = grid
        self.graph_step.set_occupied(grid.occupied)
        self._since_pruning = 0

    def state(self) -> State:
        """Return all that later steps depend on, named as `FieldTraining` names them."""
        step, field = self.graph_step, self._field
        field.occupancy.max_weight.copy_(step.max_weight)
        contents, description = field.contents()
        more, counters = field.training_state()
        tensors = in_folder("field", contents) | in_folder("training", more)
        tensors |= in_folder("adam", self._optimizer_tensors()) | in_folder("pixels", self._pixel_state)
        if len(step.exposures):
            tensors["exposures/logs"] = step.exposures.logs
        tensors |= {"random": self._random, "graph/counters": step.counters, "graph/scalars": step.scalars}
        numbers = {
            "field": description,
            "training": counters,
            "steps": int(step.counters[UPDATES]),
            "graph": {"since_pruning": self._since_pruning},
        }
        return State({name: tensor.contiguous() for name, tensor in tensors.items()}, numbers)

    def _moments(self) -> list[list[Tensor]]:
        """Return both moments of Adam, in the order of the field's parameters."""
        step, found = self.graph_step, []
        for of_table, of_flat in zip(step.moments[:2], step.moments[2:], strict=True):
            *layers, background = step.packed(of_flat)
            found.append([background, of_table.view(step.parameters.table.shape), *layers])
        for moments, of_exposures in zip(found, step.exposures.state()[1:], strict=False):
            moments.append(of_exposures)
        return found

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        first, second = self._moments()
        updates = self.graph_step.counters[UPDATES].float()
        tensors: dict[str, Tensor] = {}
        for number, (mean, square) in enumerate(zip(first, second, strict=True)):
            tensors[f"{number}/step"] = updates.clone()  # files hold no tensor twice
            tensors |= {f"{number}/exp_avg": mean, f"{number}/exp_avg_sq": square}
        return tensors

    def restore(self, state: State) -> None:
        """Return to a state, also to one of a training on a CPU."""
        tensors, numbers, device = *state.copy(), self.graph_step.device
        field = HashNeRF.from_contents(of_folder("field", tensors), numbers["field"])
        check_training_state(field, of_folder("training", tensors), numbers["training"])
        field = field.to(device)
        field.load_training_state(of_folder("training", tensors), numbers["training"])
        self._begin(field)
        step = self.graph_step
        step.max_weight.copy_(field.occupancy.max_weight)
        moments = of_folder("adam", tensors)
        check_moments(moments, [*field.parameters(), *step.exposures.state()[:1]])
        if len(step.exposures):
            check_tensors(of_folder("exposures", tensors), {"logs": step.exposures.logs})
            step.exposures.logs.copy_(tensors["exposures/logs"])
            step.exposures.refresh()
        self._restore_optimizer(moments)
        if "graph/counters" in tensors:
            graph = {"graph/counters": step.counters, "graph/scalars": step.scalars}
            check_tensors({name: t for name, t in tensors.items() if name in graph}, graph)
            step.counters.copy_(tensors["graph/counters"])
            step.scalars.copy_(tensors["graph/scalars"])
            self._since_pruning = int(numbers["graph"]["since_pruning"])
        else:
            steps = [value for name, value in tensors.items() if name.endswith("/step")]
            step.counters[UPDATES] = int(max(steps, default=0))
            step.counters[BATCHES] = step.counters[UPDATES]

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        """Fill both moments; of a parameter without gradients so far, as a background, a CPU saves none."""
        for k, name in enumerate(("exp_avg", "exp_avg_sq")):
            found = [
                tensors.get(f"{number}/{name}", torch.zeros_like(moment)).to(moment)
                for number, moment in enumerate(self._moments()[k])
            ]
            step, count = self.graph_step, len(list(self._field.parameters()))
            background, table, *layers = found[:count]
            step.moments[k].copy_(table.reshape(-1))
            step.unpack([*layers, background], step.moments[2 + k])
            for moment, of_exposures in zip(
                step.exposures.state()[1 + k : 2 + k], found[count:], strict=True
            ):
                moment.copy_(of_exposures)


def _linear(layers: nn.ModuleList) -> list[tuple[Tensor, Tensor]]:
    return [(layer.weight, layer.bias) for layer in layers if isinstance(layer, nn.Linear)]
