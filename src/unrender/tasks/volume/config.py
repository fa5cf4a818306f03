"""How to fit voxels."""

import dataclasses
import math
from typing import get_args

from unrender.errors import InputError
from unrender.training.initial_occupancy import Space
from unrender.training.targets import Background


@dataclasses.dataclass(frozen=True)
class FitVolume:
    """Fit voxels with density and view-dependent color to posed images.

    Descends on the squared difference between rendered and photographed colors, coarse to fine; voxels that no ray
    sees are left out as the work goes on.
    """

    minutes: float | None = None
    """Learn for so long, reading pictures and compiling kernels included. Results then depend on the machine's speed.
    What is done between the steps, a pause too, and pictures, films and meshes that are made afterwards take their own
    time."""
    steps: int | None = None
    """Steps of Adam. By default 4000, if `minutes` is not given."""
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


def check(config: FitVolume) -> None:
    """Refuse settings that make no sense."""
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
    if config.minutes is not None and config.steps is not None:
        raise InputError("fit_volume: give `minutes` or `steps`, not both")
    if not 16 <= config.resolution <= 1024:
        raise InputError(f"fit_volume: `resolution` should be 16 to 1024, got {config.resolution}")
    if not 0 <= config.degree <= 3:
        raise InputError(f"fit_volume: `degree` should be 0 to 3, got {config.degree}")
