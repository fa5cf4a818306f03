from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor


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
