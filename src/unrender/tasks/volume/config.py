"""Settings of `fit_volume`."""

import dataclasses

from unrender.errors import InputError
from unrender.training.field_config import FieldConfig, check_config


@dataclasses.dataclass(frozen=True)
class FitVolume(FieldConfig):
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
    total_variation_loss_weight: float | None = None
    """Weight of the mean squared difference between neighboring voxels, of opacity and of color. Default: 0.3 for
    unbounded scenes, else 0."""
    sparsity_loss_weight: float | None = None
    """Weight of the mean opacity of the voxels, which suppresses haze. Default: 0.03 for unbounded scenes, else 0."""


def check(config: FitVolume) -> None:
    """Raise InputError for settings out of range."""
    check_config("fit_volume", config, ["rays"], ["total_variation_loss_weight", "sparsity_loss_weight"])
    if config.resolution is not None and not 16 <= config.resolution <= 1024:
        raise InputError(f"fit_volume: `resolution` should be 16 to 1024, got {config.resolution}")
    if not 0 <= config.degree <= 3:
        raise InputError(f"fit_volume: `degree` should be 0 to 3, got {config.degree}")
