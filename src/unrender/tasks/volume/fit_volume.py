"""Volume from posed images: voxels with density and color, by differentiable volume rendering."""

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d

from unrender.data.depth_supervision import RAYS_OF_DEPTH, DepthBatch, DepthSupervision
from unrender.data.pixels import PixelBatch, PixelSource
from unrender.data.scenes import Scene
from unrender.errors import InputError
from unrender.fields.voxels import SparseVoxels
from unrender.kernels.total_variation import total_variation
from unrender.losses.depth import depth_loss
from unrender.training.initial_occupancy import Space, VoxelSpace, find_space

Background = Literal["auto", "white", "black", "random"]
PATCH = 4
"""Rays of neighbouring pixels in squares of this side meet the same voxels: half the time, for the same rays."""
STAGES = ((4, 0.0), (2, 0.02), (1, 0.12))
"""How much coarser the grid is, and at which share of the work it begins to be so. Steps have fewer rays by as much."""
WINDOW = 100
"""Steps after which voxels go that no ray saw, if they are a twentieth or more."""
SEEN = 0.02
"""Weight on a ray that a voxel needs to stay; its neighbours stay with it."""
SHORT = 5
"""Parts of the steps, of which a window takes one at most: so that few steps reach the full resolution too."""
STAY = 0.95
"""Of the voxels: if more would stay, all do, for to leave some out takes time too."""
FOG, THIN_FOG = 0.05, 0.01
"""Opacity of the first voxels, in a hull, and where cameras stand among them: so that they see what is behind."""
SKIP, STOP = 1e-3, 1e-3
"""Weight below which a sample is left out, and transmittance at which a ray ends, while learning."""
RATE_OF_DENSITY, RATE_OF_COLOR = 0.3, 0.02
"""Adam's, of the log of the density and of the coefficients; both fall to a tenth."""
SLOWING = 0.1


@dataclasses.dataclass(frozen=True)
class FitVolume:
    """Fit voxels with density and view-dependent color to posed images.

    Descends on the squared difference between rendered and photographed colors, coarse to fine; voxels that no ray
    sees are left out as the work goes on.
    """

    minutes: float | None = None
    """Learn for so long, reading pictures and compiling kernels included, whatever `steps` says. Results then depend on
    the machine's speed. What is done between the steps, a pause too, and pictures, films and meshes that are made
    afterwards take their own time."""
    steps: int = 4000
    """Steps of Adam."""
    rays: int = 65536
    """Rays in a step, at full resolution; fewer before. They come in squares of 16."""
    resolution: int = 256
    """Voxels along the longest side of the grid in the end, rounded up to a multiple of 16."""
    degree: int = 2
    """Of the spherical harmonics of the color: 0 (the same from all sides) to 3."""
    space: Space = "auto"
    """Where voxels can be. hull: where the pictures' transparency leaves room for something; box: in the scene's
    bounds; everything: in all space, with voxels that grow with the distance. auto: hull where pictures have
    transparency, else everything."""
    background: Background = "auto"
    """What is behind transparent pictures. auto: random colors while learning, white in results."""
    smoothness: float | None = None
    """Weight of the mean squared difference between neighbouring voxels, of opacity and of color. By default 0.3 in
    all space, else 0."""
    sparsity: float | None = None
    """Weight of the mean opacity of voxels: removes haze. By default 0.03 in all space, else 0."""
    depth: float = 0.02
    """Weight of what draws surfaces to where the scene measured them: to its pictures of depth, or to the points that
    COLMAP found; nothing, where there are none. 0: they are not learned from."""
    memory_mib: float = 1500.0
    """For pictures; those that do not fit take turns."""
    seed: int = 0
    """Seed of every random choice: with `steps`, the same seed gives the same numbers."""


@dataclasses.dataclass(frozen=True)
class FitVolumeStep:
    """Where the fit stands after a step."""

    index: int
    last_index: int
    """No step comes after this one; with `minutes`, an estimate."""
    losses: dict[str, float]
    """color: mean squared error; psnr: the same in decibels, of this step's rays, which the next step learns from."""
    num_voxels: int
    seconds: float
    """Of the fit, loading included; without what is done between steps."""
    result: SparseVoxels
    """The field as it is now; later steps change it."""


def fit_volume(scene: Scene, config: FitVolume = FitVolume()) -> Iterator[FitVolumeStep]:
    """Fit voxels to the training frames of a scene; every step has a usable field, the last one the result.

    Source: Fridovich-Keil and Yu et al. 2022 (Plenoxels), with the log of the density between the voxels' corners.
    Raises InputError before the first step for a scene without training frames, or whose masks exclude everything.
    """
    _check(config)
    begin = time.perf_counter()
    frames = scene.split("train")
    if not frames:
        raise InputError(f"fit_volume: the scene {scene.name} has no frames for training")
    pixels = PixelSource(frames, memory_mib=config.memory_mib, seed=config.seed)
    depths = DepthSupervision(frames, seed=config.seed) if config.depth > 0 else None
    space = find_space(scene, frames, config.space, config.resolution // STAGES[0][0])
    return _fit(pixels, depths or None, space, config, begin)


class _Weights(NamedTuple):
    """Of what is added to the error of colors."""

    depth: float
    smoothness: float
    sparsity: float

    @property
    def is_regular(self) -> bool:
        """Whether neighbours should resemble each other."""
        return self.smoothness > 0 or self.sparsity > 0


def _weights(config: FitVolume, space: VoxelSpace) -> _Weights:
    """Decide on what the config leaves open."""
    smoothness, sparsity = (0.3, 0.03) if space.contracted else (0.0, 0.0)
    return _Weights(
        config.depth,
        smoothness if config.smoothness is None else config.smoothness,
        sparsity if config.sparsity is None else config.sparsity,
    )


def _check(config: FitVolume) -> None:
    for name in ("minutes", "steps", "rays", "memory_mib"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"fit_volume: `{name}` should be above 0, got {value}")
    for name in ("smoothness", "sparsity", "depth", "seed"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"fit_volume: `{name}` should be 0 or more, got {value}")
    for name, known in (("space", Space), ("background", Background)):
        if getattr(config, name) not in get_args(known):
            raise InputError(
                f"fit_volume: `{name}` should be one of {', '.join(get_args(known))}, got {getattr(config, name)!r}"
            )
    if not 16 <= config.resolution <= 1024:
        raise InputError(f"fit_volume: `resolution` should be 16 to 1024, got {config.resolution}")
    if not 0 <= config.degree <= 3:
        raise InputError(f"fit_volume: `degree` should be 0 to 3, got {config.degree}")


class _Grid:
    """The field at one resolution, with what learning needs besides."""

    def __init__(self, field: SparseVoxels, with_neighbors: bool) -> None:
        rates = [
            {"params": [field.log_density], "lr": RATE_OF_DENSITY},
            {"params": [field.harmonics, field.background], "lr": RATE_OF_COLOR},
        ]
        self.field = field
        self.optimizer = torch.optim.Adam(rates, betas=(0.9, 0.99), eps=1e-12, fused=True)
        self.first_rates = [float(rate["lr"]) for rate in self.optimizer.param_groups]
        self.seen = torch.zeros(field.table.num_voxels)
        self.neighbors = field.table.neighbors() if with_neighbors else None

    def slow_down(self, share: float) -> None:
        """Set the learning rates for a share of the work done."""
        for group, rate in zip(self.optimizer.param_groups, self.first_rates, strict=True):
            group["lr"] = rate * SLOWING**share

    def without_unseen(self) -> Self:
        """Leave out voxels that had no weight on any ray, nor any of their neighbours; begin to watch anew."""
        places = self.field.table.voxel_places.long().unbind(-1)
        dense = torch.zeros(self.field.table.shape)
        dense[places] = (self.seen > SEEN).float()
        for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
            dense = max_pool3d(dense[None], size, 1, tuple(n // 2 for n in size))[0]
        stays = dense[places] > 0
        self.seen.zero_()
        if not 0 < int(stays.sum()) <= STAY * len(stays):
            return self
        field, old = self.field.keep(stays)
        thinned = type(self)(field, self.neighbors is not None)
        thinned._continue(self, old)
        return thinned

    def _continue(self, other: Self, old: Tensor) -> None:
        """Take over what Adam knows of the corners, which were numbered `old` in the other grid."""
        for here, there in zip(self.optimizer.param_groups, other.optimizer.param_groups, strict=True):
            for mine, theirs in zip(here["params"], there["params"], strict=True):
                if state := other.optimizer.state.get(theirs):
                    rows = old if len(theirs) == other.field.table.num_corners else slice(None)
                    self.optimizer.state[mine] = {
                        name: value[rows] if value.dim() else value for name, value in state.items()
                    }


def _fit(
    pixels: PixelSource, depths: DepthSupervision | None, space: VoxelSpace, config: FitVolume, begin: float
) -> Iterator[FitVolumeStep]:
    generator = torch.Generator().manual_seed(config.seed)
    weights = _weights(config, space)
    fog = SparseVoxels.from_mask(
        space.mask,
        space.middle,
        space.unit,
        contracted=space.contracted,
        near=space.near,
        degree=0,
        opacity=THIN_FOG if space.contracted else FOG,
    )
    grid, stage, age = _Grid(fog, weights.is_regular), 0, 0
    window = WINDOW if config.minutes else min(WINDOW, max(1, config.steps // SHORT))
    for index in itertools.count(1):
        seconds = time.perf_counter() - begin
        share = (index - 1) / config.steps if config.minutes is None else seconds / (60 * config.minutes)
        if share >= 1 and index > 1:  # one step there is, however short the time
            return
        is_due = stage + 1 < len(STAGES) and share >= STAGES[stage + 1][1]
        if age >= window:
            grid, stage, age = grid.without_unseen(), stage + is_due, 0
            if is_due:  # coarse grids have coarse colors: of degrees 0, 1, and then all
                degree = config.degree if stage == len(STAGES) - 1 else min(stage, config.degree)
                grid = _Grid(grid.field.split(degree), weights.is_regular)
        grid.slow_down(share)
        batch = pixels.draw(max(1, config.rays // PATCH**2 // STAGES[stage][0]), PATCH)
        losses = _losses(grid, batch, config.background, weights, generator)
        if depths is not None:
            known = depths.draw(math.ceil(RAYS_OF_DEPTH * len(batch.colors)), generator)
            losses["total"] = losses["total"] + weights.depth * _misplaced(grid, known, generator)
        grid.optimizer.zero_grad()
        losses["total"].backward()
        grid.optimizer.step()
        age += 1
        color = float(losses["color"].detach())
        handed_over = time.perf_counter()
        yield FitVolumeStep(
            index,
            config.steps if config.minutes is None else max(index, round(index / max(share, 1e-3))),
            {"color": color, "psnr": -10 * math.log10(max(color, 1e-10))},
            grid.field.table.num_voxels,
            handed_over - begin,
            grid.field,
        )
        begin += time.perf_counter() - handed_over


def _losses(
    grid: _Grid,
    batch: PixelBatch,
    background: Background,
    weights: _Weights,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    field, count = grid.field, len(batch.colors)
    marched = field.march(
        batch.rays,
        jitter=torch.rand(count, generator=generator),
        skip=SKIP,
        stop=STOP,
        voxel_weight=grid.seen,
    )
    target, behind = batch.colors, field.background.expand(count, 3)
    if batch.alpha is not None:
        behind = _behind(background, count, generator)
        target = torch.lerp(behind, target, batch.alpha[:, None])
    color = marched.color + (1 - marched.opacity)[:, None] * behind
    squares = (color - target).square().mean(1)
    losses = {"color": torch.where(batch.valid, squares, 0).sum() / batch.valid.sum().clamp(min=1)}
    losses["total"] = losses["color"]
    if grid.neighbors is not None:
        opacity = field.opacities()
        rough = total_variation(opacity[:, None], grid.neighbors) + total_variation(
            field.harmonics, grid.neighbors
        )
        losses["total"] = losses["total"] + weights.smoothness * rough + weights.sparsity * opacity.mean()
    return losses


def _misplaced(grid: _Grid, known: DepthBatch, generator: torch.Generator) -> Tensor:
    """Return how much light does not end where it should; a ray counts as ending at its mean distance."""
    seen = grid.field.march(
        known.rays,
        jitter=torch.rand(len(known.distances), generator=generator),
        skip=SKIP,
        stop=STOP,
        voxel_weight=grid.seen,
    )
    mean = seen.distance / seen.opacity.clamp(min=SKIP)
    return depth_loss(seen.opacity, mean, torch.arange(len(mean) + 1), known.distances)


def _behind(background: Background, count: int, generator: torch.Generator) -> Tensor:
    if background in ("auto", "random"):
        return torch.rand(count, 3, generator=generator)
    return torch.full((count, 3), 1.0 if background == "white" else 0.0)
