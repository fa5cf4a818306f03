"""The settings that all tasks with fields have in common."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from unrender.errors import InputError
from unrender.training.initial_occupancy import Space
from unrender.training.targets import Background


@dataclasses.dataclass(frozen=True)
class FieldConfig:
    """Train a field on posed images."""

    minutes: float | None = None
    """Training budget in minutes of wall-clock time, including image loading and kernel compilation. Results depend on
    the speed of the machine."""
    steps: int | None = None
    """Training budget in steps; results are reproducible from the seed."""
    space: Space = "auto"
    """Region of space to model. visual_hull: the visual hull of the alpha channels; aabb: the bounds of the scene;
    unbounded: all of space, contracted (Mip-NeRF 360). auto: visual_hull for images with alpha, else unbounded."""
    background: Background = "auto"
    """Background of images with alpha. auto: random colors in training, on a GPU white for half of the rays; white in
    results."""
    depth_loss_weight: float | None = None
    """Weight of the depth loss, if the scene has depth images or COLMAP points; 0.02 gives accurate depth. Default:
    0.02 for COLMAP points, 0 for depth images, which can lower the PSNR."""
    memory_mib: float = 1500.0
    """Memory budget for images, in MiB. Larger datasets are streamed."""
    shards: int | None = None
    """Parts of each step that torchrun's workers take between them. Results depend on this number, but not on the
    number of workers. Default: 1; under torchrun, 8."""
    device: str = "auto"
    """Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu."""
    seed: int = 0
    """Seed of all random numbers; with a budget in steps, results are reproducible from it."""


def check_config(
    task: str,
    config: FieldConfig,
    positive: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    choices: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Raise InputError for settings out of range.

    positive, not_negative, choices: the task's own settings that are above 0, 0 or more, or one of several values.
    """
    for name in ("minutes", "steps", "memory_mib", *positive):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{task}: `{name}` should be above 0, got {value}")
    for name in ("depth_loss_weight", "seed", *not_negative):
        value = getattr(config, name)
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"{task}: `{name}` should be 0 or more, got {value}")
    known = {"space": get_args(Space), "background": get_args(Background)} | dict(choices or {})
    for name, values in known.items():
        if getattr(config, name) not in values:
            raise InputError(
                f"{task}: `{name}` should be one of {', '.join(values)}, got {getattr(config, name)!r}"
            )
    if config.minutes is not None and config.steps is not None:
        raise InputError(f"{task}: give `minutes` or `steps`, not both")
