"""Settings of `fit_nerf`."""

import dataclasses
import math
from typing import Literal, get_args

from unrender.errors import InputError
from unrender.fields.registry import FIELDS
from unrender.training.initial_occupancy import Space
from unrender.training.targets import Background

Exposure = Literal["auto", "per_image", "none"]


@dataclasses.dataclass(frozen=True)
class FitNerf:
    """Train a radiance field on posed images.

    Minimizes the mean squared error between rendered and captured colors.
    """

    model: str = "hash"
    """Field to train. hash: hash grid with two small MLPs (Instant-NGP), minutes; paper: the MLP of NeRF (Mildenhall et
    al. 2020), days on a CPU; tutorial: the small MLP of PyTorch3D's tutorial, hours; or a field you registered."""
    minutes: float | None = None
    """Training budget in minutes of wall-clock time, including image loading and kernel compilation. Results depend on
    the speed of the machine. Default: 5, unless a budget in steps is given."""
    steps: int | None = None
    """Training budget in steps; results are reproducible from the seed."""
    samples: int | None = None
    """Samples per step of the hash model; the number of rays adapts to it. Default: 65536; on a GPU, 262144."""
    table_log2: int | None = None
    """Base-2 logarithm of the hash table size per level. Default: 18; on a GPU, 20."""
    space: Space = "auto"
    """Region of space to model. visual_hull: the visual hull of the alpha channels; aabb: the bounds of the scene;
    unbounded: all of space, contracted (Mip-NeRF 360). auto: visual_hull for images with alpha, else unbounded."""
    background: Background = "auto"
    """Background of images with alpha. auto: random colors in training, on a GPU white for half of the rays; white in
    results."""
    exposure: Exposure = "auto"
    """Exposure compensation. per_image: optimize a scale per image and color channel. auto: per_image for unbounded
    scenes, else none."""
    distortion_loss_weight: float | None = None
    """Weight of the distortion loss (Mip-NeRF 360, eq. 15), which suppresses floaters. Default: 0.03 for unbounded
    scenes, else 0."""
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
    """Seed of all random numbers."""


def check(config: FitNerf) -> None:
    """Raise InputError for settings out of range."""
    for name in ("minutes", "steps", "samples", "memory_mib"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"fit_nerf: `{name}` should be above 0, got {value}")
    for name in ("distortion_loss_weight", "depth_loss_weight", "seed"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"fit_nerf: `{name}` should be 0 or more, got {value}")
    choices = {"space": get_args(Space), "background": get_args(Background), "exposure": get_args(Exposure)}
    for name, known in ({"model": tuple(FIELDS)} | choices).items():
        if getattr(config, name) not in known:
            raise InputError(
                f"fit_nerf: `{name}` should be one of {', '.join(known)}, got {getattr(config, name)!r}"
            )
    if config.minutes is not None and config.steps is not None:
        raise InputError("fit_nerf: give `minutes` or `steps`, not both")
    if config.table_log2 is not None and not 10 <= config.table_log2 <= 24:
        raise InputError(f"fit_nerf: `table_log2` should be 10 to 24, got {config.table_log2}")
