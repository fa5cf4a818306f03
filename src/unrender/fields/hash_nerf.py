"""A radiance field in a hash table: fast to learn on any machine."""

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
from unrender.fields.protocol import FieldSpace, RenderOutput
from unrender.fields.render_field import render_field
from unrender.fields.uniform_samples import same_for_all
from unrender.geometry.camera import Camera
from unrender.geometry.rays import Rays
from unrender.kernels.composite import composite
from unrender.kernels.hash_grid import HashLevels, hash_grid
from unrender.kernels.tiny_mlp import tiny_mlp
from unrender.kernels.tiny_mlp.reference import truncated_exp
from unrender.render.march import Marched
from unrender.render.sample import RaySamples

WIDTH, GEOMETRY = 64, 16
"""Of the hidden layers, and of what the first perceptron tells the second."""
DEGREE = 3
"""Of the spherical harmonics that tell the second perceptron a direction."""
TABLE_RANGE = 1e-4
"""Features of the table begin within ± so much (Müller et al. 2022, section 4)."""
FOG = 0.01
"""Opacity of every step at first."""
STOP, SKIP = 1e-3, 1e-3
"""Transmittance at which a ray ends, and weight below which a sample is not looked at any closer."""
ROUNDS = (6, 12, 24, 48)
"""Samples of a ray after which it is asked whether any light comes from behind them."""


class _Visible(NamedTuple):
    """Samples that are seen, their rays, and where they are in the unit cube."""

    samples: RaySamples
    ray: Int[Tensor, " samples"]
    places: Float[Tensor, "samples 3"]


class HashNeRF(nn.Module):
    """Density and color from features in a multiresolution hash table, by two small perceptrons.

    The first maps features to the log of the density and to what the second, which knows the direction too, maps to a
    color. Density is exp(first output) in units of 1 / step, so that fog of one opacity is where all begins.
    Source: Müller et al. 2022 (Instant-NGP), sections 3 and 5.4.

    step: how far samples are apart, in world units; in contracted space, those in the inner cube.
    near: the distance from where rays begin at which there can be something.
    """

    def __init__(
        self,
        space: FieldSpace,
        levels: HashLevels,
        occupancy: OccupancyGrid,
        *,
        step: float,
        unit: float | None = None,
        near: float = 0.0,
        features: int = 2,
        color_layers: int = 2,
        background: Float[Tensor, "3"] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.space, self.levels, self.occupancy = space, levels, occupancy
        self.step, self.near, self.unit = step, near, unit or step
        self.num_looked_at = 0
        table = torch.rand(levels.num_entries, features, generator=generator)
        self.table = nn.Parameter((2 * table - 1) * TABLE_RANGE)
        self.density_layers = _perceptron([len(levels.resolutions) * features, WIDTH, GEOMETRY], generator)
        last = self.density_layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias[0] = math.log(-math.log1p(-FOG))
        shining = GEOMETRY + (DEGREE + 1) ** 2
        self.color_layers = _perceptron([shining, *[WIDTH] * color_layers, 3], generator)
        self.background = nn.Parameter(torch.full((3,), 0.5) if background is None else background.clone())

    @property
    def contracted(self) -> bool:
        """Whether the field has no end."""
        return self.space.contracted

    @property
    def half_side(self) -> float:
        """Of the cube in which space is not contracted, in world units."""
        return self.space.half_side

    def forward(
        self, points: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
    ) -> tuple[Tensor, Tensor]:
        """Return density per world unit and color in [0, 1], at points seen in directions of unit length.

        Density is 0 beyond the end of a field that has one, and in cells that were given up.
        Differentiable in: the parameters, points.
        """
        places = self.space.into_cube(points)
        density, color = self._matter(places, spherical_harmonics(directions, DEGREE))
        return torch.where(self.occupancy.holds(places), density, 0), color

    def density_at(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the density per world unit alone, without colors. Differentiable in: the parameters, points."""
        places = self.space.into_cube(points)
        there = self.occupancy.holds(places)
        density = self._density(self._geometry(places[there]))
        return density.new_zeros(len(points)).masked_scatter(there, density)

    def _matter(self, places: Tensor, harmonics: Tensor) -> tuple[Tensor, Tensor]:
        geometry = self._geometry(places)
        shining = torch.cat([geometry, harmonics], 1)
        return self._density(geometry), tiny_mlp(shining, *_parameters(self.color_layers), output="sigmoid")

    def _geometry(self, places: Tensor) -> Tensor:
        return tiny_mlp(hash_grid(places, self.table, self.levels), *_parameters(self.density_layers))

    def _density(self, geometry: Tensor) -> Tensor:
        return truncated_exp(geometry[:, 0]) / self.unit

    def samples(self, rays: Rays, *, quick: bool = False) -> RaySamples:
        """Return where on rays there is something to see: in steps, in occupied cells that light comes from."""
        middle = torch.full_like(rays.origins[:, 0], 0.5)
        return self._visible(rays, self.step * (2 if quick else 1), middle).samples

    def box(self) -> Float[Tensor, "2 3"]:
        """Return the lowest and the highest corner of all occupied cells or, in contracted space, of the inner cube."""
        local = torch.tensor([[-1.0], [1.0]]).expand(2, 3) if self.contracted else self.occupancy.box
        return self.space.middle + self.half_side * local

    def even_samples(
        self, rays: Rays, count: int, *, near: float | None = None, far: float | None = None
    ) -> RaySamples:
        """Return the middles of `count` equal parts of the way of each ray, but for those in cells given up.

        The way is that through the box of occupied cells or, where both are given, from `near` to `far`. In contracted
        space, parts of the whole way grow from three half sides on.
        """
        given = None if near is None or far is None else same_for_all(rays, near, far)
        return self.occupancy.look_evenly(rays, self.space, count, self.near, given)

    def march(self, rays: Rays, generator: torch.Generator) -> tuple[Marched, ...]:
        """Return what rays see, to learn from: sampled at random places; the grid of occupied cells takes notice.

        Differentiable in: the parameters.
        """
        jitter = torch.rand(len(rays.origins), generator=generator)
        samples, ray, places = self._visible(rays, self.step, jitter)
        density, color = self._matter(places, spherical_harmonics(rays.directions, DEGREE)[ray])
        seen = composite(density, samples.lengths, color, samples.distances, offsets=samples.offsets)
        self.occupancy.observe(places, seen.weights.detach())
        assert seen.color is not None
        assert seen.distance is not None
        return (Marched(seen.color, seen.opacity, seen.distance, seen.weights, samples),)

    @torch.no_grad()
    def _visible(self, rays: Rays, step: float, jitter: Tensor) -> _Visible:
        """Look for samples that are seen: those that light comes from, and enough of it."""
        samples = self.occupancy.walk(rays, self.space, step, self.near, jitter)
        assert samples.offsets is not None
        self.num_looked_at = len(samples.distances)
        ray = torch.repeat_interleave(samples.offsets.diff())
        points = torch.addcmul(rays.origins[ray], samples.distances[:, None], rays.directions[ray])
        places = self.space.into_cube(points)
        density = density_with_early_termination(
            lambda due, _: self._density(self._geometry(places[due])), samples, rounds=ROUNDS, stop=STOP
        )
        weights = composite(density, samples.lengths, offsets=samples.offsets, stop_below=STOP).weights
        kept = (weights > SKIP).nonzero()[:, 0]
        counts = torch.bincount(ray[kept], minlength=len(rays.origins))
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        found = RaySamples(samples.distances[kept], samples.lengths[kept], offsets)
        return _Visible(found, ray[kept], places[kept])

    def contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all there is to save: tensors, and what describes them; `from_contents` takes both."""
        tensors = {name: value for name, value in self.state_dict().items() if name != "occupancy.seen"}
        description = {
            "half_side": self.space.half_side,
            "contracted": self.space.contracted,
            "resolutions": list(self.levels.resolutions),
            "largest_log2": self.levels.largest_log2,
            "step": self.step,
            "unit": self.unit,
            "near": self.near,
        }
        return tensors | {"middle": self.space.middle}, description

    @classmethod
    def from_contents(cls, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """Make the field that has these contents."""
        _check_contents(tensors, description)
        field = cls(
            FieldSpace(tensors["middle"], float(description["half_side"]), bool(description["contracted"])),
            HashLevels(tuple(description["resolutions"]), int(description["largest_log2"])),
            OccupancyGrid(tensors["occupancy.occupied"]),
            step=float(description["step"]),
            unit=float(description["unit"]),
            near=float(description["near"]),
            features=tensors["table"].shape[1],
            color_layers=sum(name.startswith("color_layers") for name in tensors) // 2 - 1,
        )
        learned = {name: tensor for name, tensor in tensors.items() if name != "middle"}
        try:
            missing, foreign = field.load_state_dict(learned, strict=False)
        except RuntimeError as error:
            raise InputError(f"HashNeRF: {error}") from error
        if foreign or missing != ["occupancy.seen"]:
            raise InputError(
                f"HashNeRF: of its tensors {missing} are missing, and {foreign} belong to no part of it"
            )
        return field

    def render(
        self, camera: Camera, background: Float[Tensor, "3"] | None = None, *, quick: bool = False
    ) -> RenderOutput:
        """Return what a camera sees, before `background` or the color that was learned for it; see `render_field`."""
        return render_field(self, camera, background, quick=quick)


def _perceptron(widths: list[int], generator: torch.Generator | None) -> nn.ModuleList:
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


def _check_contents(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Refuse what no field holds, as damaged files may."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"HashNeRF: {name} has values that are not finite")
    needed = ("table", "background", "occupancy.occupied", "density_layers.0.weight", "color_layers.0.weight")
    if missing := [name for name in needed if name not in tensors]:
        raise InputError(f"HashNeRF: {', '.join(missing)} is missing")
    step, near = float(description["step"]), float(description["near"])
    if not (0 < step < math.inf and 0 <= near < math.inf):
        raise InputError(f"HashNeRF: step {step} should be above 0, near {near} at least 0")
