"""Rendering of point clouds."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.points import PointCloud
from unrender.render.mesh import downsample

CHUNK = 65_536


def render_points(
    cloud: PointCloud,
    camera: Camera,
    radius: float = 1.5,
    *,
    color: tuple[float, float, float] = (0.16, 0.36, 0.60),
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    supersampling: int = 1,
) -> Float[Tensor, "height width 3"]:
    """Render a point cloud as discs of `radius` pixels with hidden points removed.

    Points have their own colors, or `color` if the cloud has none. Meant for visualization.
    Differentiable in: nothing.
    """
    fine = camera.resize(camera.height * supersampling, camera.width * supersampling)
    xy, depth = fine.project(cloud.points.detach()).split((2, 1), -1)
    reach = int(radius * supersampling + 1)
    steps = torch.arange(-reach, reach + 1, dtype=xy.dtype)
    winner = np.full(fine.height * fine.width, -1)
    farthest_first = depth[:, 0].argsort(descending=True, stable=True)
    for chunk in farthest_first[depth[farthest_first, 0] > 0].split(CHUNK):
        pixels = xy[chunk, None].floor() + torch.cartesian_prod(steps, steps)
        column, row = pixels.unbind(-1)
        covered = (pixels + 0.5 - xy[chunk, None]).norm(dim=-1) <= radius * supersampling
        covered &= (column >= 0) & (column < fine.width) & (row >= 0) & (row < fine.height)
        flat = (row * fine.width + column)[covered].long()
        # numpy keeps the last of several writes to one index, which is the nearest point
        winner[flat.numpy()] = chunk[:, None].expand(covered.shape)[covered].numpy()
    colors = cloud.colors[:, :3] if cloud.colors is not None else xy.new_tensor(color).expand(len(xy), 3)
    visible = torch.from_numpy(winner)
    image = torch.where(visible[:, None] >= 0, colors.to(xy.dtype)[visible], xy.new_tensor(background))
    return downsample(image.view(fine.height, fine.width, 3), supersampling)
