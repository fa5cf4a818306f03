"""The window of a photo around the object."""

import torch

from unrender.geometry.camera import Camera
from unrender.tasks.pose.photo_alignment import Window


def test_the_area_has_the_same_bits_for_any_number_of_threads() -> None:
    size, before, areas = 256, torch.get_num_threads(), []
    coverage = torch.rand(size, size, generator=torch.Generator().manual_seed(0))
    camera = Camera(torch.ones(2), torch.zeros(2), torch.eye(4), size, size)
    window = Window(camera, coverage, torch.ones(size, size), torch.zeros(size, size, 3), None)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        areas.append(float(window.area))
    torch.set_num_threads(before)
    assert len(set(areas)) == 1
