"""Images of reports."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unrender.reports import figures


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((40, 60), 100, (40, 60)), ((40, 60), 30, (20, 30)), ((41, 61), 30, (14, 21)), ((1, 7), 2, (1, 2))],
)
def test_thumbnails_fit_and_are_averages(shape, size, expected) -> None:
    image = torch.rand(*shape, 3, generator=torch.Generator().manual_seed(0))
    small = figures.thumbnail(image, size)
    assert tuple(small.shape) == (*expected, 3)
    assert max(small.shape[:2]) <= size
    factor = -(-max(shape) // size)
    torch.testing.assert_close(small[0, 0], image[:factor, :factor].mean((0, 1)))


def test_tensors_and_bytes_are_encoded_alike() -> None:
    image = torch.rand(4, 5, 3)
    for encoded in (figures.png(image), figures.png(figures.to_bytes(image))):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))), figures.to_bytes(image))


def test_a_turntable_goes_once_around() -> None:
    points = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    cameras = figures.turntable(points, 4)
    positions = torch.stack([camera.position for camera in cameras])
    torch.testing.assert_close(positions.mean(0)[[0, 2]], torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(positions[0, [0, 2]], -positions[2, [0, 2]])
    assert bool((positions[:, 1] > 0).all())
