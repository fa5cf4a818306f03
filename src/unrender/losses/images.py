"""How much two pictures differ, as papers measure it."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError

SSIM_WINDOW = 11
"""Pixels that the structural similarity needs along each side."""


@checked
def psnr(
    image: Float[Tensor, "height width 3"],
    truth: Float[Tensor, "height width 3"],
    mask: Bool[Tensor, "height width"] | None = None,
) -> float:
    """Return the peak signal-to-noise ratio in decibels: −10 log₁₀ of the mean squared difference; inf if equal.

    Both pictures have values in [0, 1]. With a mask, the mean is over its pixels; nan if it has none.
    Differentiable in: nothing.
    """
    squares = (image.detach().double() - truth.double()).square().mean(-1)
    error = float((squares if mask is None else squares[mask]).mean())
    return -10 * math.log10(error) if error > 0 else math.nan if math.isnan(error) else math.inf


@checked
def match_exposure(
    image: Float[Tensor, "height width 3"],
    truth: Float[Tensor, "height width 3"],
    mask: Bool[Tensor, "height width"] | None = None,
) -> Float[Tensor, "height width 3"]:
    """Return a picture with each channel times the factor that brings it nearest to the truth, by least squares.

    With a mask, nearest within it. Channels that are black there stay as they are. Differentiable in: image, truth.
    """
    seen, right = (t.flatten(0, 1) if mask is None else t[mask] for t in (image, truth))
    power = seen.square().sum(0)
    return image * torch.where(power > 0, (seen * right).sum(0) / torch.where(power > 0, power, 1), 1)


@checked
def ssim(image: Float[Tensor, "height width 3"], truth: Float[Tensor, "height width 3"]) -> float:
    """Return the structural similarity, 1 for the same picture (Wang et al. 2004).

    Means over Gaussian windows of 11 × 11 pixels with a deviation of 1.5, over the three channels; by scikit-image.
    Both pictures have values in [0, 1] and at least 11 pixels along each side. Differentiable in: nothing.
    """
    from skimage.metrics import structural_similarity

    if min(image.shape[:2]) < SSIM_WINDOW:
        raise InputError(f"ssim: pictures should have 11 × 11 pixels or more, got {list(image.shape[:2])}")
    return float(
        structural_similarity(
            truth.detach().cpu().numpy(),
            image.detach().cpu().numpy(),
            channel_axis=-1,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
