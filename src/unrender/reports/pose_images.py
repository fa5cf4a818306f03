"""Images of poses: the mesh rendered over a photo or among the points of a cloud."""

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
from unrender.tasks.pose.photo_alignment import bounding_square

OBJECT_COLOR = (1.0, 0.45, 0.05)
MASK_COLOR = (0.1, 0.75, 0.95)
"""Colors of the contours of the object and of the mask."""
MARGIN = 1.6
"""Side of a close-up, as a multiple of the size of the object."""


class PhotoCrop(NamedTuple):
    """A photo or a crop of it, to render over."""

    image: Tensor
    mask: Tensor
    camera: Camera

    def at(self, pose: Tensor) -> Camera:
        """Return the camera that sees the object in a pose."""
        return self.camera.replace(camera_from_world=pose.to(self.camera.focal))


def whole(photo: Photo, size: int) -> PhotoCrop:
    """Return the photo with at most `size` pixels along the longer side."""
    return _scaled(photo, min(size, max(photo.camera.height, photo.camera.width)))


def close_up(photo: Photo, size: int) -> PhotoCrop:
    """Return a square crop around the object with `size` pixels a side, cut off at the edges of the photo."""
    corner, side = bounding_square(photo.mask, MARGIN)
    left, top = (max(0, round(float(edge))) for edge in corner)
    right = min(photo.camera.width, round(float(corner[0]) + side))
    bottom = min(photo.camera.height, round(float(corner[1]) + side))
    crop = (slice(top, bottom), slice(left, right))
    camera = photo.camera.crop(left, top, height=bottom - top, width=right - left)
    return _scaled(Photo(photo.image[crop], photo.mask[crop], camera), size)


def _scaled(photo: Photo, size: int) -> PhotoCrop:
    camera = photo.camera.resize_longest(size)
    layers = torch.cat([photo.image, photo.mask[..., None]], -1).movedim(-1, 0)[None]
    method = (
        {"mode": "area"}
        if camera.width <= photo.camera.width
        else {"mode": "bilinear", "align_corners": False}
    )
    scaled = interpolate(layers, size=(camera.height, camera.width), **method)[0].movedim(0, -1)
    return PhotoCrop(scaled[..., :3], scaled[..., 3], camera)


def overlay(photo: PhotoCrop, mesh: Mesh, texture: Texture | None, pose: Tensor) -> Image:
    """Render the mesh in a pose, half transparent, over the photo, with its contour."""
    camera = photo.at(pose)
    rendered = render_mesh(mesh, camera, texture=texture, background=None, supersampling=2)
    mixed = photo.image * (1 - 0.6 * rendered[..., 3:]) + 0.6 * rendered[..., :3]
    return figures.to_bytes(with_contour(mixed, render_depth(mesh, camera) > 0, OBJECT_COLOR))


def contours(photo: PhotoCrop, mesh: Mesh, pose: Tensor) -> Image:
    """Draw the contours of the mask and of the mesh in a pose over the photo."""
    masked = with_contour(photo.image, photo.mask > 0.5, MASK_COLOR)
    return figures.to_bytes(with_contour(masked, render_depth(mesh, photo.at(pose)) > 0, OBJECT_COLOR))


def with_contour(image: Tensor, inside: Tensor, color: tuple[float, float, float]) -> Tensor:
    """Draw the contour of a mask over an image."""
    shape = inside.float()[None, None]
    edge = (max_pool2d(shape, 3, 1, 1) + max_pool2d(-shape, 3, 1, 1) > 0)[0, 0]
    return torch.where(edge[..., None], torch.tensor(color), image)


def mesh_in_cloud(mesh: Mesh, cloud: PointCloud, camera: Camera) -> Image:
    """Render a mesh and the points of a cloud that it does not occlude."""
    rendered = render_mesh(mesh, camera, supersampling=2)
    depth = render_depth(mesh, camera)
    points = camera.project(cloud.points)
    x, y = (points[:, k].long().clamp(0, limit - 1) for k, limit in ((0, camera.width), (1, camera.height)))
    surface = depth[y, x]
    visible = (surface == 0) | (points[:, 2] < surface * 1.02)
    dots = render_points(
        cloud.replace(points=cloud.points[visible], colors=None, normals=None), camera, radius=1.2
    )
    is_dot = (dots < 0.99).any(-1, keepdim=True)
    return figures.to_bytes(torch.where(is_dot, dots, rendered))
