"""Pictures of poses: the object drawn over the photo or the cloud where it was found."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from unrender.data.photos import Photo
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.render.mesh import render_depth, render_mesh
from unrender.render.points import render_points
from unrender.render.texture import Texture
from unrender.reports import figures
from unrender.reports.figures import Image
from unrender.tasks.pose.photo import square_around

FOUND = (1.0, 0.45, 0.05)
GIVEN = (0.1, 0.75, 0.95)
"""Colors of the outlines of the pose, and of the mask."""
ROOM = 1.6
"""Side of a close-up, in sides of the object."""


class Scenery(NamedTuple):
    """A part of a photo, ready to be drawn over."""

    image: Tensor
    mask: Tensor
    camera: Camera

    def at(self, pose: Tensor) -> Camera:
        """Put the camera where it sees the object in a pose."""
        return self.camera.replace(camera_from_world=pose.to(self.camera.focal))


def whole(photo: Photo, most: int) -> Scenery:
    """Take the photo at no more than so many pixels a side."""
    return _scaled(photo, most)


def close_up(photo: Photo, size: int) -> Scenery:
    """Take a square around the object, as far as the photo goes."""
    corner, side = square_around(photo.mask, ROOM)
    left, top = (max(0, round(float(place))) for place in corner)
    right = min(photo.camera.width, round(float(corner[0]) + side))
    bottom = min(photo.camera.height, round(float(corner[1]) + side))
    part = (slice(top, bottom), slice(left, right))
    camera = photo.camera.crop(left, top, height=bottom - top, width=right - left)
    return _scaled(Photo(photo.image[part], photo.mask[part], camera), size, enlarge=True)


def _scaled(photo: Photo, size: int, *, enlarge: bool = False) -> Scenery:
    scale = size / max(photo.camera.height, photo.camera.width)
    scale = scale if enlarge else min(1.0, scale)
    height, width = (max(1, round(scale * side)) for side in (photo.camera.height, photo.camera.width))
    layers = torch.cat([photo.image, photo.mask[..., None]], -1).movedim(-1, 0)[None]
    how = {"mode": "area"} if scale <= 1 else {"mode": "bilinear", "align_corners": False}
    scaled = interpolate(layers, size=(height, width), **how)[0].movedim(0, -1)
    return Scenery(scaled[..., :3], scaled[..., 3], photo.camera.resize(height, width))


def overlay(scenery: Scenery, mesh: Mesh, texture: Texture | None, pose: Tensor) -> Image:
    """Show the object in a pose, half transparent, over the photo, with its outline."""
    camera = scenery.at(pose)
    drawn = render_mesh(mesh, camera, texture=texture, background=None, supersampling=2)
    mixed = scenery.image * (1 - 0.6 * drawn[..., 3:]) + 0.6 * drawn[..., :3]
    return figures.to_bytes(_outlined(mixed, render_depth(mesh, camera) > 0, FOUND))


def contours(scenery: Scenery, mesh: Mesh, pose: Tensor) -> Image:
    """Draw the outlines of the mask and of the object in a pose over the photo."""
    given = _outlined(scenery.image, scenery.mask > 0.5, GIVEN)
    return figures.to_bytes(_outlined(given, render_depth(mesh, scenery.at(pose)) > 0, FOUND))


def _outlined(image: Tensor, inside: Tensor, color: tuple[float, float, float]) -> Tensor:
    shape = inside.float()[None, None]
    edge = (max_pool2d(shape, 3, 1, 1) + max_pool2d(-shape, 3, 1, 1) > 0)[0, 0]
    return torch.where(edge[..., None], torch.tensor(color), image)


def mesh_in_cloud(mesh: Mesh, cloud: PointCloud, camera: Camera) -> Image:
    """Show a mesh, and the points of a cloud that are not behind it."""
    shown = render_mesh(mesh, camera, supersampling=2)
    depth = render_depth(mesh, camera)
    points = camera.project(cloud.points)
    x, y = (points[:, k].long().clamp(0, limit - 1) for k, limit in ((0, camera.width), (1, camera.height)))
    wall = depth[y, x]
    visible = (wall == 0) | (points[:, 2] < wall * 1.02)
    dots = render_points(
        cloud.replace(points=cloud.points[visible], colors=None, normals=None), camera, radius=1.2
    )
    is_dot = (dots < 0.99).any(-1, keepdim=True)
    return figures.to_bytes(torch.where(is_dot, dots, shown))
