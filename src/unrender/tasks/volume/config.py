"""Settings of `fit_volume`."""

import dataclasses
import math
from typing import get_args

from unrender.errors import InputError
from unrender.training.initial_occupancy import Space
from unrender.training.targets import Background


@dataclasses.dataclass(frozen=True)
class FitVolume:
    """Fit voxels with density and view-dependent color to posed images.

    Minimizes the mean squared error between rendered and captured colors, coarse to fine; voxels that no ray observes
    are pruned.
    """

    minutes: float | None = None
    """Training budget in minutes of wall-clock time, including image loading and kernel compilation. Results depend on
    the speed of the machine. Evaluation, video and mesh take extra time."""
    steps: int | None = None
    """Training budget in steps. Default: 4000, unless a budget in minutes is given."""
    rays: int = 65536
    """Rays per step at full resolution, in patches of 4 × 4 pixels; fewer at coarse resolutions."""
    resolution: int | None = None
    """Voxels along the longest side of the final grid, rounded up to a multiple of 16. Default: 256; on a GPU, 384."""
    degree: int = 2
    """Degree of the spherical harmonics of the color: 0 (independent of the viewing direction) to 3."""
    space: Space = "auto"
    """Region of space to model. visual_hull: the visual hull of the alpha channels; aabb: the bounds of the scene;
    unbounded: all of space, contracted (Mip-NeRF 360). auto: visual_hull for images with alpha, else unbounded."""
    background: Background = "auto"
    """Background of images with alpha. auto: random colors in training, on a GPU white for half of the rays; white in
    results."""
    total_variation_loss_weight: float | None = None
    """Weight of the mean squared difference between neighboring voxels, of opacity and of color. Default: 0.3 for
    unbounded scenes, else 0."""
    sparsity_loss_weight: float | None = None
    """Weight of the mean opacity of the voxels, which suppresses haze. Default: 0.03 for unbounded scenes, else 0."""
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


def check(config: FitVolume) -> None:
    """Raise InputError for settings out of range."""
    for name in ("minutes", "steps", "rays", "memory_mib"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"fit_volume: `{name}` should be above 0, got {value}")
    weights = ("total_variation_loss_weight", "sparsity_loss_weight", "depth_loss_weight")
    for name in (*weights, "seed"):
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
    if config.resolution is not None and not 16 <= config.resolution <= 1024:
        raise InputError(f"fit_volume: `resolution` should be 16 to 1024, got {config.resolution}")
    if not 0 <= config.degree <= 3:
        raise InputError(f"fit_volume: `degree` should be 0 to 3, got {config.degree}")
