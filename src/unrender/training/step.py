"""What a training yields after each step."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

from unrender.fields.trainable import TrainableField

AnyField = TypeVar("AnyField", bound=TrainableField, covariant=True)


class Measured(NamedTuple):
    """What one step measured, on the field's device; later steps do not change it."""

    color: Tensor
    """Mean squared error of colors: 0-d, detached."""
    constant: Tensor
    """The same for the better of two constant images: the mean color, and the background alone."""
    is_finite: Tensor
    """Whether the loss and all gradients were finite: 0-d bool."""
    num_samples: int | None
    """Samples of the field in the step; None where they are not counted."""


class Losses(Mapping[str, float]):
    """The losses of a step by name, copied from the device when first read: each copy waits for the step to finish.

    color: mean squared error of colors; psnr: the same in decibels.
    """

    def __init__(self, color: Tensor | float) -> None:
        self._color = color

    def __getitem__(self, name: str) -> float:
        if name not in ("color", "psnr"):
            raise KeyError(name)
        self._color = float(self._color)
        return self._color if name == "color" else -10 * math.log10(max(self._color, 1e-10))

    def __iter__(self) -> Iterator[str]:
        return iter(("color", "psnr"))

    def __len__(self) -> int:
        return 2

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclasses.dataclass(frozen=True)
class TrainingStep(Generic[AnyField]):
    """The state of a training after one step."""

    index: int
    """Number of this step; the first one is 1."""
    last_index: int
    """Number of the last step; with a budget in minutes, an estimate."""
    losses: Mapping[str, float]
    """color: mean squared error of this step's rays, before the step; psnr: the same in decibels. On a GPU, reading
    them waits for the step: read them every few steps."""
    num_samples: int | None
    """Samples of the field in this step; None for voxels, which do not count them."""
    seconds: float
    """Training time so far, loading included, also before it was resumed; time between steps does not count."""
    result: AnyField
    """The field as it is now; later steps change it."""
    held_out_psnr: float | None = None
    """PSNR of patches of test views, if they were evaluated after this step."""
    exposures: Tensor | None = None
    """Factor of each training image and channel by which it is brighter than the scene, where that is optimized."""
