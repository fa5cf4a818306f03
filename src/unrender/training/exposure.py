"""How photos of one scene differ in brightness and in white balance."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Exposures(nn.Module):
    """A factor for each channel of each photo, learned beside what the photos show.

    Their geometric mean over the photos is 1, so that the scene itself gets no brighter or darker.
    Compare Rematas et al. 2022 (Urban Radiance Fields), section 4.1, who learn 3 × 3 numbers for each photo.
    """

    def __init__(self, num_photos: int) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.zeros(num_photos, 3))

    def factors(self) -> Float[Tensor, "photos 3"]:
        """Return by how much each photo is brighter than the scene. Differentiable in: the parameters."""
        return (self.logs - self.logs.mean(0)).exp()

    def forward(
        self, colors: Float[Tensor, "rays 3"], photo: Int[Tensor, " rays"]
    ) -> Float[Tensor, "rays 3"]:
        """Return colors as photos show them. Differentiable in: colors and the parameters."""
        return colors * self.factors()[photo]
