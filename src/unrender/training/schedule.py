"""When a training evaluates, saves and recovers."""

import dataclasses
from typing import Self

import torch

GPU_STEPS_BETWEEN_CHECKS = 16
"""On a GPU, the host does not wait for each step."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What the training loop does beside taking steps. Tests pass a shorter one."""

    evaluation_seconds: float = 20.0
    """Seconds between two evaluations on test views, at least."""
    evaluation_fraction: float = 0.05
    """Largest fraction of the time that is spent on evaluations."""
    first_checkpoint_seconds: float = 20.0
    """Seconds until the first checkpoint after that of the untrained field."""
    checkpoint_seconds: float = 20.0
    """Seconds between two checkpoints, at least: a killed training loses that, and the time that writing one takes."""
    checkpoint_fraction: float = 0.05
    """Largest fraction of the time for which training waits for checkpoints."""
    steps_between_checks: int = 1
    """Steps after which losses and gradients are checked for non-finite values. Each check waits for the device."""
    snapshot_steps: int = 500
    """Steps after which a good state is copied, to return to when values become non-finite."""
    max_recoveries: int = 3
    """How often training returns to a good state before it fails."""
    collapse_step: int = 300
    """Step after which the mean loss is compared to that of a constant image."""
    collapse_ratio: float = 0.95
    """Training has collapsed if the mean loss is above this fraction of a constant image's."""

    field: object = None
    """When the field refines and prunes itself: `HashSchedule`, `NerfSchedule`, `VoxelSchedule`, or what else the field
    takes; by default its own."""

    def on(self, device: torch.device) -> Self:
        """Return the schedule for a device."""
        if device.type == "cpu":
            return self
        checks = max(self.steps_between_checks, GPU_STEPS_BETWEEN_CHECKS)
        return dataclasses.replace(self, steps_between_checks=checks)
