"""Rendering of Gaussians that are projected to the image and sorted: 3D Gaussian splatting, without gradients."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.kernels._dispatch import implementation
from unrender.kernels.splat_gaussians import reference


class SplatImage(NamedTuple):
    """What Gaussians render to."""

    color: Float[Tensor, "height width 3"]
    """Composited on black."""
    opacity: Float[Tensor, "height width"]
    """Sum of the weights, in [0, 1]."""
    distance: Float[Tensor, "height width"]
    """Weighted mean of the distances; 0 where nothing is visible."""


class SplatWeights(NamedTuple):
    """The Gaussians that contribute to each pixel, front to back; those of pixel i are offsets[i] to offsets[i + 1]."""

    gaussian_ids: Int[Tensor, " contributions"]
    weights: Float[Tensor, " contributions"]
    offsets: Int[Tensor, " bounds"]
    """Pixels are in rows from the top left."""


@torch.no_grad()
@checked
def splat_gaussians(
    means: Float[Tensor, "gaussians 2"],
    covariances: Float[Tensor, "gaussians 3"],
    opacities: Float[Tensor, " gaussians"],
    distances: Float[Tensor, " gaussians"],
    gradients: Float[Tensor, "gaussians 2"],
    colors: Float[Tensor, "gaussians 3"],
    *,
    height: int,
    width: int,
) -> SplatImage:
    """Composite projected Gaussians, sorted front to back, to an image.

    means: in pixels. covariances: xx, xy and yy of the projected Gaussians, in pixels². opacities: in [0, 1].
    distances: along the ray through the mean. gradients: change of that distance per pixel in x and y.
    Alphas below 1/255 are left out, those above 0.99 limited, and a ray ends before its transmittance falls below
    10⁻⁴, as in 3D Gaussian splatting. Gaussians are evaluated wherever their alpha is at least 1/255, not within three
    standard deviations only, so that the result does not depend on tiles. Computed in single precision, except by the
    reference.

    Differentiable in: nothing.
    Source: Kerbl et al. 2023, section 4, eq. 3.
    """
    _check_size("splat_gaussians", height, width)
    inputs = (means, covariances, opacities, distances, gradients, colors)
    fast = implementation("splat_gaussians", means.device)
    if fast is None:
        return SplatImage(*reference.forward(*inputs, height, width))
    image = fast.forward(*(values.float() for values in inputs), height, width)
    return SplatImage(*(values.to(means.dtype) for values in image))


@torch.no_grad()
@checked
def splat_weights(
    means: Float[Tensor, "gaussians 2"],
    covariances: Float[Tensor, "gaussians 3"],
    opacities: Float[Tensor, " gaussians"],
    *,
    height: int,
    width: int,
) -> SplatWeights:
    """Return the weights with which `splat_gaussians` composites: use it for statistics of each ray.

    Differentiable in: nothing.
    """
    _check_size("splat_weights", height, width)
    inputs = (means, covariances, opacities)
    fast = implementation("splat_gaussians", means.device)
    if fast is None:
        return SplatWeights(*reference.weights(*inputs, height, width))
    ids, weights, offsets = fast.weights(*(values.float() for values in inputs), height, width)
    return SplatWeights(ids, weights.to(means.dtype), offsets)


def _check_size(function: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise InputError(f"{function}: `height` and `width` should be at least 1, got {height} and {width}")
