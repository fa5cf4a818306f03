"""How different two pictures look to a network: LPIPS, where it is installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrender.errors import InputError

PerceptualLoss = Callable[[Tensor, Tensor], float]
"""From two pictures [height, width, 3] in 0 to 1 to a number ≥ 0, 0 for the same picture."""


def load_lpips() -> PerceptualLoss:
    """Return LPIPS (Zhang et al. 2018) of VGG, as papers on new views report it; nothing is ever downloaded.

    Raises InputError, which says what is absent: the package lpips, or the weights of the network on this machine.
    """
    try:
        import lpips
        from torchvision.models import VGG16_Weights
    except ImportError as error:
        raise InputError("LPIPS needs the package lpips: pip install lpips") from error
    weights = Path(torch.hub.get_dir(), "checkpoints", Path(VGG16_Weights.IMAGENET1K_V1.url).name)
    if not weights.is_file():
        raise InputError(f"LPIPS needs the weights {VGG16_Weights.IMAGENET1K_V1.url} as {weights}")
    network: Any = lpips.LPIPS(net="vgg", verbose=False).eval()

    @torch.no_grad()
    def difference(image: Tensor, truth: Tensor) -> float:
        return float(network(image.movedim(-1, 0)[None], truth.movedim(-1, 0)[None], normalize=True))

    return difference
