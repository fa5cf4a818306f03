"""Normals of noisy points from winding numbers."""

import torch

from unrender import ico_sphere
from unrender.geometry.winding_number import smooth_normals


def test_smoothed_normals_are_closer_to_the_truth() -> None:
    truth = ico_sphere(3).vertices.double()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *truth.shape, generator=generator, dtype=torch.float64)
    points = truth + 0.01 * noise[0]
    normals = torch.nn.functional.normalize(truth + 0.3 * noise[1], dim=1)
    areas = torch.full((len(truth),), 4 * torch.pi / len(truth), dtype=torch.float64)
    smooth = smooth_normals(points, normals, areas, width=0.2)
    assert smooth.dtype == points.dtype
    errors = [float((n - truth).norm(dim=1).mean()) for n in (normals, smooth)]
    assert errors[1] < 0.3 * errors[0]
