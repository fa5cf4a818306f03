"""A small linear shape model that no rotation maps to itself, and scans of it from one side."""

import functools

import torch
from torch import Tensor

from unrender import LinearShapeModel, Mesh, PointCloud, ico_sphere, linear_shape, sample_points_from_mesh
from unrender.geometry.rotations import so3_exp_map


@functools.cache
def lopsided_model() -> LinearShapeModel:
    """Return an ellipsoid with a nose and a bulge; identities change its proportions, expressions move the nose."""
    sphere = ico_sphere(3).to(torch.float64)
    x, y, z = sphere.vertices.unbind(1)
    zero = torch.zeros_like(x)
    nose = torch.exp(-((x**2 + (y - 0.2) ** 2 + (z - 1) ** 2) / 0.12))
    bulge = torch.exp(-(((x - 0.8) ** 2 + (y - 0.6) ** 2 + z**2) / 0.2))
    mean = torch.stack([0.8 * x + 0.3 * bulge, 1.3 * y, 0.7 * z + 0.5 * nose], 1)
    identity = torch.stack(
        [torch.stack([0.06 * x, zero, zero], 1), torch.stack([zero, 0.06 * bulge, zero], 1)]
    )
    expression = torch.stack(
        [torch.stack([zero, 0.3 * nose, zero], 1), torch.stack([zero, zero, 0.3 * nose], 1)]
    )
    ones = torch.ones(2, dtype=torch.float64)
    return LinearShapeModel(mean, sphere.faces, identity, expression, ones, expression_names=("up", "out"))


IDENTITY, EXPRESSION = (torch.tensor(values, dtype=torch.float64) for values in ((1.0, -0.8), (0.7, 0.4)))
ROTATION = so3_exp_map(torch.tensor([0.4, 2.0, -0.7], dtype=torch.float64))
SCALE, SHIFT = 120.0, torch.tensor([300.0, -500.0, 80.0], dtype=torch.float64)


def true_mesh(expression: Tensor = EXPRESSION) -> Mesh:
    """Return a shape of the model in the frame of its scans."""
    mesh = linear_shape(lopsided_model(), IDENTITY, expression)
    return mesh.replace(vertices=SCALE * mesh.vertices @ ROTATION.T + SHIFT)


def scan(mesh: Mesh, count: int = 3000, noise: float = 0.002, seed: int = 0) -> PointCloud:
    """Return points of the side that faces the z axis of the model, with noise relative to its size."""
    generator = torch.Generator().manual_seed(seed)
    samples = sample_points_from_mesh(mesh, 2 * count, generator=generator)
    front = samples.normals @ (ROTATION @ torch.tensor([0.3, 0.0, 1.0], dtype=torch.float64)) > 0
    points = samples.points[front]
    size = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    return PointCloud(
        points + noise * size * torch.randn(points.shape, generator=generator, dtype=torch.float64)
    )
