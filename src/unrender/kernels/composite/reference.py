"""Emission and absorption along rays, by the definition."""

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
    """Let light through matter, sample after sample from the eye.

    T_0      = 1
    alpha_i  = 1 − exp(−density_i · length_i)     or alpha_i = density_i where there are no lengths
    weight_i = T_i · alpha_i                      where |T_i| ≥ `stop_below`, else 0, and the light stays as it is
    T_i+1    = T_i · (1 − alpha_i)

    Samples of all rays follow one another; those of ray r are offsets[r] to offsets[r + 1]. Returns the weights, and
    per ray Σ weight, T after the last sample, Σ weight · color, and Σ weight · distance.
    """
    through = 1 - density if lengths is None else torch.exp(-density * lengths)
    alphas = density if lengths is None else -torch.expm1(-density * lengths)
    through, there = by_ray(through, offsets)
    alphas, color = (by_ray(values, offsets)[0] for values in (alphas, color))
    entering = torch.cat([torch.ones_like(through[:, :1]), through], 1).cumprod(1)[:, :-1].detach()
    seen = there & (entering.abs() >= stop_below)
    light = torch.cat([torch.ones_like(through[:, :1]), torch.where(seen, through, 1)], 1).cumprod(1)
    weights = torch.where(seen, light[:, :-1] * alphas, 0)
    return (
        weights[there],
        weights.sum(1),
        light[:, -1],
        (weights[..., None] * color).sum(1),
        weights.new_zeros(len(weights))
        if distances is None
        else (weights * by_ray(distances, offsets)[0]).sum(1),
    )


def by_ray(values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Give each ray a row, as long as the longest; tell which places are filled."""
    counts = offsets.diff()
    longest = int(counts.max()) if len(counts) else 0
    steps = torch.arange(longest, device=offsets.device)
    there = steps < counts[:, None]
    if len(counts) * longest == len(values):
        return values.reshape(len(counts), longest, *values.shape[1:]), there
    filled = values.new_zeros(len(counts), longest, *values.shape[1:])
    return filled.index_put((there.nonzero(as_tuple=True)), values), there
