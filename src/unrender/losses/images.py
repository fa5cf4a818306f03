"""Image quality metrics: PSNR and SSIM."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError

SSIM_WINDOW = 11
"""Side of the SSIM window in pixels, the minimum size of an image."""


@checked
def psnr(
    image: Float[Tensor, "height width 3"],
    truth: Float[Tensor, "height width 3"],
    mask: Bool[Tensor, "height width"] | None = None,
) -> float:
    """Compute the peak signal-to-noise ratio in dB: −10 log₁₀ of the mean squared error; inf for equal images.

    Images have values in [0, 1]. With a mask, the mean is over its pixels; nan if the mask is empty.
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
    """Scale each channel of an image by the factor that fits the ground truth best in the least-squares sense.

    Use it before `psnr` to ignore differences in exposure and white balance. With a mask, the fit is over its pixels.
    Channels that are black there are left unchanged.
    Differentiable in: image, truth.
    """
    pixels, target = (t.flatten(0, 1) if mask is None else t[mask] for t in (image, truth))
    power = pixels.square().sum(0)
    return image * torch.where(power > 0, (pixels * target).sum(0) / torch.where(power > 0, power, 1), 1)


@checked
def ssim(image: Float[Tensor, "height width 3"], truth: Float[Tensor, "height width 3"]) -> float:
    """Compute the structural similarity index, 1 for equal images (Wang et al. 2004).

    Averaged over Gaussian windows of 11 × 11 pixels (σ = 1.5) and over channels, with scikit-image. Images have values
    in [0, 1] and at least 11 pixels per side.
    Differentiable in: nothing.
    """
    from skimage.metrics import structural_similarity

    if min(image.shape[:2]) < SSIM_WINDOW:
        raise InputError(f"ssim: images should have at least 11 × 11 pixels, got {list(image.shape[:2])}")
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
