"""Pictures of point clouds."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.geometry.camera import Camera
from unrender.geometry.points import PointCloud
from unrender.render.mesh import downsample


def render_points(
    cloud: PointCloud,
    camera: Camera,
    radius: float = 1.5,
    *,
    color: tuple[float, float, float] = (0.16, 0.36, 0.60),
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    supersampling: int = 1,
) -> Float[Tensor, "height width 3"]:
    """Show one cloud as discs of `radius` pixels, the nearest in front, in its own colors if it has any.

    For looking at: not differentiable.
    """
    fine = camera.resize(camera.height * supersampling, camera.width * supersampling)
    xy, depth = fine.project(cloud.points.detach()).split((2, 1), -1)
    reach = int(radius * supersampling + 1)
    steps = torch.arange(-reach, reach + 1)
    nearest = torch.full((fine.height * fine.width,), torch.inf, dtype=xy.dtype)
    winner = torch.full_like(nearest, -1, dtype=torch.int64)
    for dy, dx in torch.cartesian_prod(steps, steps).tolist():
        column, row = (xy.floor() + xy.new_tensor([dx, dy])).unbind(-1)
        near = (torch.stack([column, row], -1) + 0.5 - xy).norm(dim=-1) <= radius * supersampling
        seen = (
            near
            & (depth[:, 0] > 0)
            & (column >= 0)
            & (column < fine.width)
            & (row >= 0)
            & (row < fine.height)
        )
        point = seen.nonzero()[:, 0]
        pixel = (row[point] * fine.width + column[point]).long()
        _keep_nearest(nearest, winner, pixel, depth[point, 0], point)
    colors = cloud.colors[:, :3] if cloud.colors is not None else xy.new_tensor(color).expand(len(xy), 3)
    image = torch.where(winner[:, None] >= 0, colors[winner], xy.new_tensor(background))
    return downsample(image.view(fine.height, fine.width, 3), supersampling)


def _keep_nearest(nearest: Tensor, winner: Tensor, pixel: Tensor, depth: Tensor, point: Tensor) -> None:
    before = nearest.clone()
    nearest.scatter_reduce_(0, pixel, depth, "amin")
    wins = (depth == nearest[pixel]) & (depth < before[pixel])
    winner[pixel[wins].flip(0)] = point[wins].flip(0)
