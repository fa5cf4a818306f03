"""Any field in training: what one step does, and all that the next one depends on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor

from unrender.data.depth_supervision import DEPTH_RAYS_PER_RAY, DepthBatch
from unrender.data.pixels import PixelBatch
from unrender.fields.trainable import FieldOptions, ParameterChange, TrainableField
from unrender.geometry.rays import Rays
from unrender.losses.depth import depth_loss
from unrender.losses.distortion import distortion_loss
from unrender.render.march import RenderOutput
from unrender.training.exposure import Exposures
from unrender.training.gradient_step import backpropagate, gradient_step, parameters_of, step_if
from unrender.training.reduction import GradientSums
from unrender.training.saved_state import check_counts, check_moments, check_tensors, read_count
from unrender.training.shards import Shard
from unrender.training.state import State, in_folder, of_folder, optimizer_tensors, restore_optimizer
from unrender.training.step import Measured
from unrender.training.targets import Background, constant_error, squared_error, training_targets
from unrender.workers import current_workers

AnyField = TypeVar("AnyField", bound=TrainableField)
EXPOSURE_LEARNING_RATE = 1e-2


class Objective(NamedTuple):
    """What a field is trained for: weights of losses, and how colors are compared with images."""

    depth_loss_weight: float
    distortion_loss_weight: float = 0.0
    background: Background = "auto"
    white_fraction: float = 0.0
    """Fraction of rays with a white background where `background` is auto; that of the others is random."""
    per_image_exposure: bool = False
    """Whether each image has a factor for each channel, which is optimized too."""


class _Losses(NamedTuple):
    total: Tensor
    color: Tensor
    constant: Tensor
    num_samples: int | None


class FieldTraining(Generic[AnyField]):
    """A field with its optimizer and random numbers, and the shards of each step that are this worker's.

    num_shards: the shards of a step over all workers. The bits of a training depend on it, but not on how many workers
    share them.
    num_frames: training images of all shards; by default, those of the only one.
    """

    def __init__(
        self,
        field: AnyField,
        options: FieldOptions,
        shards: Sequence[Shard],
        objective: Objective,
        seed: int,
        *,
        num_shards: int = 1,
        num_frames: int | None = None,
    ) -> None:
        self.field, self.options, self.shards, self.num_shards = field, options, shards, num_shards
        self.objective, self.seed, self.generator = objective, seed, Generator().manual_seed(seed)
        self._num_steps = 0
        self.device = field.background.device
        photos = len(shards[0].frame) if num_frames is None else num_frames
        self._exposures = Exposures(photos).to(self.device) if objective.per_image_exposure else None
        groups = field.parameter_groups()
        if self._exposures is not None:
            groups.append({"params": list(self._exposures.parameters()), "lr": EXPOSURE_LEARNING_RATE})
        self._rates = [float(group["lr"]) for group in groups]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)

    @property
    def exposures(self) -> Tensor | None:
        """Factor of each training image and channel by which it is brighter than the scene."""
        return None if self._exposures is None else self._exposures.factors().detach()

    def reseed(self, seed: int) -> None:
        """Continue with other random numbers."""
        self.seed = seed
        self.generator.manual_seed(seed)

    def step(self, progress: float) -> Measured:
        """Take one step at a progress of 0 to 1; parameters stay as they are where the loss is not finite."""
        parameters = dict(self.field.named_parameters())
        change = self.field.begin_step(progress, self.options)
        if change is not None:
            self._follow(change, parameters)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.field.final_learning_rate**progress
        num_rays = self.field.num_rays(progress, self.options)
        measured = self._whole_step(num_rays) if self.num_shards == 1 else self._sharded_step(num_rays)
        self._num_steps += 1
        self.field.end_step(progress, self.options)
        return measured

    def _whole_step(self, num_rays: int) -> Measured:
        losses = self._losses(self.shards[0], num_rays)
        is_finite = gradient_step(self.optimizer, losses.total)
        return Measured(losses.color.detach(), losses.constant, is_finite, losses.num_samples)

    def _sharded_step(self, num_rays: int) -> Measured:
        """Take a step by the sum of gradients over the shards of all workers."""
        self.optimizer.zero_grad()
        names = list(self.field.counters())
        sums = GradientSums(parameters_of(self.optimizer), self.num_shards, 4 + len(names))
        for shard in self.shards:
            self.generator.manual_seed(shard.begin(self.seed, self._num_steps))
            losses = self._losses(shard, num_rays)
            backpropagate(shard.weight * losses.total)
            errors = torch.stack([losses.total, losses.color, losses.constant]).detach() * shard.weight
            sums.add(shard.index, [*errors, losses.num_samples or 0, *self.field.counters().values()])
        found = sums.finish(current_workers())
        step_if(self.optimizer, found.is_finite)
        _, color, constant, num_samples, *counts = found.values.sum(0)
        self.field.set_counters({name: int(count) for name, count in zip(names, counts, strict=True)})
        return Measured(color, constant, found.is_finite, int(num_samples) or None)

    def _follow(self, change: ParameterChange, old: dict[str, torch.nn.Parameter]) -> None:
        """Let the optimizer continue with the parameters of a field that pruned or refined itself."""
        new = dict(self.field.named_parameters())
        for name, rows in change.kept_rows.items():
            moments = self.optimizer.state.pop(old[name], None)
            if moments and rows is not None:
                self.optimizer.state[new[name]] = {
                    key: value[rows] if value.dim() else value for key, value in moments.items()
                }
        self._set_parameters()

    def _set_parameters(self) -> None:
        groups = self.field.parameter_groups()
        for group, fresh in zip(self.optimizer.param_groups, groups, strict=False):  # exposures come last
            group["params"] = fresh["params"]

    def state(self) -> State:
        """Return all that later steps depend on."""
        contents, description = self.field.contents()
        more, numbers = self.field.training_state()
        tensors = in_folder("field", contents) | in_folder("training", more)
        tensors |= in_folder("adam", optimizer_tensors(self.optimizer))
        if self._exposures is not None:
            tensors |= in_folder("exposures", self._exposures.state_dict())
        if self.num_shards == 1:  # else, each step begins with its own random numbers
            tensors |= in_folder("pixels", self.shards[0].pixels.state())
            tensors["random"] = self.generator.get_state()
        return State(tensors, {"field": description, "training": numbers, "steps": self._num_steps})

    def restore(self, state: State) -> None:
        """Return to a state."""
        tensors, numbers = state.copy()
        field = type(self.field).from_contents(of_folder("field", tensors), numbers["field"])
        check_training_state(field, of_folder("training", tensors), numbers["training"])
        self.field = field.to(self.device)
        self.field.load_training_state(of_folder("training", tensors), numbers["training"])
        self._set_parameters()
        moments = of_folder("adam", tensors)
        check_moments(moments, parameters_of(self.optimizer))
        restore_optimizer(self.optimizer, moments)
        if self._exposures is not None:
            exposures = of_folder("exposures", tensors)
            check_tensors(exposures, self._exposures.state_dict())
            self._exposures.load_state_dict(exposures)
        self._num_steps = read_count("steps", numbers["steps"])
        if self.num_shards == 1:
            self.shards[0].pixels.restore(of_folder("pixels", tensors))
            self.generator.set_state(tensors["random"])

    def _losses(self, shard: Shard, num_rays: int) -> _Losses:
        """Return the losses of a shard's pixels, and of its rays of known depth."""
        batch = shard.draw(num_rays, self.field.patch_size).to(self.device)
        objective, count = self.objective, len(batch.colors)
        is_joint = self.field.keeps_samples  # then rays of depth are rendered together with those of pixels
        depths = self._draw_depths(shard, count) if is_joint else None
        rays = batch.rays if depths is None else _joined(batch.rays, depths.rays)
        outputs = self.field.training_outputs(rays, self.generator)
        outputs = outputs[-1:] if outputs[0] is outputs[-1] else outputs  # of one network
        target, background = training_targets(
            batch, self.field.background, objective.background, self.generator, objective.white_fraction
        )
        errors = [self._color_loss(output, batch, target, background) for output in outputs]
        total = torch.stack(errors).sum()
        if depths is not None:
            losses = [_depth_loss(output, depths.distances) for output in outputs]
            total = total + objective.depth_loss_weight * sum(losses)
        if objective.distortion_loss_weight > 0 and is_joint:
            radius = float(self.field.scene_box.radius)
            total = total + objective.distortion_loss_weight * sum(
                _distortion_loss(output, radius) for output in outputs
            )
        penalty = self.field.regularization(self.options) if shard.index == 0 else None
        total = total if penalty is None else total + penalty / shard.weight
        depths = None if is_joint else self._draw_depths(shard, count)
        if depths is not None:
            total = total + objective.depth_loss_weight * self._separate_depth_loss(depths)
        constant = constant_error(target, background, batch.valid)
        return _Losses(total, errors[-1], constant, _num_samples(outputs))

    def _draw_depths(self, shard: Shard, num_rays: int) -> DepthBatch | None:
        depths = shard.draw_depths(math.ceil(DEPTH_RAYS_PER_RAY * num_rays), self.generator)
        if depths is None:
            return None
        return DepthBatch(depths.rays.to(self.device), depths.distances.to(self.device))

    def _color_loss(
        self, output: RenderOutput, batch: PixelBatch, target: Tensor, background: Tensor
    ) -> Tensor:
        """Return the mean squared error of the colors along the first rays."""
        count = len(target)  # rays of known depth follow
        color = output.color[:count] + (1 - output.opacity[:count])[:, None] * background
        if self._exposures is not None:
            color = self._exposures(color, batch.frame)
        return squared_error(color, target, batch.valid)

    def _separate_depth_loss(self, depths: DepthBatch) -> Tensor:
        """Return the depth loss of rays that are not rendered together with those of pixels.

        It needs the weights of samples: the gradient of a loss of the mean distance grows with the distance from the
        surface, and fills empty space with haze that shifts the mean by a fraction of a voxel.
        """
        samples, weights = self.field.training_weights(depths.rays, self.generator)
        assert samples.offsets is not None
        return depth_loss(weights, samples.distances, samples.offsets, depths.distances)


def check_training_state(
    field: TrainableField, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Raise FileFormatError unless tensors and numbers can be the training state of a field."""
    own_tensors, own_numbers = field.training_state()
    check_tensors(tensors, own_tensors)
    check_counts(numbers, own_numbers)


def _joined(rays: Rays, more: Rays) -> Rays:
    return Rays(torch.cat([rays.origins, more.origins]), torch.cat([rays.directions, more.directions]))


def _num_samples(outputs: tuple[RenderOutput, ...]) -> int | None:
    """Return the number of samples, where fields keep them."""
    weights = [output.weights for output in outputs if output.weights is not None]
    return sum(weight.numel() for weight in weights) if weights else None


def _depth_loss(output: RenderOutput, measured: Tensor) -> Tensor:
    """Return the depth loss of the last rays, whose depth is measured."""
    samples, weights = output.samples, output.weights
    assert samples is not None
    assert samples.offsets is not None
    assert weights is not None
    offsets = samples.offsets[-len(measured) - 1 :]
    first = int(offsets[0])
    return depth_loss(weights[first:], samples.distances[first:], offsets - first, measured)


def _distortion_loss(output: RenderOutput, unit: float) -> Tensor:
    """Return the distortion loss over t / (t + unit), which maps all distances to 0 to 1."""
    samples, weights = output.samples, output.weights
    assert samples is not None
    assert samples.offsets is not None
    assert weights is not None
    normalized = samples.distances / (samples.distances + unit)
    lengths = samples.lengths * unit / (samples.distances + unit).square()
    return distortion_loss(weights, normalized, lengths, samples.offsets)
