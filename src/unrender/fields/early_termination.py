"""Early ray termination: densities along rays from front to back, until the transmittance is negligible."""

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
    """Return the densities of samples, evaluated only where the transmittance is above `stop`; 0 elsewhere.

    rounds: numbers of samples of a ray after which its transmittance is tested.
    density_of: returns the densities of samples, given their indices and those of their rays.
    """
    assert samples.offsets is not None
    starts, counts = samples.offsets[:-1], samples.offsets.diff()
    density, depth = torch.zeros_like(samples.distances), samples.distances.new_zeros(len(counts))
    for first, last in itertools.pairwise((0, *rounds, sys.maxsize)):
        active = ((counts > first) & (depth < -math.log(stop))).nonzero()[:, 0]
        if len(active) == 0:
            break
        chosen, ray = _ranges(
            starts[active] + first, (counts[active] - first).clamp(max=last - first), active
        )
        density[chosen] = density_of(chosen, ray)
        depth.index_add_(0, ray, density[chosen] * samples.lengths[chosen])
    return density


def _ranges(starts: Tensor, counts: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of ranges, given by first index and length, one range after another; and the owner of each."""
    before = counts.cumsum(0) - counts
    numbers = torch.arange(int(counts.sum()), device=counts.device)
    return numbers + (starts - before).repeat_interleave(counts), owners.repeat_interleave(counts)
