"""How the training of voxels changes as it progresses: one frozen value, which tests shorten."""

import dataclasses

from unrender.training.schedule import Schedule, Stages


@dataclasses.dataclass(frozen=True)
class VolumeSchedule:
    """Resolutions, learning rates and pruning, by progress from 0 to 1 or by steps."""

    loop: Schedule = Schedule()
    coarsening: Stages[int] = ((0.0, 4), (0.02, 2), (0.12, 1))
    """How many times as wide as in the end voxels are; each stage halves them. Steps have fewer rays by as much."""
    density_learning_rate: float = 0.3
    """Adam's, at first, for the logarithm of the density."""
    color_learning_rate: float = 0.02
    """Adam's, at first, for the coefficients of the color, and for the background."""
    final_learning_rate: float = 0.1
    """Fraction of the first learning rates that is left in the end."""
    pruning_steps: int = 100
    """Steps between two prunings."""
    pruning_fraction: float = 0.2
    """Fraction of all steps between two prunings, at most: a short training reaches the full resolution too."""
    min_weight: float = 0.02
    """Weight on a ray above which a voxel stays, and its neighbors."""
