"""Images of the tour: ground truth beside results, and turntables."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unrender.data.frames import Frame
from unrender.data.photos import Photo
from unrender.fields.protocol import RenderedField
from unrender.geometry.camera import Camera, transform
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io.depth_preview import colorize_depth, depth_range
from unrender.io.images import load_image
from unrender.render.lights import AmbientLight
from unrender.render.mesh import render_mesh
from unrender.reports import figures, pose_images
from unrender.reports.figures import Image
from unrender.tasks.depth.measure_depth import measure_depth
from unrender.tour.report import Comparison, EncodedImage, Turntable
from unrender.training.targets import composited_on

QUALITY = 84
"""WebP quality."""
COMPARISON_SCALE = 1.5
"""Size of compared images, as a multiple of that of turntable frames."""
PHOTO_SIDE = 480
"""Pixels per side of the crop of a photo around the object."""
FIRST_AZIMUTH, ZOOM = 35.0, 1.4
"""Azimuth in degrees from which the handle of the object is visible; zoom relative to a view of its bounding box."""
Shape = Mesh | PointCloud
Cameras = Sequence[Camera]


def cameras_around(mesh: Mesh, num_frames: int, side: int) -> list[Camera]:
    """Return a turntable around a mesh, with square images that it fills."""
    cameras = figures.turntable(mesh.vertices.float(), num_frames, start=FIRST_AZIMUTH)
    return [camera.replace(focal=ZOOM * camera.focal).resize(side, side) for camera in cameras]


def encode(alt: str, image: Image | Tensor) -> EncodedImage:
    """Encode an image."""
    return encode_frames(alt, [image])


def encode_frames(alt: str, images: Sequence[Image | Tensor]) -> EncodedImage:
    """Encode frames side by side in one image."""
    from PIL import Image as Pillow

    frames = [figures.to_bytes(image) if isinstance(image, Tensor) else image for image in images]
    file = io.BytesIO()
    Pillow.fromarray(np.concatenate(frames, 1)).save(file, "WEBP", quality=QUALITY)
    height, width = frames[0].shape[:2]
    return EncodedImage(alt, file.getvalue(), (width, height), len(frames))


def without_color(mesh: Mesh) -> Mesh:
    """Drop the vertex colors, so that shapes can be compared."""
    return mesh.replace(vertex_colors=None)


def turntable(caption: str, shape: Shape, cameras: Cameras) -> Turntable:
    """Render a shaded shape from each camera."""
    return Turntable(caption, encode_frames(caption, [figures.render(shape, camera) for camera in cameras]))


def color_turntable(caption: str, mesh: Mesh, cameras: Cameras) -> Turntable:
    """Render the vertex colors of a mesh without shading, which they already include."""
    ambient = (AmbientLight(1.0),)
    images = [render_mesh(mesh, camera, lights=ambient, supersampling=2) for camera in cameras]
    return Turntable(caption, encode_frames(caption, images))


def compared_shapes(
    caption: str, left: tuple[str, Shape], right: tuple[str, Shape], cameras: Cameras
) -> Comparison:
    """Compare two named shapes, rendered from the first camera."""
    camera = cameras[0].resize_longest(round(COMPARISON_SCALE * cameras[0].width))
    views = [encode(name, figures.render(shape, camera)) for name, shape in (left, right)]
    return Comparison(caption, left[0], views[0], right[0], views[1])


def photo(photo: Photo) -> EncodedImage:
    """Return a crop of a photo around the object, on white."""
    return encode("an elephant-shaped watering can in sunlight", _close_up(photo).image)


def _close_up(photo: Photo) -> pose_images.PhotoCrop:
    """Return a crop of a photo around the object, composited on white."""
    white = torch.ones(3).expand_as(photo.image)
    on_white = photo.replace(image=torch.lerp(white, photo.image, photo.mask[..., None]))
    return pose_images.close_up(on_white, PHOTO_SIDE)


def pose_in_photo(mesh: Mesh, photo: Photo, pose: Tensor) -> Comparison:
    """Compare a photo with the mesh rendered over it."""
    near = _close_up(photo)
    overlay = pose_images.overlay(near, mesh, None, pose)
    left = encode("a photo of the object in sunlight", near.image)
    right = encode("the mesh in the estimated pose over the photo", overlay)
    return Comparison("photo, and mesh in the estimated pose", "photo", left, "estimated", right)


def contours(mesh: Mesh, photo: Photo, pose: Tensor) -> Turntable:
    """Draw the contours of the object in a photo and of the mesh in a pose."""
    caption = "contours: object in the photo blue, mesh orange (drawn on top)"
    return Turntable(caption, encode(caption, pose_images.contours(_close_up(photo), mesh, pose)))


def pose_in_scan(mesh: Mesh, scan: PointCloud, pose: Tensor, cameras: Cameras) -> Turntable:
    """Render a turntable of a mesh in a pose among the points of a scan."""
    object_from_camera = pose.inverse().to(mesh.vertices)
    points = PointCloud(transform(object_from_camera, scan.points.to(mesh.vertices)))  # upright
    frames = [pose_images.mesh_in_cloud(mesh, points, camera) for camera in cameras]
    caption = f"scan of one side, {len(scan.points):,} points, and mesh in the estimated pose"
    return Turntable(caption, encode_frames(caption, frames))


def compared_photo(frame: Frame, rendered: Path) -> Comparison:
    """Compare a test view, composited on white, with its rendering."""
    left = encode("ground truth of a test view", _on_white(frame))
    right = encode("the same view, rendered", load_image(rendered)[..., :3])
    return Comparison("test view: ground truth and rendering", "ground truth", left, "rendered", right)


def training_images(frames: Sequence[Frame]) -> Turntable:
    """Show training images, composited on white."""
    caption = "training images"
    return Turntable(caption, encode_frames(caption, [_on_white(frame) for frame in frames]))


def video(caption: str, views: Sequence[Path]) -> Turntable:
    """Show the frames of a video."""
    return Turntable(caption, encode_frames(caption, [load_image(view)[..., :3] for view in views]))


def compared_depth(field: RenderedField, frame: Frame, highest: float) -> tuple[Comparison, Turntable]:
    """Compare the depth of a field with the ground truth, and show the relative error up to `highest`."""
    truth, found = frame.load().depth, measure_depth(field, frame.camera)
    assert truth is not None
    low, high = depth_range(truth, truth > 0)
    left = colorize_depth(truth, truth > 0, low, high)
    right = colorize_depth(found.median_z, found.valid, low, high)
    relative = (found.median_z - truth).abs() / truth.clamp(min=1e-9)
    error = colorize_depth(relative, found.valid & (truth > 0), 0.0, highest, "magma")
    caption = f"depth of a test view, {low:.2f} (dark) to {high:.2f} units (bright)"
    views = encode("ground-truth depth", left), encode("measured depth", right)
    comparison = Comparison(caption, "ground truth", views[0], "measured", views[1])
    error_caption = f"relative depth error, 0 (dark) to {100 * highest:g} % or more (bright)"
    return comparison, Turntable(error_caption, encode(error_caption, error))


def _on_white(frame: Frame) -> Tensor:
    view = frame.load_image()
    return composited_on(torch.ones(3), view.image, view.alpha)
