"""Backgrounds of transparent images in training."""

import pytest
import torch

from unrender.data.pixels import PixelBatch
from unrender.geometry.rays import Rays
from unrender.training.targets import training_targets


def transparent(count: int) -> PixelBatch:
    rays = Rays(torch.zeros(count, 3), torch.ones(count, 3))
    numbers = torch.zeros(count, dtype=torch.long)
    return PixelBatch(rays, torch.rand(count, 3), torch.zeros(count), numbers, numbers == 0)


@pytest.mark.parametrize(
    ("kind", "expected"), [("auto", 0.5), ("random", 0.0), ("white", 1.0), ("black", 0.0)]
)
def test_a_fraction_of_rays_ends_on_white(kind, expected):
    generator = torch.Generator().manual_seed(0)
    target, behind = training_targets(transparent(4000), torch.zeros(3), kind, generator, 0.5)
    assert torch.equal(target, behind)
    assert abs(float((behind == 1).all(-1).float().mean()) - expected) < 0.03
