"""A sphere around a rod has a long way to fall, and edges may vanish on it."""

import torch

from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import ico_sphere
from unrender.tasks.mesh.fit_mesh import FitMesh, fit_mesh


def test_a_sphere_falls_onto_a_rod() -> None:
    ball = ico_sphere(3)
    rod = ball.replace(vertices=ball.vertices * torch.tensor([1.0, 0.15, 0.15]))
    points = sample_points_from_mesh(rod, 600, generator=torch.Generator().manual_seed(0)).points
    for step in fit_mesh(PointCloud(points), FitMesh(start="sphere", smoothness=1e-8, steps=20)):
        assert step.mesh.vertices.isfinite().all()
