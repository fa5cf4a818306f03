"""Settings of `fit_nerf`."""

import dataclasses
from typing import Literal, get_args

from unrender.errors import InputError
from unrender.fields.registry import FIELDS
from unrender.training.field_config import FieldConfig, check_config

Exposure = Literal["auto", "per_image", "none"]


@dataclasses.dataclass(frozen=True)
class FitNerf(FieldConfig):
    """Train a radiance field on posed images.

    Minimizes the mean squared error between rendered and captured colors.
    """

    minutes: float | None = None
    """Training budget in minutes of wall-clock time, including image loading and kernel compilation. Results depend on
    the speed of the machine. Default: 5, unless a budget in steps is given."""
    model: str = "hash"
    """Field to train. hash: hash grid with two small MLPs (Instant-NGP), minutes; paper: the MLP of NeRF (Mildenhall et
    al. 2020), days on a CPU; tutorial: the small MLP of PyTorch3D's tutorial, hours; or a field you registered."""
    samples: int | None = None
    """Samples per step of the hash model; the number of rays adapts to it. Default: 65536; on a GPU, 262144; at least
    32768 for each shard."""
    table_log2: int | None = None
    """Base-2 logarithm of the hash table size per level. Default: 18; on a GPU, 20."""
    exposure: Exposure = "auto"
    """Exposure compensation. per_image: optimize a scale per image and color channel. auto: per_image for unbounded
    scenes, else none."""
    distortion_loss_weight: float | None = None
    """Weight of the distortion loss (Mip-NeRF 360, eq. 15), which suppresses floaters. Default: 0.03 for unbounded
    scenes, else 0."""


def check(config: FitNerf) -> None:
    """Raise InputError for settings out of range."""
    choices = {"model": tuple(FIELDS), "exposure": get_args(Exposure)}
    check_config("fit_nerf", config, ["samples"], ["distortion_loss_weight"], choices)
    if config.table_log2 is not None and not 10 <= config.table_log2 <= 24:
        raise InputError(f"fit_nerf: `table_log2` should be 10 to 24, got {config.table_log2}")
