"""Schedules of the refinement and pruning of fields during training, by progress from 0 to 1 and by steps."""

import dataclasses
from typing import TypeVar

from unrender.errors import InputError

Value = TypeVar("Value")
Stages = tuple[tuple[float, Value], ...]
"""Values, each with the progress from which on it holds; the first one from 0."""
AnySchedule = TypeVar("AnySchedule")


@dataclasses.dataclass(frozen=True)
class HashSchedule:
    """When a hash field refines its samples, and prunes its occupancy grid."""

    occupancy_resolution: int = 128
    """Initial number of cells along the side of the occupancy grid."""
    split_at: float = 0.25
    """Progress at which the cells are halved."""
    samples_per_side: Stages[int] = ((0.0, 128), (0.1, 256), (0.4, 512))
    """Samples along the side of the scene box."""
    samples_per_side_contracted: Stages[int] = ((0.0, 64), (0.1, 128), (0.4, 256))
    """The same in contracted space, for the inner cube."""
    finest_level: int = 1024
    """Resolution of the finest level of the hash grid; twice as much in contracted space."""
    max_rays: int = 65536
    """Rays of a step, at most."""
    pruning_steps: int = 100
    """Steps between two prunings, at least."""
    pruning_samples: int = 16
    """Samples for each occupied cell between two prunings, at least."""
    min_weight: float = 0.05
    """Weight on a ray above which a cell is kept; its neighbors are kept, too."""
    min_weight_contracted: float = 0.02
    """The same in contracted space."""


@dataclasses.dataclass(frozen=True)
class NerfSchedule:
    """Rays per step of the NeRF paper's model."""

    rays: int = 1024
    """A step of a large network is long."""


VOXELS_PER_SPLIT = 3
"""Factor by which the number of voxels grows, at least, where all are split into 8 and most of them are pruned."""


@dataclasses.dataclass(frozen=True)
class VoxelSchedule:
    """When voxels are pruned and split."""

    coarsening: Stages[int] = ((0.0, 4), (0.02, 2), (0.12, 1))
    """Size of voxels relative to the final grid; each stage halves it. The number of rays per step is divided by it."""
    pruning_steps: int = 100
    """Steps between two prunings."""
    pruning_fraction: float = 0.2
    """Largest fraction of all steps between two prunings, so that short trainings reach the full resolution."""
    min_weight: float = 0.02
    """Weight on a ray above which a voxel is kept; its neighbors are kept, too."""

    def growth(self, degree: int) -> float:
        """Return about by how much voxels and their harmonics grow, at least, from one color to those of a degree."""
        splits, coefficients = len(self.coarsening) - 1, 1 + 3 * (degree + 1) ** 2
        return float(VOXELS_PER_SPLIT**splits * coefficients / 4)


def stage_at(stages: Stages[Value], progress: float) -> Value:
    """Return the value of the stage that contains `progress`."""
    return [value for start, value in stages if progress >= start][-1]


def schedule_of(given: object, default: AnySchedule) -> AnySchedule:
    """Return the schedule that was given, or the default; InputError if it is that of another field type."""
    if given is None:
        return default
    if not isinstance(given, type(default)):
        raise InputError(f"`schedule.field` should be a {type(default).__name__}, got {type(given).__name__}")
    return given
