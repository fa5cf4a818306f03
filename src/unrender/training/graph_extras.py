"""What a graph step may have besides colors: exposures of images, and rays of known depth."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.data.depth_supervision import DeviceDepths
from unrender.kernels._hash_training import LOSS_SCALE
from unrender.kernels._hash_training.rendering import EXPOSURE_UNITS


class GraphExposures:
    """The factors of `training.exposure`, trained by graph steps. There may be none, of no images."""

    def __init__(self, num_images: int, device: torch.device) -> None:
        self.logs, self.mean, self.square = torch.zeros(3, num_images, 3, device=device)
        self.gradient = torch.zeros(num_images, 3, device=device)
        self.factors = torch.ones(num_images, 3, device=device)
        self.sums = torch.zeros(num_images, 3, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self.logs)

    def state(self) -> list[Float[Tensor, "images 3"]]:
        """Return the logs of the factors, and both moments of Adam: all that later steps depend on."""
        return [self.logs, self.mean, self.square] if len(self) else []

    def refresh(self) -> None:
        """Compute the factors from their logs."""
        torch.exp(self.logs - self.logs.mean(0), out=self.factors)

    def take_gradient(self, scalars: Tensor) -> Tensor:
        """Return the gradient by the logs, with the loss scale, and begin new sums."""
        torch.mul(self.sums, 1 / EXPOSURE_UNITS, out=self.gradient)
        self.sums.zero_()
        gradient = self.gradient
        gradient.sub_(gradient.mean(0)).mul_(scalars[LOSS_SCALE])
        return gradient


def no_depths(device: torch.device) -> DeviceDepths:
    """Return the supervision of a scene without known depth."""
    return DeviceDepths(
        torch.zeros(0, dtype=torch.int32, device=device),
        torch.zeros(0, 3, device=device),
        torch.zeros(0, device=device),
    )
