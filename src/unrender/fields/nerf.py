"""Neural radiance fields as their paper has them: perceptrons that say how dense and of what color each place is.

Source: Mildenhall et al., NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis, ECCV 2020.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from unrender._checked import checked
from unrender.errors import InputError
from unrender.fields.encoding import harmonic_embedding
from unrender.fields.protocol import FARTHEST, FieldSpace, RenderOutput
from unrender.fields.render_field import render_field
from unrender.fields.uniform_samples import EVEN_UP_TO, even_rows, sample_bent, sample_parts
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays, Stretch, clip_to_box
from unrender.render.march import Marched, march
from unrender.render.sample import RaySamples, sample_importance

Model = Literal["paper", "tutorial"]
POINTS_AT_ONCE = 2048
"""That go through a network together: what its layers make of them stays in the caches of a processor."""


class PaperNetwork(nn.Module):
    """The network of the paper's figure 7, 256 wide.

    The embedded position goes through eight layers, and is appended once more to what the fifth gives. One number of
    the result is the density, which so depends on the position alone; the rest, with the embedded direction, goes
    through one layer more and becomes the color.

    Unlike the paper, densities pass through softplus(x − 1), not max(0, x), whose slope is 0 for x < 0: a network that
    begins with no density anywhere would stay so (Mip-NeRF, Barron et al. 2021, appendix).
    """

    coarse_samples, fine_samples = 64, 128
    """On each ray; where the coarse samples saw something, the fine are added (section 5.3)."""
    density_unit = 1.0
    """Density, in half sides, where the network says 1."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        position, direction = (len(_embed(torch.zeros(3), count)) for count in (10, 4))
        self.first = nn.Sequential(*_layers(position, width, 5))
        self.second = nn.Sequential(*_layers(width + position, width, 3))
        self.density = nn.Linear(width, 1)
        self.feature = nn.Linear(width, width)
        self.color = nn.Sequential(*_layers(width + direction, width // 2, 1), nn.Linear(width // 2, 3))

    def forward(self, places: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return density ≥ 0, in units of its own, and color in [0, 1], at places in [−1, 1]³."""
        hidden = self._hidden(places)
        color = self.color(torch.cat([self.feature(hidden), _embed(directions, 4)], -1))
        return self._absorb(hidden), color.sigmoid()

    def absorb(self, places: Tensor) -> Tensor:
        """Return the density alone."""
        return self._absorb(self._hidden(places))

    def _hidden(self, places: Tensor) -> Tensor:
        position = _embed(places, 10)
        hidden: Tensor = self.second(torch.cat([self.first(position), position], -1))
        return hidden

    def _absorb(self, hidden: Tensor) -> Tensor:
        return softplus(self.density(hidden)[:, 0] - 1)

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw weights at random, as the authors' code does: Glorot's, and no bias."""
        for layer in _linear(self):
            bound = math.sqrt(6 / sum(layer.weight.shape))
            nn.init.uniform_(layer.weight, -bound, bound, generator)
            nn.init.zeros_(layer.bias)


class TutorialNetwork(nn.Module):
    """The network of PyTorch3D's tutorial: two layers, soft, and one for the color.

    Places and directions are embedded at 60 frequencies, far more than float32 can tell apart: the upper half of them
    is noise, which the tutorial learns from as well. Its world is 3 units wide, and its samples have an opacity that
    does not depend on how far they are from each other; so 1 is the density with which 128 samples between its depths
    of 0.1 and 3 are as opaque.
    """

    coarse_samples, fine_samples = 128, 0
    half_side, lowest = 1.5, 0.1
    density_unit = half_side * (coarse_samples - 1) / (3.0 - 0.1)

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(360, width), nn.Softplus(beta=10), nn.Linear(width, width), nn.Softplus(beta=10)
        )
        self.density = nn.Linear(width, 1)
        self.color = nn.Sequential(nn.Linear(width + 360, width), nn.Softplus(beta=10), nn.Linear(width, 3))

    def forward(self, places: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return density ≥ 0, in units of its own, and color in [0, 1], at places in [−1, 1]³."""
        hidden = self._hidden(places)
        direction = harmonic_embedding(directions, 60, lowest=self.lowest)
        return self._absorb(hidden), self.color(torch.cat([hidden, direction], -1)).sigmoid()

    def absorb(self, places: Tensor) -> Tensor:
        """Return the density alone."""
        return self._absorb(self._hidden(places))

    def _hidden(self, places: Tensor) -> Tensor:
        hidden: Tensor = self.hidden(harmonic_embedding(places * self.half_side, 60, lowest=self.lowest))
        return hidden

    def _absorb(self, hidden: Tensor) -> Tensor:
        return softplus(self.density(hidden)[:, 0], beta=10)

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw weights at random, as PyTorch does; begin with next to no density."""
        for layer in _linear(self):
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in (layer.weight, layer.bias):
                nn.init.uniform_(parameter, -bound, bound, generator)
        nn.init.constant_(self.density.bias, -1.5)


def _embed(values: Tensor, num_frequencies: int) -> Tensor:
    """Embed values in [−1, 1] as the paper does (eq. 4), and append them: its sines are the same at −1 and 1."""
    return harmonic_embedding(values, num_frequencies, lowest=math.pi, append_input=True)


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


class NeRF(nn.Module):
    """A radiance field that is a perceptron, in a cube or, contracted, in all space.

    `NeRF.paper` has two networks: a coarse one finds where on a ray there is something, and the fine one is asked at
    more places there. Both learn, each from what is seen through it. `NeRF.tutorial` has one.

    near: the distance from where rays begin at which there can be something, in world units.
    """

    middle: Tensor
    background: Tensor

    def __init__(self, space: FieldSpace, model: Model, *, width: int = 256, near: float = 0.0) -> None:
        super().__init__()
        if model not in NETWORKS:
            raise InputError(f"NeRF: `model` should be one of {list(NETWORKS)}, got {model!r}")
        if width < 2 or not 0 <= near < math.inf:
            raise InputError(f"NeRF: `width` {width} should be at least 2, `near` {near} a distance ≥ 0")
        network = NETWORKS[model]
        self.model: Model = model
        self.width, self.near = width, near
        self.half_side, self.contracted = space.half_side, space.contracted
        self.fine_network = network(width)
        self.coarse_network = network(width) if network.fine_samples else None
        self.background = nn.Parameter(torch.full((3,), 0.5))
        self.register_buffer("middle", space.middle.clone())

    @classmethod
    def paper(
        cls,
        space: FieldSpace,
        *,
        width: int = 256,
        near: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Begin with the paper's model (sections 4 and 5, appendix A), weights drawn at random."""
        return cls(space, "paper", width=width, near=near)._drawn(generator)

    @classmethod
    def tutorial(
        cls,
        space: FieldSpace,
        *,
        width: int = 256,
        near: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Begin with the smaller model of PyTorch3D's tutorial fit_simple_neural_radiance_field, drawn at random."""
        return cls(space, "tutorial", width=width, near=near)._drawn(generator)

    def _drawn(self, generator: torch.Generator | None) -> Self:
        for network in (self.fine_network, self.coarse_network):
            if network is not None:
                network.draw(generator)
        return self

    @property
    def space(self) -> FieldSpace:
        """Where the field lies."""
        return FieldSpace(self.middle, self.half_side, self.contracted)

    @checked
    def forward(
        self, points: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
    ) -> tuple[Tensor, Tensor]:
        """Return density per world unit and color in [0, 1], at points seen in directions of unit length.

        Beyond the cube of a space that is not contracted, the density is 0.
        Differentiable in: the parameters, points, directions.
        """
        return self._ask(self.fine_network, points, directions)

    @checked
    def coarse(
        self, points: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
    ) -> tuple[Tensor, Tensor]:
        """Return what the coarse network says; that of the only one, if there is one.

        Differentiable in: the parameters, points, directions.
        """
        return self._ask(self.coarse_network or self.fine_network, points, directions)

    def density_at(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the density per world unit alone, without colors. Differentiable in: the parameters, points."""
        lots = (2 * self.space.into_cube(points) - 1).split(POINTS_AT_ONCE)
        return self._in_world(torch.cat([self.fine_network.absorb(lot) for lot in lots]), points)

    def _in_world(self, density: Tensor, points: Tensor) -> Tensor:
        """Turn a network's unit of density into that of the world, and let there be nothing beyond the cube."""
        return torch.where(
            self.space.holds(points), density * (self.fine_network.density_unit / self.half_side), 0
        )

    def _ask(self, network: nn.Module, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Send points through a network, some at a time, each lot on a graph of its own."""
        places = (2 * self.space.into_cube(points) - 1).reshape(-1, 3)
        lots = (t.split(POINTS_AT_ONCE) for t in (places, directions.reshape(-1, 3)))
        density, color = (torch.cat(each) for each in zip(*map(network, *lots), strict=True))
        return self._in_world(density.view(points.shape[:-1]), points), color.view(points.shape)

    def march(self, rays: Rays, generator: torch.Generator | None = None) -> tuple[Marched, Marched]:
        """Look along a row of rays through the coarse and the fine network, before black, to learn from both.

        The coarse network is asked at one random place in each of 64 equal parts of a ray (eq. 2). Where it sees
        something, 128 places more are drawn at random from its weights (eq. 5), and the fine network is asked at all
        192. Without a generator, places are in the middle of their parts. With only one network, both results are that
        of its 128 places. Rays that miss the cube cost nothing. All rays should have a direction.

        Differentiable in: the parameters.
        """
        hits, places = self._first_places(rays, self.fine_network.coarse_samples, generator)
        first = _rows(places, hits)
        coarse = march(self.coarse, rays, first, keeps_weights=True).replace(samples=first)
        if self.coarse_network is None:
            return coarse, coarse
        assert coarse.weights is not None
        weights = coarse.weights.view(places.distances.shape)
        more = sample_importance(places, weights, self.fine_network.fine_samples, generator=generator)
        second = _rows(more, hits)
        return coarse, march(self, rays, second, keeps_weights=True).replace(samples=second)

    @torch.no_grad()
    def samples(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return where on a row of rays there can be something to see, by the coarse network; quick: at half as many.

        Differentiable in: nothing.
        """
        share = 2 if quick else 1
        hits, places = self._first_places(rays, self.fine_network.coarse_samples // share, None)
        if self.coarse_network is None:
            return _rows(places, hits)
        weights = march(self.coarse, rays, _rows(places, hits), keeps_weights=True).weights
        assert weights is not None
        count = self.fine_network.fine_samples // share
        weights = weights.view(places.distances.shape)
        return _rows(sample_importance(places, weights, count, keeps_old=not quick), hits)

    def box(self) -> Float[Tensor, "2 3"]:
        """Return the lowest and the highest corner of the cube."""
        return torch.stack([self.middle - self.half_side, self.middle + self.half_side])

    @torch.no_grad()
    def even_samples(
        self, rays: Rays, count: int, *, near: float | None = None, far: float | None = None
    ) -> RaySamples:
        """Return the middles of `count` equal parts of the way of each ray through the cube, or from `near` to `far`.

        In contracted space, parts of the whole way grow from three half sides on. Differentiable in: nothing.
        """
        if near is not None and far is not None:
            return even_rows(rays, near, far, count)
        hits, places = self._first_places(rays, count, None)
        return _rows(places, hits)

    def render(
        self, camera: Camera, background: Float[Tensor, "3"] | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Return what a camera sees; behind everything is `background`, or the color that was learned for it.

        See `render_field`. Differentiable in: nothing.
        """
        return render_field(self, camera, background, quick=quick)

    def _first_places(
        self, rays: Rays, count: int, generator: torch.Generator | None
    ) -> tuple[Bool[Tensor, " rays"], RaySamples]:
        """Say which rays meet the field, and take samples on these, without knowing what is there."""
        near, far = self._stretch(rays)
        hits = far > near
        near, far = near[hits], far[hits]
        if not self.contracted:
            return hits, sample_parts(Stretch(near, far), count, generator)
        return hits, sample_bent(Stretch(near, far), count, EVEN_UP_TO * self.half_side, generator)

    def _stretch(self, rays: Rays) -> Stretch:
        if self.contracted:
            near = torch.full_like(rays.origins[..., 0], self.near)
            return Stretch(near, near + FARTHEST * self.half_side)
        near, far = clip_to_box(rays, self.middle - self.half_side, self.middle + self.half_side)
        return Stretch(near.clamp(min=self.near), far)

    def contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all there is to save: tensors, and what describes them; `from_contents` takes both."""
        description = {
            "model": self.model,
            "width": self.width,
            "half_side": self.half_side,
            "contracted": self.contracted,
            "near": self.near,
        }
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}, description

    @classmethod
    def from_contents(cls, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """Make the field that has these contents."""
        width = int(description["width"])
        if width**2 > sum(tensor.numel() for tensor in tensors.values()):  # before room is made for more
            raise InputError(f"NeRF: layers of `width` {width} have more weights than there are")
        field = cls(
            FieldSpace(tensors["middle"], float(description["half_side"]), bool(description["contracted"])),
            description["model"],
            width=width,
            near=float(description["near"]),
        )
        expected = field.state_dict()
        if expected.keys() != tensors.keys():
            raise InputError(f"NeRF: tensors differ in {sorted(expected.keys() ^ tensors.keys())}")
        for name, tensor in tensors.items():
            shape = list(expected[name].shape)
            if list(tensor.shape) != shape or tensor.dtype != torch.float32:
                raise InputError(
                    f"NeRF: {name} should be {shape}, got {tensor.dtype} of {list(tensor.shape)}"
                )
            if not bool(tensor.isfinite().all()):
                raise InputError(f"NeRF: {name} has values that are not finite")
        field.load_state_dict(dict(tensors))
        return field


def _rows(samples: RaySamples, hits: Bool[Tensor, " rays"]) -> RaySamples:
    """Put the samples of the rays that hit in one row, and none for the others."""
    counts = hits * samples.distances.shape[-1]
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return RaySamples(samples.distances.flatten(), samples.lengths.flatten(), offsets)
