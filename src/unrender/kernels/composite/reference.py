"""Reference implementation of volume rendering along rays."""

import torch
from torch import Tensor


def forward(
    density: Tensor,
    lengths: Tensor | None,
    color: Tensor,
    distances: Tensor | None,
    offsets: Tensor,
    stop_below: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Composite samples from near to far.

    T_0      = 1
    alpha_i  = 1 − exp(−density_i · length_i)     or alpha_i = density_i without lengths
    weight_i = T_i · alpha_i                      where |T_i| ≥ `stop_below`, else 0, and T_i+1 = T_i
    T_i+1    = T_i · (1 − alpha_i)

    Samples of all rays are packed; those of ray r are offsets[r] to offsets[r + 1]. Returns the weights, and per ray
    Σ weight, T behind the last sample, Σ weight · color, and Σ weight · distance.
    """
    through = 1 - density if lengths is None else torch.exp(-density * lengths)
    alphas = density if lengths is None else -torch.expm1(-density * lengths)
    through, valid = pad_rays(through, offsets)
    alphas, color = (pad_rays(values, offsets)[0] for values in (alphas, color))
    entering = torch.cat([torch.ones_like(through[:, :1]), through], 1).cumprod(1)[:, :-1].detach()
    visible = valid & (entering.abs() >= stop_below)
    transmittance = torch.cat([torch.ones_like(through[:, :1]), torch.where(visible, through, 1)], 1).cumprod(
        1
    )
    weights = torch.where(visible, transmittance[:, :-1] * alphas, 0)
    return (
        weights[valid],
        weights.sum(1),
        transmittance[:, -1],
        (weights[..., None] * color).sum(1),
        weights.new_zeros(len(weights))
        if distances is None
        else (weights * pad_rays(distances, offsets)[0]).sum(1),
    )


def pad_rays(values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Pad packed values to one row per ray; also return which entries are valid."""
    counts = offsets.diff()
    longest = int(counts.max()) if len(counts) else 0
    steps = torch.arange(longest, device=offsets.device)
    valid = steps < counts[:, None]
    if len(counts) * longest == len(values):
        return values.reshape(len(counts), longest, *values.shape[1:]), valid
    padded = values.new_zeros(len(counts), longest, *values.shape[1:])
    return padded.index_put((valid.nonzero(as_tuple=True)), values), valid
