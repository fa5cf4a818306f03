"""The original neural radiance field: an MLP from positions and directions to density and color.

Source: Mildenhall et al., NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis, ECCV 2020.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.encoding import harmonic_embedding
from unrender.fields.schedules import NerfSchedule, schedule_of
from unrender.fields.trainable import FieldOptions, SceneRegion, TrainableField, read_near, read_scene_box
from unrender.fields.uniform_samples import flatten_samples, sample_interval
from unrender.geometry.rays import Rays
from unrender.geometry.scene_box import SceneBox
from unrender.render.march import RenderOutput, march
from unrender.render.sample import RaySamples, sample_importance

Model = Literal["paper", "tutorial"]
POINTS_PER_CHUNK = 2048
"""Points per forward pass on a CPU: the activations of a layer stay in the caches of a processor."""
POINTS_PER_GPU_CHUNK, POINTS_WITH_GRADIENTS = 1 << 18, 1 << 20
"""On a GPU, small chunks would wait for the host. With gradients, the activations of all points are kept anyway."""
SCHEDULE = NerfSchedule()


class PaperNetwork(nn.Module):
    """The network of the paper's figure 7, 256 wide.

    The embedded position passes through eight layers, with a skip connection into the sixth. One output is the density,
    which therefore depends on the position alone; the others, with the embedded direction, pass through one more layer
    to the color.

    Unlike in the paper, the density is softplus(x − 1), not max(0, x), whose derivative is 0 for x < 0: a network whose
    initial density is 0 everywhere could not be trained (Mip-NeRF, Barron et al. 2021, appendix).
    """

    coarse_samples, fine_samples = 64, 128
    """Samples per ray (section 5.3); fine ones are drawn from the weights of the coarse ones (section 5.2)."""
    density_unit = 1.0
    """Density, in 1 / half extents, for an output of 1."""
    learning_rate = 5e-4

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        position, direction = (len(_embed(torch.zeros(3), count)) for count in (10, 4))
        self.first = nn.Sequential(*_layers(position, width, 5))
        self.second = nn.Sequential(*_layers(width + position, width, 3))
        self.density = nn.Linear(width, 1)
        self.feature = nn.Linear(width, width)
        self.color = nn.Sequential(*_layers(width + direction, width // 2, 1), nn.Linear(width // 2, 3))

    def forward(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return density ≥ 0, in units of its own, and color in [0, 1], at positions in [−1, 1]³.

        Axes of directions broadcast to those of positions.
        """
        hidden = self._hidden(positions)
        color = _through(self.color, self.feature(hidden), _embed(directions, 4))
        return self._activate(hidden), color.sigmoid()

    def density_only(self, positions: Tensor) -> Tensor:
        """Return the density alone."""
        return self._activate(self._hidden(positions))

    def _hidden(self, positions: Tensor) -> Tensor:
        position = _embed(positions, 10)
        hidden: Tensor = self.second(torch.cat([self.first(position), position], -1))
        return hidden

    def _activate(self, hidden: Tensor) -> Tensor:
        return softplus(self.density(hidden)[..., 0] - 1)

    def initialize(self, generator: torch.Generator | None) -> None:
        """Initialize as the authors' code does: weights of Glorot, and no bias."""
        for layer in _linear(self):
            bound = math.sqrt(6 / sum(layer.weight.shape))
            nn.init.uniform_(layer.weight, -bound, bound, generator)
            nn.init.zeros_(layer.bias)


class TutorialNetwork(nn.Module):
    """The network of PyTorch3D's tutorial: two layers with softplus, and one for the color.

    Positions and directions are embedded at 60 frequencies, more than float32 can resolve: the upper half is noise, in
    the tutorial as well. Its world is 3 units wide, and the opacity of its samples does not depend on their distance;
    an output of 1 is therefore the density with which 128 samples between its depths of 0.1 and 3 are as opaque.
    """

    coarse_samples, fine_samples = 128, 0
    half_extent, lowest = 1.5, 0.1
    density_unit = half_extent * (coarse_samples - 1) / (3.0 - 0.1)
    learning_rate = 1e-3

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(360, width), nn.Softplus(beta=10), nn.Linear(width, width), nn.Softplus(beta=10)
        )
        self.density = nn.Linear(width, 1)
        self.color = nn.Sequential(nn.Linear(width + 360, width), nn.Softplus(beta=10), nn.Linear(width, 3))

    def forward(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return density ≥ 0, in units of its own, and color in [0, 1], at positions in [−1, 1]³.

        Axes of directions broadcast to those of positions.
        """
        hidden = self._hidden(positions)
        direction = harmonic_embedding(directions, 60, lowest=self.lowest)
        return self._activate(hidden), _through(self.color, hidden, direction).sigmoid()

    def density_only(self, positions: Tensor) -> Tensor:
        """Return the density alone."""
        return self._activate(self._hidden(positions))

    def _hidden(self, positions: Tensor) -> Tensor:
        hidden: Tensor = self.hidden(harmonic_embedding(positions * self.half_extent, 60, lowest=self.lowest))
        return hidden

    def _activate(self, hidden: Tensor) -> Tensor:
        return softplus(self.density(hidden)[..., 0], beta=10)

    def initialize(self, generator: torch.Generator | None) -> None:
        """Initialize weights as PyTorch does, and the density near 0."""
        for layer in _linear(self):
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in (layer.weight, layer.bias):
                nn.init.uniform_(parameter, -bound, bound, generator)
        nn.init.constant_(self.density.bias, -1.5)


def _embed(values: Tensor, num_frequencies: int) -> Tensor:
    """Embed values in [−1, 1] as the paper does (eq. 4), and append them: its sines are the same at −1 and 1."""
    return harmonic_embedding(values, num_frequencies, lowest=math.pi, append_input=True)


def _through(color: nn.Sequential, hidden: Tensor, direction: Tensor) -> Tensor:
    """Return color(cat([hidden, direction])); what depends on the direction alone is computed once for each."""
    first, *others = color
    assert isinstance(first, nn.Linear)
    weights = first.weight.split([hidden.shape[-1], direction.shape[-1]], 1)
    values = linear(hidden, weights[0]).add_(linear(direction, weights[1], first.bias))
    for layer in others:
        values = layer(values)
    return values


def _chunk_size(points: Tensor) -> int:
    if points.device.type == "cpu":
        return POINTS_PER_CHUNK
    return POINTS_WITH_GRADIENTS if torch.is_grad_enabled() else POINTS_PER_GPU_CHUNK


def _layers(inputs: int, width: int, depth: int) -> Iterator[nn.Module]:
    for i in range(depth):
        yield nn.Linear(inputs if i == 0 else width, width)
        yield nn.ReLU(inplace=True)


def _linear(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


NETWORKS: dict[str, type[PaperNetwork] | type[TutorialNetwork]] = {
    "paper": PaperNetwork,
    "tutorial": TutorialNetwork,
}


class NeRF(TrainableField):
    """A radiance field that is an MLP, in a box or, contracted, in all space.

    `NeRF.paper` has two networks: the weights of the coarse one guide importance sampling, and the fine one is
    evaluated at more samples. Both are trained, each on its own rendering. `NeRF.tutorial` has one.
    """

    model: Model = "paper"

    def __init__(self, scene_box: SceneBox, model: Model, *, width: int = 256, near: float = 0.0) -> None:
        super().__init__(scene_box, near=near)
        if model not in NETWORKS:
            raise InputError(f"NeRF: `model` should be one of {list(NETWORKS)}, got {model!r}")
        if width < 2:
            raise InputError(f"NeRF: `width` should be at least 2, got {width}")
        network = NETWORKS[model]
        self.model, self.width = model, width
        self.fine_network = network(width)
        self.coarse_network = network(width) if network.fine_samples else None

    @classmethod
    def create(cls, region: SceneRegion, options: FieldOptions, generator: torch.Generator) -> Self:
        """Return a new field with the model of the class, weights drawn at random."""
        return cls(region.cube().scene_box, cls.model, near=region.near)._initialized(generator)

    @classmethod
    def paper(
        cls,
        scene_box: SceneBox,
        *,
        width: int = 256,
        near: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Return a new field with the paper's model (sections 4 and 5, appendix A), weights drawn at random."""
        return cls(scene_box, "paper", width=width, near=near)._initialized(generator)

    @staticmethod
    def tutorial(
        scene_box: SceneBox,
        *,
        width: int = 256,
        near: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> "TutorialNeRF":
        """Return a new field with the model of PyTorch3D's tutorial fit_simple_neural_radiance_field."""
        return TutorialNeRF(scene_box, "tutorial", width=width, near=near)._initialized(generator)

    def _initialized(self, generator: torch.Generator | None) -> Self:
        for network in (self.fine_network, self.coarse_network):
            if network is not None:
                network.initialize(generator)
        return self

    @checked
    def forward(
        self, points: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
    ) -> tuple[Tensor, Tensor]:
        """Return density per world unit and color in [0, 1], at points viewed along unit directions.

        Outside a box that is not contracted, the density is 0.
        Differentiable in: the parameters, points, directions.
        """
        return self._query(self.fine_network, points, directions)

    @checked
    def coarse(
        self, points: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
    ) -> tuple[Tensor, Tensor]:
        """Return the output of the coarse network, or of the only one.

        Differentiable in: the parameters, points, directions.
        """
        return self._query(self.coarse_network or self.fine_network, points, directions)

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the density per world unit alone, without colors. Differentiable in: the parameters, points."""
        chunks = (2 * self.scene_box.normalize(points) - 1).split(_chunk_size(points))
        density = torch.cat([self.fine_network.density_only(chunk) for chunk in chunks])
        return self._per_world_unit(density, points)

    def _per_world_unit(self, density: Tensor, points: Tensor) -> Tensor:
        """Convert a network's unit of density, and set the density outside the box to 0."""
        unit = self.fine_network.density_unit / self.scene_box.radius
        return torch.where(self.scene_box.contains(points), density * unit, 0)

    def _query(self, network: nn.Module, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate a network in chunks of points, each on an autograd graph of its own."""
        positions = (2 * self.scene_box.normalize(points) - 1).reshape(-1, 3)
        chunks = (t.split(_chunk_size(points)) for t in (positions, directions.reshape(-1, 3)))
        density, color = (torch.cat(each) for each in zip(*map(network, *chunks), strict=True))
        return self._per_world_unit(density.view(points.shape[:-1]), points), color.view(points.shape)

    def along_rays(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return density `[rays samples]` and color at points `[rays samples 3]`, for one direction of each ray.

        Differentiable in: the parameters, points, directions.
        """
        positions = 2 * self.scene_box.normalize(points) - 1
        size = max(1, _chunk_size(points) // max(1, points.shape[1]))
        chunks = (positions.split(size), directions[:, None].split(size))
        density, color = (torch.cat(each) for each in zip(*map(self.fine_network, *chunks), strict=True))
        return self._per_world_unit(density, points), color

    def training_outputs(
        self, rays: Rays, generator: torch.Generator | None = None
    ) -> tuple[RenderOutput, ...]:
        """Render a row of rays through the coarse and the fine network, on black, with gradients.

        The coarse network is evaluated at one random sample in each of 64 equal intervals of a ray (eq. 2). 128 samples
        more are drawn from its weights (eq. 5), and the fine network is evaluated at all 192. Without a generator,
        samples lie at the centers of their intervals. With only one network, there is one output, of its 128 samples.
        Rays that miss the box cost nothing. All rays should have a direction.

        Differentiable in: the parameters.
        """
        interval = self.scene_box.intersect(rays, self.near)
        count = self.fine_network.coarse_samples
        first, hits = sample_interval(self.scene_box, interval, count, generator)
        coarse = march(self.coarse, rays, flatten_samples(first, hits), keep_samples=True)
        if self.coarse_network is None:
            return (coarse,)
        second = self._importance(coarse, first, self.fine_network.fine_samples, generator=generator)
        return coarse, march(self, rays, flatten_samples(second, hits), keep_samples=True)

    @torch.no_grad()
    def sample(
        self, rays: Rays, *, quick: bool = False, generator: torch.Generator | None = None
    ) -> RaySamples:
        """Return samples of a row of rays, drawn from the weights of the coarse network; quick: half as many.

        Differentiable in: nothing.
        """
        divisor = 2 if quick else 1
        interval = self.scene_box.intersect(rays, self.near)
        count = self.fine_network.coarse_samples // divisor
        first, hits = sample_interval(self.scene_box, interval, count, generator)
        if self.coarse_network is None:
            return flatten_samples(first, hits)
        coarse = march(self.coarse, rays, flatten_samples(first, hits), keep_samples=True)
        count = self.fine_network.fine_samples // divisor
        second = self._importance(coarse, first, count, keeps_old=not quick, generator=generator)
        return flatten_samples(second, hits)

    def _importance(
        self,
        coarse: RenderOutput,
        first: RaySamples,
        count: int,
        *,
        generator: torch.Generator | None,
        keeps_old: bool = True,
    ) -> RaySamples:
        assert coarse.weights is not None
        weights = coarse.weights.view(first.distances.shape)
        return sample_importance(first, weights, count, generator=generator, keeps_old=keeps_old)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all parameters, with the learning rate of the model."""
        return [{"params": list(self.parameters()), "lr": self.fine_network.learning_rate}]

    def num_rays(self, progress: float, options: FieldOptions) -> int:
        """Return a fixed number: a step of a large network is long."""
        return schedule_of(options.schedule, SCHEDULE).rays

    def contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all there is to save: tensors, and a description; `from_contents` reads both."""
        tensors, description = super().contents()
        return tensors, description | {"model": self.model, "width": self.width}

    @classmethod
    def from_contents(cls, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """Return the field with these contents."""
        width = int(description["width"])
        if width**2 > sum(
            tensor.numel() for tensor in tensors.values()
        ):  # before memory is allocated for more
            raise InputError(f"NeRF: layers of `width` {width} have more weights than there are")
        box, near = read_scene_box(tensors, description), read_near(description)
        field = cls(box, description["model"], width=width, near=near)
        field.load_tensors(tensors)
        return field


class TutorialNeRF(NeRF):
    """A `NeRF` whose default model is that of PyTorch3D's tutorial."""

    model: Model = "tutorial"
