import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does; read when torch is loaded

from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "shared/golden"

# the first example may wait for a kernel to be compiled; a suite that runs anywhere draws the same examples anywhere
hypothesis.settings.register_profile("unrender", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("unrender")


@pytest.fixture
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Reference arrays computed with PyTorch3D 0.7.9."""

    def load(name: str) -> dict[str, Tensor]:
        path = GOLDEN / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"no reference arrays {path.name}")
        return {key: torch.from_numpy(value) for key, value in np.load(path).items()}

    return load
