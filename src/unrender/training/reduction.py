"""Sum gradients over workers: the one place where trainings on several machines meet."""

from collections.abc import Iterable

from torch import Tensor


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each parameter's gradient by its sum over all workers; with one worker, leave it as it is."""
