"""Volume rendering along rays: the emission-absorption model."""

from types import ModuleType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrender._checked import checked
from unrender.errors import InputError, ShapeError
from unrender.kernels._dispatch import implementation
from unrender.kernels.composite import reference


class Composited(NamedTuple):
    """The result of volume rendering per ray, and the weight of each sample."""

    weights: Float[Tensor, "*batch samples"]
    """Weight of each sample: transmittance up to the sample times its alpha. In [0, 1]."""
    opacity: Float[Tensor, " *batch"]
    """Sum of the weights."""
    transmittance: Float[Tensor, " *batch"]
    """Transmittance behind the last sample: 1 − opacity."""
    color: Float[Tensor, "*batch channels"] | None
    """Σ weight · color, without background: premultiplied by the opacity."""
    distance: Float[Tensor, " *batch"] | None
    """Mean distance, Σ weight · distance / Σ weight; 0 where nothing is visible."""


@checked
def composite(
    density: Float[Tensor, "*batch samples"],
    lengths: Float[Tensor, "*batch samples"],
    color: Float[Tensor, "*batch samples channels"] | None = None,
    distances: Float[Tensor, "*batch samples"] | None = None,
    *,
    offsets: Int[Tensor, " bounds"] | None = None,
    stop_below: float = 0.0,
) -> Composited:
    """Composite samples along rays, ordered from near to far, with the emission-absorption model.

    weight_i = T_i · alpha_i with alpha_i = 1 − exp(−density_i · length_i) and T_i = Π_j<i (1 − alpha_j).
    Density ≥ 0 is the absorption coefficient per world unit, length the extent of the ray interval of a sample.

    With `offsets`, rays may have different numbers of samples in packed layout: the samples of ray r are offsets[r] to
    offsets[r + 1]. `stop_below` enables early ray termination: samples with a smaller transmittance are skipped, in the
    sums and the gradients alike.

    Example: `composite(field_density, lengths, field_color).color` for tensors [rays, samples] and
    [rays, samples, 3].

    Differentiable in: density, lengths, color, distances (not twice).
    Source: Max, Optical models for direct volume rendering, 1995, eq. 9; NeRF (Mildenhall et al., 2020), eq. 3.
    """
    return _composite("composite", density, lengths, color, distances, offsets, stop_below)


@checked
def composite_alphas(
    alphas: Float[Tensor, "*batch samples"],
    color: Float[Tensor, "*batch samples channels"] | None = None,
    distances: Float[Tensor, "*batch samples"] | None = None,
    *,
    offsets: Int[Tensor, " bounds"] | None = None,
    stop_below: float = 0.0,
) -> Composited:
    """Composite samples along rays by their alphas in [0, 1]; otherwise like `composite`.

    Gradients are exact for opaque samples (alpha 1), too.
    Differentiable in: alphas, color, distances (not twice).
    """
    return _composite("composite_alphas", alphas, None, color, distances, offsets, stop_below)


def _composite(
    where: str,
    density: Tensor,
    lengths: Tensor | None,
    color: Tensor | None,
    distances: Tensor | None,
    offsets: Tensor | None,
    stop_below: float,
) -> Composited:
    if not 0 <= stop_below < 1:
        raise InputError(
            f"{where}: `stop_below` should be a transmittance, 0 ≤ stop_below < 1, got {stop_below}"
        )
    rays = density.shape[:-1]
    if offsets is None:
        offsets = torch.arange(rays.numel() + 1, device=density.device) * density.shape[-1]
    else:
        check_offsets(where, offsets, density)
        rays = torch.Size([len(offsets) - 1])
    lengths, color, distances = (  # kernels are compiled for one precision
        None if t is None else t.to(density.dtype) for t in (lengths, color, distances)
    )
    given = (
        density.reshape(-1),
        None if lengths is None else lengths.reshape(-1),
        density.new_empty(density.numel(), 0) if color is None else color.reshape(-1, color.shape[-1]),
        None if distances is None else distances.reshape(-1),
        offsets,
        stop_below,
    )
    fast = implementation("composite", density.device)
    found = reference.forward(*given) if fast is None else _Composite.apply(fast, *given)
    weights, opacity, transmittance, total, distance = found
    return Composited(
        weights.view(density.shape),
        opacity.view(rays),
        transmittance.view(rays),
        None if color is None else total.view(*rays, color.shape[-1]),
        None if distances is None else mean_distance(distance, opacity).view(rays),
    )


def mean_distance(weighted_sum: Tensor, opacity: Tensor) -> Tensor:
    """Return Σ weight · distance / Σ weight; 0 where the opacity is too small for finite gradients.

    Differentiable in: weighted_sum, opacity.
    """
    visible = opacity > torch.finfo(opacity.dtype).tiny ** 0.5
    return torch.where(visible, weighted_sum / torch.where(visible, opacity, 1), 0)


def check_offsets(where: str, offsets: Tensor, samples: Tensor) -> None:
    """Raise an error unless `offsets` partition packed samples into rays."""
    if samples.dim() != 1:
        raise ShapeError(f"{where}: with `offsets`, samples should have one axis, got {list(samples.shape)}")
    ends = [int(offsets[0]), int(offsets[-1])] if len(offsets) else []
    if ends != [0, len(samples)] or bool((offsets.diff() < 0).any()):
        raise InputError(
            f"{where}: `offsets` should rise from 0 to the number of samples, {len(samples)}, one more than there "
            f"are rays; got {len(offsets)} from {ends[:1]} to {ends[1:]}"
        )


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fast: ModuleType, *given: Any) -> tuple[Tensor, ...]:
        ctx.fast, ctx.stop_below = fast, given[-1]
        ctx.save_for_backward(*given[:-1])
        ctx.set_materialize_grads(False)
        results: tuple[Tensor, ...] = fast.forward(*given)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:5]
        gradients = ctx.fast.backward(*ctx.saved_tensors, ctx.stop_below, grad_outputs, wanted)
        return (None, *gradients, None, None)
