"""Known shapes for benchmarks: random faces, and bodies of a generated linear model, scanned from one side."""

import math

import numpy as np
import torch
from torch import Tensor

from unrender import Camera, LinearShapeModel, Mesh, PointCloud, linear_shape, marching_cubes, rasterize
from unrender.geometry.rotations import random_rotations

JOINTS = {
    "pelvis": (0.0, 0.95, 0.0), "chest": (0.0, 1.35, 0.0), "head": (0.0, 1.66, 0.02),
    "shoulder": (0.19, 1.40, 0.0), "elbow": (0.42, 1.22, 0.0), "hand": (0.62, 1.05, 0.03),
    "hip": (0.10, 0.92, 0.0), "knee": (0.14, 0.50, 0.01), "ankle": (0.17, 0.09, 0.0), "toe": (0.19, 0.04, 0.16),
}  # fmt: skip
"""Positions in meters; those with x > 0 have a mirror image."""
BONES = [
    ("pelvis", "chest", 0.13), ("chest", "head", 0.065), ("head", "head", 0.11), ("chest", "shoulder", 0.075),
    ("shoulder", "elbow", 0.05), ("elbow", "hand", 0.042), ("pelvis", "hip", 0.1), ("hip", "knee", 0.075),
    ("knee", "ankle", 0.052), ("ankle", "toe", 0.042),
]  # fmt: skip
BLEND = 0.02
"""Width of the blend between bones, in meters."""


def body_model(resolution: float = 0.025) -> LinearShapeModel:
    """Generate a body from capsules, with components for proportions (identity) and for small bends (expression)."""
    mesh = body_mesh(resolution)
    v = mesh.vertices
    x, y, z = v.unbind(1)
    side = x.sign()
    zero = torch.zeros_like(x)
    arm = torch.sigmoid((x.abs() - 0.2) / 0.04) * torch.sigmoid((y - 0.9) / 0.05)
    leg = torch.sigmoid((0.9 - y) / 0.05)
    head = torch.sigmoid((y - 1.52) / 0.03)
    torso = torch.exp(-(((y - 1.15) / 0.2) ** 2)) * (1 - arm)
    identity = [
        torch.stack([0.03 * x, 0.05 * (y - 0.95), 0.03 * z], 1),  # height
        torch.stack([0.10 * x, zero, 0.12 * z], 1) * torso[:, None],  # girth
        torch.stack([0.025 * side * torch.sigmoid((x.abs() - 0.15) / 0.03), zero, zero], 1),  # shoulders
        torch.stack([zero, 0.05 * (y - 0.9) * leg, zero], 1),  # length of the legs
        torch.stack([0.08 * (x - 0.2 * side), zero, 0.08 * z], 1) * arm[:, None],  # length of the arms
        torch.stack([0.08 * x, 0.06 * (y - 1.6), 0.1 * z], 1) * head[:, None],  # size of the head
        torch.stack([zero, zero, 0.02 * torch.exp(-(((y - 1.05) / 0.12) ** 2)) * (z > 0)], 1),  # belly
        torch.stack([0.012 * side, zero, zero], 1) * leg[:, None],  # width of the hips
    ]
    expression = []
    for sign in (1.0, -1.0):
        own = (x * sign > 0).to(v)
        bend = torch.sigmoid((x.abs() - 0.42) / 0.03) * own * arm
        raised = arm * own * (x.abs() - 0.19).clamp(min=0)
        stepped = leg * own * (0.92 - y).clamp(min=0)
        expression += [
            torch.stack([zero, 0.35 * raised, zero], 1),
            torch.stack([zero, zero, 0.45 * raised], 1),
            torch.stack([zero, zero, 0.5 * bend * (x.abs() - 0.42).clamp(min=0)], 1),
            torch.stack([zero, zero, 0.25 * stepped], 1),
        ]
    expression += [
        torch.stack([zero, zero, 0.25 * (y - 1.55).clamp(min=0) * head], 1),
        torch.stack([0.25 * (y - 1.55).clamp(min=0) * head, zero, zero], 1),
    ]
    return LinearShapeModel(
        mesh.vertices, mesh.faces, torch.stack(identity), torch.stack(expression), torch.ones(8).double()
    )


def body_mesh(resolution: float) -> Mesh:
    """Return the surface of smoothly joined capsules."""
    low, high = np.array([-0.8, -0.1, -0.25]), np.array([0.8, 1.9, 0.35])
    axes = [np.arange(a, b, resolution) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    total = np.zeros(points.shape[:3])
    for first, second, radius in BONES:
        for sign in (1, -1):
            a, b = (np.array(JOINTS[name]) * (sign, 1, 1) for name in (first, second))
            along = np.clip(((points - a) @ (b - a)) / max((b - a) @ (b - a), 1e-9), 0, 1)
            distance = np.linalg.norm(points - a - along[..., None] * (b - a), axis=-1) - radius
            total += np.exp(-distance / BLEND)
    values = torch.from_numpy(BLEND * np.log(total + 1e-30))
    mesh = marching_cubes(values.permute(2, 1, 0), 0.0)
    return Mesh(mesh.vertices.double() * resolution + torch.from_numpy(low), mesh.faces)


def random_coefficients(
    model: LinearShapeModel, generator: torch.Generator, active: float
) -> tuple[Tensor, Tensor]:
    """Draw standard normal identities, and expressions of which a fraction is active, uniformly in [0, 1]."""
    identity = torch.randn(len(model.identity), generator=generator, dtype=torch.float64)
    uniform, chosen = torch.rand(2, len(model.expression), generator=generator, dtype=torch.float64)
    return identity, uniform * (chosen < active)


def scan_from_front(
    mesh: Mesh, count: int, noise: float, generator: torch.Generator, outliers: float = 0.0
) -> tuple[PointCloud, Tensor]:
    """Return points that a distant camera on the z axis sees, and which vertices it sees.

    noise: standard deviation, relative to the height of the mesh. outliers: fraction, uniform in the bounding box.
    """
    low, high = mesh.vertices.aminmax(dim=0)
    height = float((high - low)[1])
    center = (low + high) / 2
    size = math.ceil(math.sqrt(8 * count))
    eye = center + center.new_tensor([0.0, 0.0, 20.0 * height])
    camera = Camera.look_at(eye, center, fov_degrees=3.2, height=size, width=size).to(torch.float64)
    fragments = rasterize(mesh, camera)
    hit = fragments.face_ids[..., 0] >= 0
    corners = mesh.vertices[mesh.faces[fragments.face_ids[..., 0][hit]]]
    points = (corners * fragments.barycentric[..., 0, :][hit][..., None]).sum(1)
    points = points[torch.randperm(len(points), generator=generator)[:count]]
    points = points + noise * height * torch.randn(points.shape, generator=generator, dtype=torch.float64)
    stray = int(outliers * len(points))
    box = torch.rand(stray, 3, generator=generator, dtype=torch.float64) * (high - low) + low
    return PointCloud(torch.cat([points, box])), visible_vertices(mesh, camera, fragments.depth, height)


def visible_vertices(mesh: Mesh, camera: Camera, depth: Tensor, height: float) -> Tensor:
    """Say which vertices are not hidden behind the depth of a rendering."""
    x, y, z = camera.project(mesh.vertices).unbind(-1)
    column, row = x.floor().long(), y.floor().long()
    inside = (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
    nearest = depth[..., 0][row.clamp(0, camera.height - 1), column.clamp(0, camera.width - 1)]
    return inside & (nearest > 0) & (z < nearest + 0.005 * height)


def random_similarity(generator: torch.Generator, size: float) -> tuple[Tensor, Tensor, float]:
    """Draw a rotation, a translation of the order of a size, and a scale from 1/30 to 30."""
    rotation = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    scale = float(30 ** (2 * torch.rand(1, generator=generator).double() - 1))
    return rotation, 3 * size * torch.randn(3, generator=generator, dtype=torch.float64), scale


def random_shape(
    model: LinearShapeModel, generator: torch.Generator, active: float
) -> tuple[Mesh, Tensor, Tensor]:
    """Draw a mesh of a linear model with its coefficients."""
    identity, expression = random_coefficients(model, generator, active)
    return linear_shape(model, identity, expression), identity, expression
