"""Pixels, for the references that hold every face against every pixel."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

PAIRS = 1 << 16
"""Pixels times faces looked at together, at most.

Larger blocks, freed between results that stay, leave the memory full of holes."""


def at_pixels(function: Callable[[Tensor], Any], points: Tensor, height: int, width: int, faces: int) -> Any:
    """Apply a function to the centres [pixels, 2] of a few pixels at a time, row after row; list what it gives.

    So many at a time that all faces fit beside them. For the backward pass each part is computed again.
    """
    rows, columns = (torch.arange(n, dtype=points.dtype, device=points.device) + 0.5 for n in (height, width))
    centers = torch.cartesian_prod(rows, columns).flip(-1)
    parts = centers.split(max(PAIRS // max(faces, 1), 1))
    return [checkpoint(function, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
