"""A radiance field while it learns: what one step does, and all that the next one depends on."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unrender.data.depth_supervision import RAYS_OF_DEPTH, DepthSupervision
from unrender.data.pixels import PixelBatch, PixelSource
from unrender.data.scenes import Scene
from unrender.fields.hash_nerf import HashNeRF
from unrender.fields.nerf import NeRF
from unrender.fields.occupancy import OccupancyGrid
from unrender.fields.protocol import FieldSpace
from unrender.geometry.rays import Rays
from unrender.kernels.hash_grid import HashLevels
from unrender.losses.depth import depth_loss
from unrender.losses.distortion import distortion_loss
from unrender.render.march import Marched
from unrender.tasks.nerf.config import Background, FitNerf
from unrender.training.exposure import Exposures
from unrender.training.initial_occupancy import VoxelSpace, find_space

CELLS = 128
"""Of the grid of occupied cells along each side, at first; later twice as many."""
SPLIT_AT = 0.25
"""Share of the work after which cells are halved."""
STEPS_PER_SIDE = ((0.0, 128), (0.1, 256), (0.4, 512))
STEPS_IN_ALL_SPACE = ((0.0, 64), (0.1, 128), (0.4, 256))
"""From which share of the work on how many samples fit along the side of the cube; in all space, of the inner cube."""
COARSEST, FINEST, NUM_LEVELS, FEATURES = 16, 1024, 16, 2
RATES, SLOWING = {"hash": 2e-2, "paper": 5e-4, "tutorial": 1e-3}, 0.03
"""Of Adam, for all parameters of the field; it falls to that share."""
RATE_OF_EXPOSURE = 1e-2
DISTORTION_IN_ALL_SPACE = 0.03
"""Without it, what little light nearby haze takes from photos is nearly free, and in new views it stands in the way."""
FOGGY, MOST_RAYS = 16, 65536
"""Samples on a ray that the first step expects, and rays in a step at most."""
RAYS_OF_PAPER = 1024
LOOKS_PER_SAMPLE = 6
"""Places at which the density is looked up, at most, for each at which the field is learned."""
STEPS_TO_PRUNE, SAMPLES_TO_PRUNE = 100, 16
"""Steps, and samples for each cell, after which cells are given up that no ray saw."""
SEEN, SEEN_IN_ALL_SPACE = 0.05, 0.02
"""Weight on a ray above which a cell stays; its neighbours stay with it."""
COUNTED = (
    "index",
    "first_index",
    "error",
    "mean_error",
    "mean_trivial_error",
    "seconds",
    "seed",
    "num_rays",
    "num_samples",
    "steps_since_pruning",
    "samples_since_pruning",
)
Generator = torch.Generator


def begin_field(scene: Scene, config: FitNerf, seed: int) -> HashNeRF | NeRF:
    """Make the field that fits to a scene, and knows nothing yet."""
    generator = Generator().manual_seed(seed)
    room = find_space(scene, scene.split("train"), config.space, CELLS)
    space, occupied = _cube_of(room)
    if config.model != "hash":
        make = NeRF.paper if config.model == "paper" else NeRF.tutorial
        return make(space, near=room.near, generator=generator)
    levels = HashLevels.growing(
        COARSEST, FINEST * (2 if space.contracted else 1), NUM_LEVELS, config.table_log2
    )
    return HashNeRF(
        space,
        levels,
        OccupancyGrid(occupied),
        step=_step(space, 0.0),
        near=room.near,
        features=FEATURES,
        generator=generator,
    )


def _step(space: FieldSpace, share: float) -> float:
    """Return how far samples are apart, in world units, `share` of the way through the work."""
    counts = STEPS_IN_ALL_SPACE if space.contracted else STEPS_PER_SIDE
    return 2 * space.half_side / max(count for begin, count in counts if share >= begin)


def _cube_of(room: VoxelSpace) -> tuple[FieldSpace, Tensor]:
    """Put a grid of voxels into the smallest cube around it, in as many cells."""
    if room.contracted:
        return FieldSpace(room.middle, room.unit, contracted=True), room.mask
    shape = torch.tensor(room.mask.shape)
    side = int(shape.max())
    before = (side - shape) // 2
    occupied = torch.zeros(side, side, side, dtype=torch.bool)
    x, y, z = (slice(int(b), int(b + n)) for b, n in zip(before, shape, strict=True))
    occupied[x, y, z] = room.mask
    return FieldSpace(room.middle + (side / 2 - before) * room.unit, side / 2 * room.unit), occupied


class Learner:
    """A field, its optimizer, its pixels and its random numbers."""

    def __init__(
        self,
        field: HashNeRF | NeRF,
        pixels: PixelSource,
        depths: DepthSupervision | None,
        config: FitNerf,
        seed: int,
    ) -> None:
        self.field, self.pixels, self.depths, self.config, self.seed = field, pixels, depths, config, seed
        self.generator = Generator().manual_seed(seed)
        usual = DISTORTION_IN_ALL_SPACE if field.contracted else 0.0
        self.distortion = usual if config.distortion is None else config.distortion
        varies = config.exposure == "each" or (config.exposure == "auto" and field.contracted)
        self.exposures = Exposures(len(pixels.frames)) if varies else None
        rates = [{"params": list(field.parameters()), "rate": RATES[config.model]}]
        if self.exposures is not None:
            rates.append({"params": list(self.exposures.parameters()), "rate": RATE_OF_EXPOSURE})
        self.optimizer = torch.optim.Adam(rates, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self.index = self.first_index = 0
        self.error = self.mean_error = self.mean_trivial_error = math.inf
        self.seconds = 0.0
        self.num_rays = max(1, config.samples // FOGGY) if config.model == "hash" else RAYS_OF_PAPER
        self.num_samples = 0
        self.steps_since_pruning = self.samples_since_pruning = 0

    @property
    def losses(self) -> dict[str, float]:
        """Of the last step."""
        return {"color": self.error, "psnr": -10 * math.log10(max(self.error, 1e-10))}

    def step(self, share: float) -> bool:
        """Descend once, `share` of the way through the work; return False, and change nothing, if numbers failed."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * SLOWING**share
        if isinstance(self.field, HashNeRF):
            self.field.step = _step(self.field.space, share)
        batch = self.pixels.draw(self.num_rays, 1)
        color, total, trivial = self._losses(batch)
        if not bool(total.isfinite()):
            return False
        self.optimizer.zero_grad()
        total.backward()
        if not all(bool(p.grad.sum().isfinite()) for p in self.field.parameters() if p.grad is not None):
            return False
        self.optimizer.step()
        self._note(float(color.detach()), trivial)
        if isinstance(self.field, HashNeRF):
            self._follow_what_was_seen(self.field, share)
        return True

    def _note(self, error: float, trivial: float) -> None:
        self.index += 1
        self.error = error
        begins = self.index == self.first_index + 1
        self.mean_error = error if begins else 0.98 * self.mean_error + 0.02 * error
        self.mean_trivial_error = trivial if begins else 0.98 * self.mean_trivial_error + 0.02 * trivial

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that later steps depend on: tensors, and numbers."""
        tensors = {f"field/{name}": value for name, value in self.field.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{number}/{name}": value for name, value in state.items()}
        tensors |= {f"pixels/{name}": value for name, value in self.pixels.state().items()}
        if self.exposures is not None:
            tensors |= {f"exposures/{name}": value for name, value in self.exposures.state_dict().items()}
        tensors["random"] = self.generator.get_state()
        return tensors, {name: getattr(self, name) for name in COUNTED}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Go back to a state."""
        for name in COUNTED:
            setattr(self, name, float(numbers[name]) if "error" in name else numbers[name])
        if isinstance(self.field, HashNeRF):  # its cells may have been halved
            self.field.occupancy = OccupancyGrid(tensors["field/occupancy.occupied"])
        self.field.load_state_dict(_under("field", tensors))
        if self.exposures is not None:
            self.exposures.load_state_dict(_under("exposures", tensors))
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("adam", tensors).items():
            number, key = name.split("/")
            adam.setdefault(int(number), {})[key] = value.clone()
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": adam})
        self.pixels.restore(_under("pixels", tensors))
        self.generator.set_state(tensors["random"])

    def _losses(self, batch: PixelBatch) -> tuple[Tensor, Tensor, float]:
        rays, known = self._with_known_depths(batch.rays)
        seen = self.field.march(rays, self.generator)
        if seen[0] is seen[-1]:  # of one network
            seen = seen[-1:]
        target, behind = colors_to_learn(batch, self.field.background, self.config.background, self.generator)
        errors = [self._error(each, batch, target, behind) for each in seen]
        self.num_samples = sum(each.weights.numel() for each in seen if each.weights is not None)
        total = torch.stack(errors).sum()
        if len(known) > 0:
            total = total + self.config.depth * sum(_misplaced(each, known) for each in seen)
        if self.distortion > 0:
            total = total + self.distortion * sum(_spread(each, self.field.half_side) for each in seen)
        return errors[-1], total, _trivial(target, behind, batch.valid)

    def _error(self, seen: Marched, batch: PixelBatch, target: Tensor, behind: Tensor) -> Tensor:
        """Return the mean squared error of the colors that are seen along the first rays."""
        count = len(target)  # behind these come rays of depth
        color = seen.color[:count] + (1 - seen.opacity[:count])[:, None] * behind
        if self.exposures is not None:
            color = self.exposures(color, batch.frame)
        squares = (color - target).square().mean(1)
        return torch.where(batch.valid, squares, 0).sum() / batch.valid.sum().clamp(min=1)

    def _with_known_depths(self, rays: Rays) -> tuple[Rays, Tensor]:
        """Add rays along which it is known how far it is; return that for the last ones too."""
        if self.depths is None:
            return rays, rays.origins[:0, 0]
        known = self.depths.draw(math.ceil(RAYS_OF_DEPTH * len(rays.origins)), self.generator)
        origins = torch.cat([rays.origins, known.rays.origins])
        return Rays(origins, torch.cat([rays.directions, known.rays.directions])), known.distances

    def _follow_what_was_seen(self, field: HashNeRF, share: float) -> None:
        """Give up what is empty, and take so many rays that the samples come out as asked for."""
        grid = field.occupancy
        self.steps_since_pruning += 1
        self.samples_since_pruning += field.num_looked_at
        enough = SAMPLES_TO_PRUNE * grid.num_occupied
        if self.steps_since_pruning >= STEPS_TO_PRUNE and self.samples_since_pruning >= enough:
            grid.give_up_unseen(SEEN_IN_ALL_SPACE if field.contracted else SEEN)
            self.steps_since_pruning = self.samples_since_pruning = 0
        if share >= SPLIT_AT and grid.side <= CELLS:
            field.occupancy = grid.split()
            self.steps_since_pruning = self.samples_since_pruning = 0
        spent = max(self.num_samples, field.num_looked_at / LOOKS_PER_SAMPLE, 1)
        wanted = self.num_rays * self.config.samples / spent
        self.num_rays = int(min(max(wanted, self.num_rays / 2, 64), 1.1 * self.num_rays + 1, MOST_RAYS))


def _under(folder: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = folder + "/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def colors_to_learn(
    batch: PixelBatch, learned: Tensor, background: Background, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Return the colors that rays should have, and what is behind them."""
    behind = learned.expand_as(batch.colors)
    if batch.alpha is None:
        return batch.colors, behind
    if background in ("auto", "random"):
        behind = torch.rand(batch.colors.shape, generator=generator)
    else:
        behind = torch.full_like(batch.colors, 1.0 if background == "white" else 0.0)
    return torch.lerp(behind, batch.colors, batch.alpha[:, None]), behind


def _misplaced(seen: Marched, known: Tensor) -> Tensor:
    """Return how much of the last rays' light does not end where it should."""
    samples, weights = seen.samples, seen.weights
    assert samples is not None
    assert samples.offsets is not None
    assert weights is not None
    offsets = samples.offsets[-len(known) - 1 :]
    first = int(offsets[0])
    return depth_loss(weights[first:], samples.distances[first:], offsets - first, known)


def _spread(seen: Marched, unit: float) -> Tensor:
    """Return how far weights are spread in t / (t + unit), in which all distances are between 0 and 1."""
    samples = seen.samples
    assert samples is not None
    assert samples.offsets is not None
    assert seen.weights is not None
    places = samples.distances / (samples.distances + unit)
    lengths = samples.lengths * unit / (samples.distances + unit).square()
    return distortion_loss(seen.weights, places, lengths, samples.offsets)


def _trivial(target: Tensor, behind: Tensor, valid: Tensor) -> float:
    """Return the error of the better of two pictures that need no field: the mean color, and what is behind."""
    target, behind = target[valid].detach(), behind[valid].detach()
    if len(target) == 0:
        return 0.0
    return float(torch.minimum(target.var(0, correction=0).mean(), (target - behind).square().mean()))
