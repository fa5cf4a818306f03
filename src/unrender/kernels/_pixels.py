"""Evaluation of reference rasterizers, which test every face at every pixel, in chunks of pixels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

PAIRS = 1 << 16
"""Maximum number of pixels times faces per chunk. Larger chunks fragment the memory."""


def at_pixels(function: Callable[[Tensor], Any], points: Tensor, height: int, width: int, faces: int) -> Any:
    """Apply a function to chunks of pixel centers [pixels, 2], row by row; return the list of results.

    Chunks are recomputed in the backward pass.
    """
    rows, columns = (torch.arange(n, dtype=points.dtype, device=points.device) + 0.5 for n in (height, width))
    centers = torch.cartesian_prod(rows, columns).flip(-1)
    chunks = centers.split(max(PAIRS // max(faces, 1), 1))
    return [checkpoint(function, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
