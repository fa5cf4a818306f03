"""Inspection of a scene before training: a summary, and warnings about likely problems."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrender._wording import counted
from unrender.data.frames import Frame
from unrender.data.scene_bounds import convergence_point
from unrender.data.scenes import Scene
from unrender.errors import UnrenderError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import pixel_centers, rays_through

THUMBNAIL = 160
"""Pixels of the longer side."""
MIN_FRAMES = 10
SAME_POSITION = 1e-4
"""Spread of the cameras, as a fraction of their viewing distance, below which they coincide."""
ONE_SIDE = 0.85
"""Length of the mean direction from the center to the cameras, above which all are on one side: within about 30°."""
ROUNDING = 1e-6
"""Relative precision of float32 coordinates."""
DOUBLE_ROUNDING = 1e-9
"""Relative precision of large coordinates in text."""
OUTLIER_DISTANCE = 8.0
"""Distance from the other cameras, in medians of these distances, beyond which a camera is an outlier."""
OFF_CENTER = 0.15
"""Offset of the principal point from the image center, relative to the image size, that is implausible."""
MAX_NAMES = 6
"""Maximum number of frame names in one message."""


@dataclasses.dataclass(frozen=True)
class ImageSummary:
    """Summary of the files of one frame."""

    name: str
    thumbnail: NDArray[np.uint8] | None = None
    """RGB, composited on white; None if the image cannot be read."""
    covered: float | None = None
    """Mean alpha."""
    used: float | None = None
    """Fraction of pixels that the mask keeps."""
    depth: tuple[float, float] | None = None
    """Smallest and largest depth, in world units."""
    problem: str | None = None


def inspect_image(frame: Frame) -> ImageSummary:
    """Load a frame and summarize it; problems with its files are reported in the summary."""
    try:
        view = frame.load()
    except UnrenderError as error:
        return ImageSummary(frame.name, problem=str(error))
    step = max(1, math.ceil(max(view.image.shape[:2]) / THUMBNAIL))
    image = view.image
    if view.alpha is not None:
        image = image * view.alpha[..., None] + 1 - view.alpha[..., None]
    depths = None if view.depth is None else view.depth[view.depth > 0]
    problem = None
    if view.alpha is not None and not bool(view.alpha.any()):
        problem = f"frame {frame.name}: its alpha is 0 everywhere: the image is empty"
    elif view.mask is not None and not bool(view.mask.any()):
        problem = f"frame {frame.name}: its mask is black everywhere: no pixel is used"
    elif view.mask is not None and view.alpha is not None and _hides_object(view.alpha, view.mask):
        problem = (
            f"frame {frame.name}: its mask hides the opaque part of the image; if it is inverted, save it with white "
            "at the pixels to use"
        )
    elif float(image.std()) < 1e-3:
        problem = f"frame {frame.name}: the image has a single color"
    return ImageSummary(
        frame.name,
        (image[step // 2 :: step, step // 2 :: step] * 255).round().to(torch.uint8).numpy(),
        None if view.alpha is None else float(view.alpha.mean()),
        None if view.mask is None else float(view.mask.float().mean()),
        None if depths is None or not len(depths) else (float(depths.min()), float(depths.max())),
        problem,
    )


def find_duplicates(images: Sequence[ImageSummary]) -> list[str]:
    """Say which images are the same: a file that is listed twice, or copied, counts twice in training."""
    groups: dict[bytes, list[str]] = {}
    for image in images:
        if image.thumbnail is not None and image.problem is None:
            content = image.thumbnail.tobytes() + str(image.thumbnail.shape).encode()
            groups.setdefault(content, []).append(image.name)
    same = [names for names in groups.values() if len(names) > 1]
    if not same:
        return []
    shown = "; ".join(" = ".join(names[:MAX_NAMES]) for names in same[:MAX_NAMES])
    count = sum(len(names) - 1 for names in same)
    return [f"{counted(count, 'image is', 'images are')} the same as another one: {shown}; list each once"]


def _hides_object(alpha: Tensor, mask: Tensor) -> bool:
    """Return whether a mask ignores nearly all opaque pixels, but not the transparent ones."""
    opaque = alpha > 0.5
    kept, kept_outside = mask[opaque], mask[~opaque]
    if not len(kept) or not len(kept_outside):
        return False
    return float(kept.float().mean()) < 0.1 and float(kept_outside.float().mean()) > 0.9


def find_warnings(scene: Scene) -> list[str]:
    """List implausible properties of a scene's cameras, the most severe first.

    These are warnings: a scene may be captured from one side only, or a room from its center.
    """
    cameras = [frame.camera for frame in scene.frames]
    found: list[str] = []
    if len(cameras) == 1:
        return ["only one image: depth cannot be recovered"]
    if len(cameras) < MIN_FRAMES:
        found.append(f"only {counted(len(cameras), 'image')}; 30 or more, from all sides, are recommended")
    found += (
        _unusual_poses(scene, cameras)
        + _unusual_intrinsics(scene.frames)
        + _invalid_depth_ranges(scene.frames)
    )
    if not scene.split("train"):
        found.append("no training frames")
    return found


def camera_positions(cameras: Sequence[Camera]) -> Tensor:
    """Stack camera positions."""
    return torch.stack([camera.position for camera in cameras]).double()


def camera_axes(cameras: Sequence[Camera], row: int = 2) -> Tensor:
    """Stack the cameras' directions in the world: right (0), down (1) or forward (2)."""
    return torch.stack([camera.camera_from_world[row, :3] for camera in cameras]).double()


def describe_cameras(scene: Scene) -> dict[str, Any]:
    """Summarize image sizes, fields of view, lenses and distances as metrics."""
    cameras = [frame.camera for frame in scene.frames]
    widths, heights = [camera.width for camera in cameras], [camera.height for camera in cameras]
    fields = [fov_degrees(camera) for camera in cameras]
    positions = camera_positions(cameras)
    spread = float((positions - positions.mean(0)).norm(dim=-1).max())
    nears = [frame.near for frame in scene.frames if frame.near is not None]
    fars = [frame.far for frame in scene.frames if frame.far is not None]
    return {
        "num_frames": len(cameras),
        "num_train": len(scene.split("train")),
        "num_val": len(scene.split("val")),
        "num_test": len(scene.split("test")),
        "num_missing": len(scene.missing),
        "num_without_pose": len(scene.without_pose),
        "width_min": min(widths),
        "width_max": max(widths),
        "height_min": min(heights),
        "height_max": max(heights),
        "focal_x_min": min(float(camera.focal[0]) for camera in cameras),
        "focal_x_max": max(float(camera.focal[0]) for camera in cameras),
        "fov_x_degrees_min": min(x for x, _ in fields),
        "fov_x_degrees_max": max(x for x, _ in fields),
        "fov_y_degrees_min": min(y for _, y in fields),
        "fov_y_degrees_max": max(y for _, y in fields),
        "num_with_lens": sum(camera.lens is not None for camera in cameras),
        "camera_spread": spread,
        "num_points": 0 if scene.points is None else len(scene.points.points),
        "near": min(nears) if nears else None,
        "far": max(fars) if fars else None,
    }


def fov_degrees(camera: Camera) -> tuple[float, float]:
    """Compute the horizontal and vertical fields of view through the image center, including lens distortion."""
    if camera.projection == "equirectangular":
        x, y = torch.rad2deg(camera.focal.new_tensor([camera.width, camera.height]) / camera.focal).tolist()
        return x, y
    center_x, center_y = camera.width / 2, camera.height / 2
    ends = [[0.0, center_y], [camera.width, center_y], [center_x, 0.0], [center_x, camera.height]]
    rays = rays_through(camera, torch.tensor(ends).to(camera.focal)).directions.double()
    cosines = (
        (rays[[0, 2]] * rays[[1, 3]]).sum(-1).clamp(-1, 1).nan_to_num(nan=-1.0)
    )  # beyond what a lens sees
    x, y = torch.rad2deg(torch.arccos(cosines)).tolist()
    return x, y


def _unusual_poses(scene: Scene, cameras: Sequence[Camera]) -> list[str]:
    """Check the positions and directions of cameras."""
    positions, axes = camera_positions(cameras), camera_axes(cameras)
    names = [frame.name for frame in scene.frames]
    to_bounds_center = (positions - scene.bounds.double().mean(0)).norm(dim=-1)
    center = positions.median(0).values
    distances = (positions - center).norm(dim=-1)
    rounding = ROUNDING * float(positions.abs().max()) + DOUBLE_ROUNDING * max(map(abs, scene.origin))
    if float(distances.max()) <= SAME_POSITION * float(to_bounds_center.median()) + rounding:
        return ["all cameras share one position: depth cannot be recovered without a baseline"]
    found = []
    found += _unusual_directions(names, positions, axes)
    ups = -camera_axes(cameras, 1)
    upside_down = ups @ _unit(ups.median(0).values) < -0.5
    if 0 < int(upside_down.sum()) < len(cameras) / 2:
        found.append(f"upside down relative to the others: {_name_frames(names, upside_down)}")
    outliers = distances > OUTLIER_DISTANCE * distances.median()
    if bool(outliers.any()) and float(distances.median()) > 0:
        found.append(f"far away from the others: {_name_frames(names, outliers)}")
    rounded = torch.cat([positions, axes], 1).mul(1e5).round()
    duplicates = len(cameras) - len(rounded.unique(dim=0))
    return (
        [*found, f"{counted(duplicates, 'image has', 'images have')} the same pose as another one"]
        if duplicates
        else found
    )


def _unusual_directions(names: Sequence[str], positions: Tensor, axes: Tensor) -> list[str]:
    """Check that cameras face a common center, and from all sides."""
    center = _common_center(positions, axes)
    if center is None:
        same = float(axes.mean(0).norm()) > ONE_SIDE
        return (
            ["all cameras face the same direction: surfaces that face away are not observed"] if same else []
        )
    found = []
    facing_away = ((center - positions) * axes).sum(-1) < 0
    fraction = float(facing_away.double().mean())
    if 0 < fraction < 0.5:
        found.append(
            f"facing away from the center of the others: {_name_frames(names, facing_away)}; their poses may use "
            "another convention (y and z flipped)"
        )
    elif fraction > 0.9:
        found.append(
            "all cameras face away from a common center: expected inside a room; for an object, the "
            "poses use another convention (y and z flipped)"
        )
    outward = _unit(positions - center)
    if float(outward.mean(0).norm()) > ONE_SIDE and fraction < 0.5:
        angle = torch.rad2deg(torch.arccos((outward @ _unit(outward.mean(0))).clamp(-1, 1)).max())
        found.append(
            f"all views are from one side, within {float(angle):.0f} degrees: surfaces that face away are not observed"
        )
    return found


def _common_center(positions: Tensor, axes: Tensor) -> Tensor | None:
    """Return the point closest to the optical axes, whether the cameras face it or face away."""
    inward = torch.where(((positions.mean(0) - positions) * axes).sum(-1, keepdim=True) < 0, -axes, axes)
    center = convergence_point(positions, inward)
    return center if center is not None else convergence_point(positions, axes)


def _unusual_intrinsics(frames: Sequence[Frame]) -> list[str]:
    found = []
    names = [frame.name for frame in frames]
    fields = torch.tensor([fov_degrees(frame.camera)[0] for frame in frames])
    fields[[frame.camera.projection == "equirectangular" for frame in frames]] = 90  # 360 is usual for them
    unusual = (fields < 5) | (fields > 120) if not _any_fisheye(frames) else fields < 5
    if bool(unusual.any()):
        found.append(
            f"field of view of {float(fields[unusual][0]):.1f} degrees: {_name_frames(names, unusual)}"
        )
    shifts = []
    for frame in frames:
        size = frame.camera.focal.new_tensor([frame.camera.width, frame.camera.height])
        shifts.append(float((frame.camera.center / size - 0.5).abs().max()))
    shifted = torch.tensor(shifts) > OFF_CENTER
    if bool(shifted.any()):
        found.append(f"principal point far from the image center: {_name_frames(names, shifted)}")
    undefined = torch.tensor([_has_undefined_corners(frame.camera) for frame in frames])
    if bool(undefined.any()):
        found.append(
            f"lens undefined at some corners, whose pixels are not used: {_name_frames(names, undefined)}"
        )
    return found


def _has_undefined_corners(camera: Camera) -> bool:
    if camera.lens is None:
        return False
    corners = pixel_centers(camera)[:: max(1, camera.height - 1), :: max(1, camera.width - 1)]
    return bool(rays_through(camera, corners).directions.isnan().any())


def _any_fisheye(frames: Sequence[Frame]) -> bool:
    return any(frame.camera.lens is not None and frame.camera.lens.model == "fisheye" for frame in frames)


def _invalid_depth_ranges(frames: Sequence[Frame]) -> list[str]:
    invalid = [
        frame.name
        for frame in frames
        if frame.near is not None and frame.far is not None and not 0 < frame.near < frame.far
    ]
    if not invalid:
        return []
    return [
        f"invalid near and far, expected 0 < near < far: {_name_frames(invalid, torch.ones(len(invalid)) > 0)}"
    ]


def _unit(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector, dim=-1)


def _name_frames(names: Sequence[str], chosen: Tensor) -> str:
    """Format the number of chosen frames and their first names."""
    chosen_names = [name for name, is_chosen in zip(names, chosen.tolist(), strict=True) if is_chosen]
    rest = "" if len(chosen_names) <= MAX_NAMES else ", …"
    return f"{counted(len(chosen_names), 'frame')} ({', '.join(chosen_names[:MAX_NAMES])}{rest})"
