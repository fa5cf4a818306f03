"""Local origins for large coordinates, such as UTM or ECEF, which single precision rounds to decimeters or meters.

Scenes with such coordinates are moved: cameras, points and fields are relative to an origin, a float64 offset that is
zero for all other scenes. Files always have the coordinates of the world.
"""

import math
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud

WorldOrigin = tuple[float, float, float]
"""World coordinates of the origin of a local frame with parallel axes: world = local + origin."""
ZERO: WorldOrigin = (0.0, 0.0, 0.0)
MAX_ROUNDING = 1e-5
"""Rounding of float32 coordinates, as a fraction of the extent of the points, from which an origin is subtracted."""
MIN_COORDINATE = 100.0
"""Smaller coordinates stay as they are: points that differ in rounding only, such as cameras at one position, too."""
Shape = TypeVar("Shape", bound=Mesh | PointCloud)


def choose_origin(points: Float[Tensor, "points 3"]) -> WorldOrigin:
    """Return a rounded origin near most points if float32 is too coarse for their coordinates, else zero.

    Half of the points may be far away from the others. A single point counts as an extent of 1.
    """
    values = points.detach().double().cpu().numpy()
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) == 0:
        return ZERO
    center = np.median(values, axis=0)
    extent = 2 * float(np.median(np.linalg.norm(values - center, axis=1))) or 1.0
    largest = np.abs(center).max()
    if largest < MIN_COORDINATE or np.spacing(np.float32(largest)) <= MAX_ROUNDING * extent:
        return ZERO
    x, y, z = (round(float(value), -math.floor(math.log10(extent))) for value in center)
    return x, y, z


def to_local(points: Float[Tensor, "*batch 3"], origin: WorldOrigin) -> Float[Tensor, "*batch 3"]:
    """Convert world coordinates, in float64 where they are large, to coordinates relative to an origin, in float32."""
    return (points.double() - torch.tensor(origin, dtype=torch.float64, device=points.device)).float()


def camera_to_local(camera: Camera, origin: WorldOrigin) -> Camera:
    """Convert a camera whose pose is in float64 and world coordinates to one relative to an origin, in float32."""
    pose = camera.camera_from_world.double().clone()
    pose[..., :3, 3] += pose[..., :3, :3] @ pose.new_tensor(origin)
    return camera.replace(camera_from_world=pose).to(torch.float32)


def to_world(shape: Shape, origin: WorldOrigin) -> Shape:
    """Convert a mesh or points relative to an origin to world coordinates, in float64 unless the origin is zero."""
    if origin == ZERO:
        return shape
    if isinstance(shape, Mesh):
        return shape.replace(vertices=shape.vertices.double() + shape.vertices.new_tensor(origin).double())
    return shape.replace(points=shape.points.double() + shape.points.new_tensor(origin).double())
