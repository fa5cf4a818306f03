"""Reference implementation of Gaussian splatting: every Gaussian is evaluated at every pixel."""

import torch
from torch import Tensor

from unrender.kernels._pixels import PAIRS

MIN_ALPHA, MAX_ALPHA, MIN_TRANSMITTANCE = 1 / 255, 0.99, 1e-4
"""Smaller alphas are 0, larger ones are limited, and a ray ends before its transmittance falls below the last."""


def forward(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    distances: Tensor,
    gradients: Tensor,
    colors: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return color Σ wᵢ cᵢ, opacity Σ wᵢ and distance Σ wᵢ tᵢ / Σ wᵢ of each pixel, with the weights of `weights`.

    tᵢ = distancesᵢ + gradientsᵢ · (p − meansᵢ) is where the Gaussian lies along the ray through the pixel center p.
    """
    parts = []
    for pixels in _chunks(means, height, width):
        w = _weights(means, covariances, opacities, pixels)
        offsets = pixels[:, None] - means
        t = torch.where(w > 0, distances + (gradients * offsets).sum(-1), 0)
        total = w.sum(1)
        parts.append((w @ colors, total, (w * t).sum(1) / torch.where(total > 0, total, 1)))
    color, opacity, distance = (torch.cat(each) for each in zip(*parts, strict=True))
    return color.view(height, width, -1), opacity.view(height, width), distance.view(height, width)


def weights(
    means: Tensor, covariances: Tensor, opacities: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return index and weight of the Gaussians at each pixel, front to back, and the offset of each pixel.

    alphaᵢ  = min(0.99, opacityᵢ · exp(−½ (p − meansᵢ)ᵀ Σᵢ⁻¹ (p − meansᵢ)))      0 below 1/255
    weightᵢ = alphaᵢ Tᵢ,  Tᵢ = Π_{j<i} (1 − alphaⱼ)                              0 from Tᵢ (1 − alphaᵢ) < 10⁻⁴ on

    Gaussians are sorted front to back; those with a covariance Σ that is not positive definite are left out.
    """
    found = [_weights(means, covariances, opacities, pixels) for pixels in _chunks(means, height, width)]
    ids, values, counts = [], [], []
    for w in found:
        pixel, gaussian = (w > 0).nonzero(as_tuple=True)
        ids.append(gaussian.to(torch.int32))
        values.append(w[pixel, gaussian])
        counts.append((w > 0).sum(1))
    counted = torch.cat(counts).cumsum(0)
    return torch.cat(ids), torch.cat(values), torch.cat([counted.new_zeros(1), counted])


def _weights(means: Tensor, covariances: Tensor, opacities: Tensor, pixels: Tensor) -> Tensor:
    xx, xy, yy = covariances.double().unbind(-1)
    determinant = xx * yy - xy * xy
    positive = (determinant > 0) & (xx > 0) & determinant.isfinite()
    a, b, c = (
        torch.where(positive, entry / torch.where(positive, determinant, 1), 0).to(means.dtype)
        for entry in (yy, -xy, xx)
    )
    dx, dy = (pixels[:, None] - means).unbind(-1)
    alpha = (opacities * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)).clamp(max=MAX_ALPHA)
    alpha = torch.where(positive & (alpha >= MIN_ALPHA), alpha, 0)
    after = (1 - alpha).cumprod(1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    return torch.where(after >= MIN_TRANSMITTANCE, alpha * before, 0)


def _chunks(means: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    rows, columns = (torch.arange(n, dtype=means.dtype, device=means.device) + 0.5 for n in (height, width))
    centers = torch.cartesian_prod(rows, columns).flip(-1)
    chunks: tuple[Tensor, ...] = centers.split(max(PAIRS // max(len(means), 1), 1))
    return chunks
