"""Pictures of the tour: what is true beside what came out, and what can be turned."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unrender.data.frames import Frame
from unrender.data.photos import Photo
from unrender.fields.protocol import RadianceField
from unrender.geometry.camera import Camera, transform
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io.depth_preview import color_depth, depth_range
from unrender.io.images import load_image
from unrender.render.lights import AmbientLight
from unrender.render.mesh import render_mesh
from unrender.reports import figures
from unrender.reports import pose_images as pose_pictures
from unrender.reports.evaluation import photo_before
from unrender.reports.figures import Image
from unrender.tasks.depth.measure_depth import measure_depth
from unrender.tour.report import Frames, Shown, Slider

QUALITY = 84
"""Of WebP."""
LARGER = 1.5
"""Times the side of frames: pictures that are compared."""
PHOTO_SIDE = 480
"""Pixels a side of what is shown of a photo in which a pose was found."""
FIRST_VIEW, CLOSER = 35.0, 1.4
"""Degrees around the object, from where its handle is seen; and how much closer than all of its box needs."""
Shape = Mesh | PointCloud
Cameras = Sequence[Camera]


def cameras_around(mesh: Mesh, num_frames: int, side: int) -> list[Camera]:
    """Go once around a mesh, in square pictures that it fills."""
    degrees = [FIRST_VIEW + 360 * i / num_frames for i in range(num_frames)]
    around = [figures.view_from(angle, mesh.vertices.float(), size=side) for angle in degrees]
    return [camera.replace(focal=CLOSER * camera.focal) for camera in around]


def shown(alt: str, image: Image | Tensor) -> Shown:
    """Encode a picture."""
    return row(alt, [image])


def row(alt: str, images: Sequence[Image | Tensor]) -> Shown:
    """Encode frames, one beside the other."""
    from PIL import Image as Pillow

    frames = [figures.to_bytes(image) if isinstance(image, Tensor) else image for image in images]
    file = io.BytesIO()
    Pillow.fromarray(np.concatenate(frames, 1)).save(file, "WEBP", quality=QUALITY)
    height, width = frames[0].shape[:2]
    return Shown(alt, file.getvalue(), (width, height), len(frames))


def clay(mesh: Mesh) -> Mesh:
    """Leave out the colors, so that shapes can be compared."""
    return mesh.replace(vertex_colors=None)


def turned(caption: str, shape: Shape, around: Cameras) -> Frames:
    """Show a shape to cameras that stand around it."""
    return Frames(caption, row(caption, [figures.show(shape, camera) for camera in around]))


def turned_colors(caption: str, mesh: Mesh, around: Cameras) -> Frames:
    """Show the colors of a mesh as they are: light and shade are in them."""
    everywhere = (AmbientLight(1.0),)
    images = [render_mesh(mesh, camera, lights=everywhere, supersampling=2) for camera in around]
    return Frames(caption, row(caption, images))


def compared_shapes(
    caption: str, left: tuple[str, Shape], right: tuple[str, Shape], around: Cameras
) -> Slider:
    """Show two shapes, with their names, to the first camera."""
    side = round(LARGER * around[0].width)
    camera = around[0].resize(side, side)
    views = [shown(name, figures.show(shape, camera)) for name, shape in (left, right)]
    return Slider(caption, left[0], views[0], right[0], views[1])


def photo(seen: Photo) -> Shown:
    """Show the object of a photo, before white."""
    return shown("an elephant that is a watering can, in the sun", _close_up(seen).image)


def _close_up(photo: Photo) -> pose_pictures.Scenery:
    """Take the part of a photo where the object is, before white."""
    white = torch.ones(3).expand_as(photo.image)
    before_white = photo.replace(image=torch.lerp(white, photo.image, photo.mask[..., None]))
    return pose_pictures.close_up(before_white, PHOTO_SIDE)


def pose_in_photo(mesh: Mesh, photo: Photo, pose: Tensor) -> Slider:
    """Show a photo, and the mesh in a pose over it."""
    near = _close_up(photo)
    drawn = pose_pictures.overlay(near, mesh, None, pose)
    left = shown("a photo of the object in the sun", near.image)
    right = shown("the mesh in the pose that was found, drawn over the photo", drawn)
    return Slider("the photo, and the mesh over it where it was found", "photo", left, "found", right)


def outlines(mesh: Mesh, photo: Photo, pose: Tensor) -> Frames:
    """Draw the outline of a photo's object, and that of the mesh in a pose."""
    caption = "outlines of the photo's object, blue, and of the mesh, orange, which hides the blue where it is right"
    return Frames(caption, shown(caption, pose_pictures.contours(_close_up(photo), mesh, pose)))


def pose_in_scan(mesh: Mesh, scan: PointCloud, pose: Tensor, around: Cameras) -> Frames:
    """Turn a mesh in a pose among the points of a scan."""
    back = pose.inverse().to(mesh.vertices)
    points = PointCloud(transform(back, scan.points.to(mesh.vertices)))  # seen upright
    frames = [pose_pictures.mesh_in_cloud(mesh, points, camera) for camera in around]
    caption = f"a scan of one side, {len(scan.points):,} points, and the mesh where it was found"
    return Frames(caption, row(caption, frames))


def compared_photo(frame: Frame, rendered: Path) -> Slider:
    """Show a photo that was held out, before white, and what a field shows from there."""
    left = shown("a photo that was not learned from", photo_before(frame.load(), torch.ones(3)))
    right = shown("the same view of what was learned", load_image(rendered)[..., :3])
    return Slider(
        "a photo that was held out, and the same view of what was learned", "photo", left, "learned", right
    )


def photos(frames: Sequence[Frame]) -> Frames:
    """Show what was learned from, before white."""
    caption = "the photos to learn from"
    return Frames(caption, row(caption, [photo_before(frame.load(), torch.ones(3)) for frame in frames]))


def film(caption: str, views: Sequence[Path]) -> Frames:
    """Put pictures of a film side by side."""
    return Frames(caption, row(caption, [load_image(view)[..., :3] for view in views]))


def compared_depth(field: RadianceField, frame: Frame, highest: float) -> tuple[Slider, Frames]:
    """Show the true depth and that of a field, in the same colors, and how far they differ, up to a share."""
    truth, found = frame.load().depth, measure_depth(field, frame.camera)
    assert truth is not None
    low, high = depth_range(truth, truth > 0)
    left = color_depth(truth, truth > 0, low, high)
    right = color_depth(found.median_z, found.valid, low, high)
    off = (found.median_z - truth).abs() / truth.clamp(min=1e-9)
    error = color_depth(off, found.valid & (truth > 0), 0.0, highest, "magma")
    caption = f"depth where a photo was held out, from {low:.2f} (dark) to {high:.2f} units (bright)"
    slider = Slider(
        caption, "truth", shown("the true depth", left), "measured", shown("the measured depth", right)
    )
    how_far = f"how far it is off: dark is 0, bright {100 * highest:g} % of the depth or more"
    return slider, Frames(how_far, shown(how_far, error))
