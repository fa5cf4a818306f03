"""Ray marching. What PyTorch3D calls density is alpha: the absorbed fraction of light."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.errors import InputError
from unrender.kernels.composite import composite_alphas

TOLERANCE = 1e-4
"""Tolerance of alphas outside of 0 to 1, for rounding, before a warning."""


class EmissionAbsorptionRaymarcher(nn.Module):
    """Composite Σ weight · feature, with weight_i = alpha_i Π (1 − alpha_j) over the samples in front.

    With `surface_thickness` above 1, the last samples before i do not occlude it.
    """

    def __init__(self, surface_thickness: int = 1) -> None:
        super().__init__()
        self.surface_thickness = surface_thickness

    def forward(
        self, rays_densities: Tensor, rays_features: Tensor, eps: float = 1e-10, **kwargs: Any
    ) -> Tensor:
        """Return features and, last, opacity [..., D + 1] of alphas [..., P, 1] and features [..., P, D]."""
        alphas = check_alphas("EmissionAbsorptionRaymarcher", rays_densities, rays_features)
        if self.surface_thickness == 1:
            composited = composite_alphas(alphas, rays_features)
            assert composited.color is not None
            return torch.cat([composited.color, composited.opacity[..., None]], -1)
        light = (1 + eps - alphas).cumprod(-1)[..., : -self.surface_thickness]
        light = torch.cat([torch.ones_like(alphas[..., : self.surface_thickness]), light], -1)
        color = ((light * alphas)[..., None] * rays_features).sum(-2)
        return torch.cat([color, _opacity(alphas)], -1)


class AbsorptionOnlyRaymarcher(nn.Module):
    """Compute opacity only, without features."""

    def forward(self, rays_densities: Tensor, **kwargs: Any) -> Tensor:
        """Return the opacity [..., 1] of alphas [..., P, 1]."""
        return _opacity(check_alphas("AbsorptionOnlyRaymarcher", rays_densities, None))


def _opacity(alphas: Tensor) -> Tensor:
    return composite_alphas(alphas).opacity[..., None]


def check_alphas(where: str, densities: Tensor, features: Tensor | None) -> Tensor:
    """Return alphas without their last axis; raise InputError for other shapes, and warn about values out of range."""
    for given in (densities, features):
        if given is not None and not isinstance(given, Tensor):
            raise InputError(f"{where}: takes tensors, got {type(given).__name__}")
    fits = features is None or features.shape[:-1] == densities.shape[:-1]
    if densities.dim() < 2 or densities.shape[-1] != 1 or not fits:
        other = "" if features is None else f" and {list(features.shape)}"
        raise InputError(
            f"{where}: takes densities [..., P, 1] and features [..., P, D], got {list(densities.shape)}{other}"
        )
    low, high = (float(x) for x in densities.detach().aminmax()) if densities.numel() else (0.0, 0.0)
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        warnings.warn(
            f"{where}: densities are alphas in [0, 1], but range from {low:g} to {high:g}: images and gradients "
            "mean nothing there; a sigmoid, or 1 − exp(−x), keeps them within",
            stacklevel=4,
        )
    return densities[..., 0]


__getattr__ = refuse_unknown(__name__)
