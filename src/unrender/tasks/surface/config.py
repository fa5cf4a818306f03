"""Settings of `fit_surface`."""

import dataclasses
import math
from typing import Literal, get_args

from unrender.errors import InputError

Method = Literal["depth", "density"]
Unobserved = Literal["auto", "close", "open"]
Exposure = Literal["auto", "per_image", "none"]
CHOICES = {
    "method": get_args(Method),
    "unobserved": get_args(Unobserved),
    "exposure": get_args(Exposure),
}
MIN_FACES = 100
MAX_RESOLUTION = {"depth": 1000, "density": 640}
"""Of grids that fit into memory, by method."""


@dataclasses.dataclass(frozen=True)
class FitSurface:
    """Extract the surface of a field, and refine it against the photos by differentiable rendering.

    Minimizes the absolute difference between rendered and captured colors, the squared difference between silhouettes
    and alpha channels, and the difference from the depth of the field, with mesh regularizers.
    """

    faces: int = 50_000
    """Maximum number of faces."""
    minutes: float | None = None
    """Budget in minutes of wall-clock time, from the trained field to the result. Results depend on the speed of the
    machine. Default: 10, unless a budget in steps is given."""
    steps: int | None = None
    """Refinement budget in steps, of one photo each; 0 keeps the extracted surface. Results are reproducible."""
    method: Method = "depth"
    """Initial surface. depth: TSDF fusion of rendered depth images; density: a level set of the density."""
    views: int = 60
    """Maximum number of depth images to fuse, evenly spaced."""
    resolution: int = 256
    """Voxels along the longest side of the initial surface."""
    image_size: int = 800
    """Longer side of the photos in the refinement, in pixels, at most."""
    min_part: float = 0.02
    """Connected parts with less than this fraction of the area of the largest one are removed as floaters."""
    unobserved: Unobserved = "auto"
    """Where no camera observed the surface. close: close it a few voxels behind the visible side; open: leave it open.
    auto: close, for bounded scenes with cameras all around."""
    max_hole: float = 0.5
    """Holes are closed if their outline is at most this long, as a fraction of the diagonal of the surface."""
    mask_loss_weight: float = 1.0
    """Weight of the silhouettes, for photos with alpha."""
    depth_loss_weight: float = 0.05
    """Weight of the depth of the field."""
    smoothness: float = 1.0
    """Weight of the regularizers: normal consistency, Laplacian smoothing and edge length."""
    exposure: Exposure = "auto"
    """Exposure compensation. per_image: optimize a scale per image and color channel. auto: per_image for unbounded
    scenes, else none."""
    seed: int = 0
    """Seed of the order of the photos."""


def check(config: FitSurface) -> None:
    """Raise InputError for settings out of range."""
    lowest = {"faces": MIN_FACES, "steps": 0, "views": 2, "resolution": 16, "image_size": 16, "seed": 0}
    for name, least in lowest.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise InputError(f"fit_surface: `{name}` should be at least {least}, got {value}")
    most = MAX_RESOLUTION.get(config.method, 0)
    if config.method in MAX_RESOLUTION and config.resolution > most:
        raise InputError(
            f"fit_surface: `resolution` should be at most {most} with `method` {config.method}, got {config.resolution}"
        )
    if config.minutes is not None and not 0 < config.minutes < math.inf:
        raise InputError(f"fit_surface: `minutes` should be above 0, got {config.minutes}")
    if config.minutes is not None and config.steps is not None:
        raise InputError("fit_surface: give `minutes` or `steps`, not both")
    for name in ("max_hole", "mask_loss_weight", "depth_loss_weight", "smoothness"):
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise InputError(f"fit_surface: `{name}` should be 0 or more, got {value}")
    if not 0 <= config.min_part <= 1:
        raise InputError(f"fit_surface: `min_part` should be between 0 and 1, got {config.min_part}")
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            raise InputError(
                f"fit_surface: `{name}` should be one of {', '.join(choices)}, got {getattr(config, name)!r}"
            )
