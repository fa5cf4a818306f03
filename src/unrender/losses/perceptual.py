"""Perceptual image distance: LPIPS, if the package is installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrender.errors import InputError

PerceptualLoss = Callable[[Tensor, Tensor], float]
"""Maps two images [height, width, 3] in [0, 1] to their distance ≥ 0; 0 for equal images."""


def load_lpips() -> PerceptualLoss:
    """Load LPIPS with VGG features (Zhang et al. 2018), the variant reported for novel view synthesis.

    Nothing is downloaded. Raises InputError if the package lpips or the network's weights are missing.
    """
    try:
        import lpips
        from torchvision.models import VGG16_Weights
    except ImportError as error:
        raise InputError("LPIPS requires the package lpips; install it with `pip install lpips`") from error
    weights = Path(torch.hub.get_dir(), "checkpoints", Path(VGG16_Weights.IMAGENET1K_V1.url).name)
    if not weights.is_file():
        raise InputError(f"LPIPS weights not found; download {VGG16_Weights.IMAGENET1K_V1.url} to {weights}")
    network: Any = lpips.LPIPS(net="vgg", verbose=False).eval()

    @torch.no_grad()
    def difference(image: Tensor, truth: Tensor) -> float:
        return float(network(image.movedim(-1, 0)[None], truth.movedim(-1, 0)[None], normalize=True))

    return difference
