from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "../shared/golden"


@pytest.fixture
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Reference arrays computed with PyTorch3D 0.7.9."""

    def load(name: str) -> dict[str, Tensor]:
        path = GOLDEN / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"no reference arrays {path.name}")
        return {key: torch.from_numpy(value) for key, value in np.load(path).items()}

    return load


@pytest.fixture
def assert_same_bits() -> Iterable[Callable[[Callable[[], Tensor]], None]]:
    """Run a function with one and with two threads, and compare every bit."""
    threads = torch.get_num_threads()

    def check(function: Callable[[], Tensor]) -> None:
        results = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            results.append(function())
        assert all(torch.equal(results[0], other) for other in results[1:])

    yield check
    torch.set_num_threads(threads)
