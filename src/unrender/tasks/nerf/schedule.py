"""How the training of a NeRF changes as it progresses: one frozen value, which tests shorten."""

import dataclasses

from unrender.training.schedule import Schedule, Stages


@dataclasses.dataclass(frozen=True)
class NerfSchedule:
    """Resolutions, learning rates and pruning, by progress from 0 to 1 or by steps."""

    loop: Schedule = Schedule()
    final_learning_rate: float = 0.03
    """Fraction of the first learning rate that is left in the end."""
    occupancy_resolution: int = 128
    """Cells along the side of the occupancy grid, at first."""
    refine_occupancy_at: float = 0.25
    """Progress at which the occupancy grid gets cells of half the size."""
    samples_per_side: Stages[int] = ((0.0, 128), (0.1, 256), (0.4, 512))
    """Samples along the side of the scene box."""
    samples_per_side_unbounded: Stages[int] = ((0.0, 64), (0.1, 128), (0.4, 256))
    """The same in unbounded space, for the inner cube."""
    finest_level: int = 1024
    """Resolution of the hash grid's finest level; twice as much in unbounded space."""
    max_rays: int = 65536
    """Rays in a step of the hash model, at most."""
    mlp_rays: int = 1024
    """Rays in a step of the other models."""
    pruning_steps: int = 100
    """Steps between two prunings of the occupancy grid, at least."""
    pruning_samples: int = 16
    """Samples for each occupied cell between two prunings, at least."""
    min_weight: float = 0.05
    """Weight of a sample on its ray above which its cell stays, and the cell's neighbors."""
    min_weight_unbounded: float = 0.02
    """The same in unbounded space."""
