"""How to fit a radiance field."""

import dataclasses
import math
from typing import Literal, get_args

from unrender.errors import InputError
from unrender.training.initial_occupancy import Space
from unrender.training.targets import Background

Exposure = Literal["auto", "each", "same"]
Model = Literal["hash", "paper", "tutorial"]


@dataclasses.dataclass(frozen=True)
class FitNerf:
    """Fit a radiance field to posed images.

    Descends on the squared difference between rendered and photographed colors.
    """

    model: Model = "hash"
    """hash: features in a hash table and two small perceptrons (Instant-NGP), minutes; paper: the perceptron of NeRF
    (Mildenhall et al. 2020), days on a CPU; tutorial: the small one of PyTorch3D's tutorial, hours."""
    minutes: float | None = None
    """Learn for so long, reading pictures and compiling kernels included. Results then depend on the machine's speed.
    By default 5, if `steps` is not given."""
    steps: int | None = None
    """Steps of Adam; then the same seed gives the same numbers."""
    samples: int = 65536
    """Places in a step at which the field is learned, for the hash model; the number of rays follows from it."""
    table_log2: int = 18
    """The logarithm to base 2 of the number of entries, at most, of each of the hash table's 16 levels."""
    space: Space = "auto"
    """Where something can be. hull: where the pictures' transparency leaves room for it; box: in the scene's bounds;
    everything: in all space, contracted far away. auto: hull where pictures have transparency, else everything."""
    background: Background = "auto"
    """What is behind transparent pictures. auto: random colors while learning, white in results."""
    exposure: Exposure = "auto"
    """Whether photos differ in brightness and white balance. each: by a factor for each channel of each photo, which
    are learned too; same: no. auto: each in all space."""
    distortion: float | None = None
    """Weight of what draws the weights along a ray together (Mip-NeRF 360, eq. 15): it removes haze and floaters. By
    default 0.03 in all space, else 0."""
    depth: float = 0.02
    """Weight of what draws surfaces to where the scene measured them: to its pictures of depth, or to the points that
    COLMAP found; nothing, where there are none. 0: they are not learned from."""
    memory_mib: float = 1500.0
    """For pictures; those that do not fit take turns."""
    seed: int = 0
    """Seed of every random choice."""


def check(config: FitNerf) -> None:
    """Refuse settings that make no sense."""
    for name in ("minutes", "steps", "samples", "memory_mib"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"fit_nerf: `{name}` should be above 0, got {value}")
    for name in ("distortion", "depth", "seed"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"fit_nerf: `{name}` should be 0 or more, got {value}")
    kinds = {"model": Model, "space": Space, "background": Background, "exposure": Exposure}
    for name, known in kinds.items():
        if getattr(config, name) not in get_args(known):
            raise InputError(
                f"fit_nerf: `{name}` should be one of {', '.join(get_args(known))}, got {getattr(config, name)!r}"
            )
    if config.minutes is not None and config.steps is not None:
        raise InputError("fit_nerf: give `minutes` or `steps`, not both")
    if not 10 <= config.table_log2 <= 24:
        raise InputError(f"fit_nerf: `table_log2` should be 10 to 24, got {config.table_log2}")
