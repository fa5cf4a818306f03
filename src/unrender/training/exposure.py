"""Exposure compensation: how images of one scene differ in brightness and white balance."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Exposures(nn.Module):
    """A factor for each channel of each image, optimized together with the field.

    Their geometric mean over the images is 1, so that the field itself gets no brighter or darker.
    Compare Rematas et al. 2022 (Urban Radiance Fields), section 4.1, who optimize a 3 × 3 matrix per image.
    """

    def __init__(self, num_photos: int) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.zeros(num_photos, 3))

    def factors(self) -> Float[Tensor, "photos 3"]:
        """Return the factors. Differentiable in: the parameters."""
        return (self.logs - self.logs.mean(0)).exp()

    def forward(
        self, colors: Float[Tensor, "rays 3"], photo: Int[Tensor, " rays"]
    ) -> Float[Tensor, "rays 3"]:
        """Return colors as they are in the images. Differentiable in: colors and the parameters."""
        return colors * self.factors()[photo]
