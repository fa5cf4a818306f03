"""Fields that can be trained: what the training loop, files and reports need of one, with defaults."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unrender.errors import InputError
from unrender.fields.protocol import Field, RenderedField
from unrender.fields.render_field import render_field
from unrender.fields.uniform_samples import flatten_samples, sample_interval, uniform_samples
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays
from unrender.geometry.scene_box import SceneBox
from unrender.geometry.world_origin import ZERO
from unrender.render.march import RenderOutput, march
from unrender.render.sample import RaySamples

MAX_NEAR = 1e30
"""Largest distance at which rays begin, in a file."""
MAX_CELLS = 1024**3
"""Maximum number of cells of a grid from a file, which may be damaged."""
MAX_ORIGIN = 1e15
"""Largest coordinate of an origin from a file."""


class SceneRegion(NamedTuple):
    """The region of a scene to model, from which a new field is created."""

    scene_box: SceneBox
    occupied: Bool[Tensor, "x y z"]
    """Cells of equal size that fill the scene box, in contracted coordinates if it is contracted."""
    near: float
    """Distance from the cameras at which rays start, in world units."""

    def cube(self) -> Self:
        """Return the smallest cube around the region, with its cells."""
        box, shape = self.scene_box, torch.tensor(self.occupied.shape)
        side = int(shape.max())
        if bool((shape == side).all()):
            return self
        before = (side - shape) // 2
        occupied = torch.zeros(side, side, side, dtype=torch.bool)
        x, y, z = (slice(int(b), int(b + n)) for b, n in zip(before, shape, strict=True))
        occupied[x, y, z] = self.occupied
        cell = 2 * float(box.radius) / side
        center = box.bounds[0] + (side / 2 - before) * cell
        half_extent = torch.full_like(center, side / 2 * cell)
        return type(self)(box.replace(center=center, half_extent=half_extent), occupied, self.near)


@dataclasses.dataclass(frozen=True)
class FieldOptions:
    """Training settings for fields; each field reads those that apply to it."""

    steps: int | None = None
    """Training steps, if known in advance."""
    rays: int = 4096
    """Rays per step, for fields that do not choose the number themselves."""
    samples: int = 65536
    """Samples per step, for fields that adapt the number of rays to them."""
    resolution: int = 256
    """Voxels along the longest side, at the end."""
    degree: int = 2
    """Degree of the spherical harmonics of color."""
    table_log2: int = 18
    """Base-2 logarithm of the hash table size per level."""
    smoothness: float = 0.0
    """Weight of the total variation of opacity and color."""
    sparsity: float = 0.0
    """Weight of the mean opacity."""
    schedule: object = None
    """When the field refines and prunes itself, such as `HashSchedule`; by default the field's own schedule."""


class ParameterChange(NamedTuple):
    """How parameters were replaced when a field pruned or refined itself."""

    kept_rows: Mapping[str, Tensor | None]
    """By parameter name: which rows of the old parameter make up the new one, in order; None: it is initialized anew.

    Parameters that are not named are unchanged. An optimizer keeps the same rows of its state.
    """


class TrainableField(nn.Module):
    """Base class of fields that can be trained. A subclass has to define `forward`; all other methods have defaults.

    forward(points [n, 3], unit directions [n, 3]) → density [n] per world unit, color [n, 3]. By default, rays are
    sampled uniformly within the scene box, and the parameters are what is saved.
    """

    num_samples: ClassVar[int] = 128
    """Number of samples per ray, by default."""
    learning_rate: ClassVar[float] = 1e-2
    """Learning rate of Adam for all parameters, by default."""
    final_learning_rate: ClassVar[float] = 0.03
    """Learning rates at the end of the training, as a fraction of the initial ones."""
    keeps_samples: ClassVar[bool] = True
    """Whether training outputs have weights and samples, which the distortion loss needs; if not, the depth loss calls
    `training_weights`."""
    expected_growth: float = 1.0
    """Factor by which the field is expected to grow in training, to say early that it will not fit on the disk."""
    patch_size: ClassVar[int] = 1
    """Rays of a training step are drawn in patches of `patch_size` × `patch_size` pixels."""
    gpu_schedule: ClassVar[object | None] = None
    """Default schedule for training on a GPU, if it differs from that on a CPU."""
    has_graph_step: ClassVar[bool] = False
    """Whether `training.graph_training` can train the field: it captures the steps of a hash field in CUDA graphs."""

    scene_box: SceneBox
    near: float
    background: Tensor

    def __init__(
        self, scene_box: SceneBox, *, near: float = 0.0, background: Float[Tensor, "3"] | None = None
    ) -> None:
        super().__init__()
        if not 0 <= near < math.inf:
            raise InputError(f"{type(self).__name__}: `near` should be a distance ≥ 0, got {near}")
        self.scene_box, self.near = scene_box, near
        self.background = nn.Parameter(torch.full((3,), 0.5) if background is None else background.clone())

    @classmethod
    def region_cells(cls, options: FieldOptions) -> int:
        """Return the number of cells along the longest side of the region that `create` takes."""
        return 128

    @classmethod
    def create(cls, region: SceneRegion, options: FieldOptions, generator: torch.Generator) -> Self:
        """Return a new field for a scene, to be trained; random initial values come from the generator.

        By default, it is made from the scene box and `near` alone.
        """
        return cls(region.scene_box, near=region.near)

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the density per world unit at points. Differentiable in: the parameters, points."""
        forward = torch.zeros_like(points)
        forward[:, 2] = 1
        density: Tensor = self(points, forward)[0]
        return density

    def sample(
        self, rays: Rays, *, quick: bool = False, generator: torch.Generator | None = None
    ) -> RaySamples:
        """Return the samples along a row of rays at which to evaluate the field; stratified, with a generator."""
        count = self.num_samples // (2 if quick else 1)
        interval = self.scene_box.intersect(rays, self.near)
        return flatten_samples(*sample_interval(self.scene_box, interval, count, generator))

    def sample_uniform(
        self, rays: Rays, num_samples: int, *, near: float | None = None, far: float | None = None
    ) -> RaySamples:
        """Return the centers of equal intervals of each ray, within the scene box or from `near` to `far`."""
        if near is not None and far is not None:
            return uniform_samples(rays, near, far, num_samples)
        interval = self.scene_box.intersect(rays, self.near)
        return flatten_samples(*sample_interval(self.scene_box, interval, num_samples, None))

    def render(
        self, camera: Camera, background: Float[Tensor, "3"] | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Render the view of a camera on `background` or the field's own; see `render_field`."""
        return render_field(self, camera, background, quick=quick)

    def bounds(self) -> Float[Tensor, "2 3"]:
        """Return the lowest and the highest corner of the scene box."""
        return self.scene_box.bounds

    def training_outputs(self, rays: Rays, generator: torch.Generator) -> tuple[RenderOutput, ...]:
        """Render rays on black from randomly placed samples; the loss compares each output with images.

        The last output is that of rendering; fields with proposal networks have more. Outputs have weights and samples
        where `distortion_loss` and `depth_loss` can use them.
        Differentiable in: the parameters.
        """
        samples = self.sample(rays, generator=generator)
        return (march(self, rays, samples, keep_samples=True),)

    def training_weights(self, rays: Rays, generator: torch.Generator) -> tuple[RaySamples, Tensor]:
        """Return samples along rays and their weights, for the depth loss.

        Differentiable in: the parameters.
        """
        samples = self.sample(rays, generator=generator)
        weights = march(self, rays, samples, keep_samples=True).weights
        assert weights is not None
        return samples, weights

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters in groups with their initial learning rates, as torch optimizers take them."""
        return [{"params": list(self.parameters()), "lr": self.learning_rate}]

    def regularization(self, options: FieldOptions) -> Tensor | None:
        """Return a regularization term of the parameters, to be added to the loss, or None."""
        return None

    def num_rays(self, progress: float, options: FieldOptions) -> int:
        """Return the number of rays of the next training step."""
        return options.rays

    def begin_step(self, progress: float, options: FieldOptions) -> ParameterChange | None:
        """Prepare a training step, or refine the field; return how parameters were replaced, if any were.

        progress: the finished fraction of the training, 0 to 1.
        """
        return None

    def end_step(self, progress: float, options: FieldOptions) -> None:
        """Update the state of the field after a training step, without replacing parameters."""

    def contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the contents of a field file: tensors, and a description in JSON types. `from_contents` reads both.

        By default: parameters and buffers, the scene box and `near`.
        """
        tensors = {name: tensor.detach() for name, tensor in self.state_dict().items()}
        box = {"scene_box.center": self.scene_box.center, "scene_box.half_extent": self.scene_box.half_extent}
        description: dict[str, Any] = {"contracted": self.scene_box.contracted, "near": self.near}
        if self.scene_box.origin != ZERO:
            description["origin"] = list(self.scene_box.origin)
        return tensors | box, description

    @classmethod
    def from_contents(cls, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """Return the field with these contents. By default, it is made from the scene box and `near` alone."""
        field = cls(read_scene_box(tensors, description), near=read_near(description))
        field.load_tensors(tensors)
        return field

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Set parameters and buffers; raise InputError if a file has others, of other shapes, or not finite."""
        own = self.state_dict()
        given = {name: tensor for name, tensor in tensors.items() if not name.startswith("scene_box.")}
        if own.keys() != given.keys():
            raise InputError(f"{type(self).__name__}: tensors differ in {sorted(own.keys() ^ given.keys())}")
        for name, tensor in given.items():
            if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
                raise InputError(
                    f"{type(self).__name__}: {name} should be {own[name].dtype} of {list(own[name].shape)}, got "
                    f"{tensor.dtype} of {list(tensor.shape)}"
                )
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise InputError(f"{type(self).__name__}: {name} has values that are not finite")
        self.load_state_dict(given)

    def counters(self) -> dict[str, int]:
        """Return counts of the last `training_outputs` that `end_step` needs, summed over the parts of a step."""
        return {}

    def set_counters(self, counts: Mapping[str, int]) -> None:
        """Set counts to their sums over all parts of a step."""

    def training_state(self) -> tuple[dict[str, Tensor], dict[str, int | float]]:
        """Return the state besides `contents` that resuming a training requires: tensors and numbers."""
        return {}, {}

    def load_training_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, int | float]) -> None:
        """Restore the result of `training_state`, on a field made `from_contents`."""

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the scene box, too, where the module is moved."""
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        self.scene_box = self.scene_box.map(function)
        return self

    def describe(self) -> dict[str, int | float]:
        """Return figures for reports and `metrics.json`, by name."""
        return {"num_parameters": sum(parameter.numel() for parameter in self.parameters())}


def read_grid_shape(description: Mapping[str, Any]) -> list[int]:
    """Return the shape of a grid from a file; InputError before memory is allocated for one that is out of range."""
    shape = [int(side) for side in description["shape"]]
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_CELLS:
        raise InputError(f"`shape` should be three sides of at most {MAX_CELLS:,} cells, got {shape}")
    return shape


def read_scene_box(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> SceneBox:
    """Return the scene box from the contents of a field; InputError for values that cannot be one."""
    center, half_extent = tensors["scene_box.center"], tensors["scene_box.half_extent"]
    if center.dtype != torch.float32 or half_extent.dtype != torch.float32:
        raise InputError(f"the scene box should be float32, got {center.dtype} and {half_extent.dtype}")
    contracted = description["contracted"]
    if not isinstance(contracted, bool):
        raise InputError(f"`contracted` should be true or false, got {contracted!r}")
    x, y, z = (float(value) for value in description.get("origin", ZERO))
    if not max(abs(x), abs(y), abs(z)) <= MAX_ORIGIN:
        raise InputError(f"`origin` should be three coordinates of at most {MAX_ORIGIN:g}, got {[x, y, z]}")
    return SceneBox(center, half_extent, contracted, (x, y, z))


def read_near(description: Mapping[str, Any]) -> float:
    """Return the distance at which rays begin from the contents of a field, as float32 can hold it."""
    near = description["near"]
    if isinstance(near, bool) or not isinstance(near, int | float) or not 0 <= near <= MAX_NEAR:
        raise InputError(f"`near` should be a distance from 0 to {MAX_NEAR:g}, got {near!r}")
    return float(near)


Field.register(TrainableField)
RenderedField.register(TrainableField)
"""From Python 3.12 on, instances of a protocol are told by attributes, and parameters and buffers are none."""
