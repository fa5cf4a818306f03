"""Densities along rays, from the front to the back, as far as light comes."""

import itertools
import math
import sys
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.render.sample import RaySamples


def density_with_early_termination(
    density_of: Callable[[Tensor, Tensor], Tensor], samples: RaySamples, *, rounds: Sequence[int], stop: float
) -> Float[Tensor, " samples"]:
    """Ask for the densities of samples that light still comes from; others have 0.

    After so many samples of a ray as `rounds` say, it is asked whether more light than `stop` comes from behind them;
    only then is it looked at any further.

    density_of: returns the densities of samples, of which it is told the numbers, and those of their rays.
    """
    assert samples.offsets is not None
    begins, counts = samples.offsets[:-1], samples.offsets.diff()
    density, depth = torch.zeros_like(samples.distances), samples.distances.new_zeros(len(counts))
    for first, last in itertools.pairwise((0, *rounds, sys.maxsize)):
        lit = ((counts > first) & (depth < -math.log(stop))).nonzero()[:, 0]
        if len(lit) == 0:
            break
        due, ray = _ranges(begins[lit] + first, (counts[lit] - first).clamp(max=last - first), lit)
        density[due] = density_of(due, ray)
        depth.index_add_(0, ray, density[due] * samples.lengths[due])
    return density


def _ranges(begins: Tensor, counts: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers from each beginning on, so many, one range after another; and the owner of each."""
    before = counts.cumsum(0) - counts
    numbers = torch.arange(int(counts.sum()), device=counts.device)
    return numbers + (begins - before).repeat_interleave(counts), owners.repeat_interleave(counts)
