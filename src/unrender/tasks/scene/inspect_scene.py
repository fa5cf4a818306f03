"""What can be told about a scene before anything is fitted to it: what there is, and what looks wrong."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unrender.data.frames import Frame
from unrender.data.scene_bounds import meeting_point
from unrender.data.scenes import Scene
from unrender.errors import UnrenderError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import pixel_centers, rays_through

THUMBNAIL = 160
"""Pixels of the longer side."""
FEW_FRAMES = 10
ONE_PLACE = 1e-4
"""Spread of the cameras, as a fraction of their viewing distance, below which they coincide."""
ONE_SIDE = 0.85
"""Mean length of directions from the middle to the cameras, above which they stand on one side: within about 30°."""
ROUNDING = 1e-6
"""Relative precision of float32 coordinates."""
FAR_AWAY = 8.0
"""Distance from the other cameras, in medians of these distances, beyond which a camera is astray."""
COARSE = 1e-3
"""Distances between cameras, as a fraction of their coordinates, that leave at most four significant digits."""
OFF_CENTER = 0.15
"""Distance of the principal point from the middle, in widths, beyond which it is odd."""
NAMED = 6
"""Frames named in one line."""


@dataclasses.dataclass(frozen=True)
class ImageSummary:
    """What one picture holds."""

    name: str
    thumbnail: NDArray[np.uint8] | None = None
    """RGB, on white; None where the picture cannot be read."""
    covered: float | None = None
    """Mean alpha."""
    used: float | None = None
    """Share of pixels that the mask lets through."""
    depth: tuple[float, float] | None = None
    """Nearest and farthest."""
    problem: str | None = None


def inspect_image(frame: Frame) -> ImageSummary:
    """Read a frame's files; what is wrong with them is part of the answer."""
    try:
        view = frame.load()
    except UnrenderError as error:
        return ImageSummary(frame.name, problem=str(error))
    step = max(1, math.ceil(max(view.image.shape[:2]) / THUMBNAIL))
    image = view.image
    if view.alpha is not None:
        image = image * view.alpha[..., None] + 1 - view.alpha[..., None]
    known = None if view.depth is None else view.depth[view.depth > 0]
    problem = None
    if view.alpha is not None and not bool(view.alpha.any()):
        problem = f"frame {frame.name}: its alpha is 0 everywhere; there is nothing to see"
    elif view.mask is not None and not bool(view.mask.any()):
        problem = f"frame {frame.name}: its mask is black everywhere; no pixel would be used"
    elif float(image.std()) < 1e-3:
        problem = f"frame {frame.name}: it is of one color only"
    return ImageSummary(
        frame.name,
        (image[step // 2 :: step, step // 2 :: step] * 255).round().to(torch.uint8).numpy(),
        None if view.alpha is None else float(view.alpha.mean()),
        None if view.mask is None else float(view.mask.float().mean()),
        None if known is None or not len(known) else (float(known.min()), float(known.max())),
        problem,
    )


def find_warnings(scene: Scene) -> list[str]:
    """List what is odd about the cameras of a scene, in sentences, the worst first.

    A scene can be right in spite of all this: photos may be taken from one side, a room is seen from its middle.
    """
    cameras = [frame.camera for frame in scene.frames]
    found: list[str] = []
    if len(cameras) == 1:
        return ["one picture only: depth cannot be found from it"]
    if len(cameras) < FEW_FRAMES:
        found.append(f"{len(cameras)} pictures are few; 30 or more, from all sides, work well")
    found += _standing(scene, cameras) + _odd_intrinsics(scene.frames) + _odd_depths(scene.frames)
    if not scene.split("train"):
        found.append("no frame is for training")
    return found


def camera_positions(cameras: Sequence[Camera]) -> Tensor:
    """Stack where cameras stand."""
    return torch.stack([camera.position for camera in cameras]).double()


def camera_axes(cameras: Sequence[Camera], row: int = 2) -> Tensor:
    """Stack the cameras' directions in the world: right (0), down (1) or forward (2)."""
    return torch.stack([camera.camera_from_world[row, :3] for camera in cameras]).double()


def describe_cameras(scene: Scene) -> dict[str, Any]:
    """Summarize sizes, fields of view, lenses and distances, in figures."""
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
    """Measure how wide a camera sees through the middle of its picture, from side to side and from top to bottom."""
    middle_x, middle_y = camera.width / 2, camera.height / 2
    ends = [[0.0, middle_y], [camera.width, middle_y], [middle_x, 0.0], [middle_x, camera.height]]
    rays = rays_through(camera, torch.tensor(ends).to(camera.focal)).directions.double()
    cosines = (rays[[0, 2]] * rays[[1, 3]]).sum(-1).clamp(-1, 1)
    x, y = torch.rad2deg(torch.arccos(cosines)).tolist()
    return x, y


def _standing(scene: Scene, cameras: Sequence[Camera]) -> list[str]:
    """Look at where the cameras stand, and where they look from there."""
    positions, axes = camera_positions(cameras), camera_axes(cameras)
    names = [frame.name for frame in scene.frames]
    from_middle = (positions - scene.bounds.double().mean(0)).norm(dim=-1)
    center = positions.median(0).values
    away = (positions - center).norm(dim=-1)
    rounding = ROUNDING * float(positions.abs().max())
    if float(away.max()) <= ONE_PLACE * float(from_middle.median()) + rounding:
        return ["all cameras stand in one point: depth cannot be found"]
    found = []
    if float(away.median()) < COARSE * float(positions.abs().max()):
        found.append(
            f"the cameras stand {float(center.norm()):.3g} units from the origin and {float(away.median()):.3g} from "
            "one another: single precision is too coarse there; move the scene to the origin"
        )
    found += _looking(names, positions, axes)
    ups = -camera_axes(cameras, 1)
    upside_down = ups @ _unit(ups.median(0).values) < -0.5
    if 0 < int(upside_down.sum()) < len(cameras) / 2:
        found.append(f"{_named(names, upside_down)} stand on their heads, compared to the others")
    astray = away > FAR_AWAY * away.median()
    if bool(astray.any()) and float(away.median()) > 0:
        found.append(f"{_named(names, astray)} stand far away from the others")
    rounded = torch.cat([positions, axes], 1).mul(1e5).round()
    twins = len(cameras) - len(rounded.unique(dim=0))
    return [*found, f"{twins} pictures have the pose of another one"] if twins else found


def _looking(names: Sequence[str], positions: Tensor, axes: Tensor) -> list[str]:
    """Tell whether cameras look at a common middle, and from all sides."""
    middle = _common_middle(positions, axes)
    if middle is None:
        same = float(axes.mean(0).norm()) > ONE_SIDE
        return ["all cameras look the same way: what is behind stays unknown"] if same else []
    found = []
    behind = ((middle - positions) * axes).sum(-1) < 0
    fraction = float(behind.double().mean())
    if 0 < fraction < 0.5:
        found.append(
            f"{_named(names, behind)} look away from where the others look; these poses may be of another "
            "convention (y and z turned)"
        )
    elif fraction > 0.9:
        found.append(
            "all cameras look away from a common middle: right for a room seen from inside; for an object, the "
            "poses are of another convention (y and z turned)"
        )
    outward = _unit(positions - middle)
    if float(outward.mean(0).norm()) > ONE_SIDE and fraction < 0.5:
        angle = torch.rad2deg(torch.arccos((outward @ _unit(outward.mean(0))).clamp(-1, 1)).max())
        found.append(
            f"all views are from one side, within {float(angle):.0f} degrees: what is behind stays unknown"
        )
    return found


def _common_middle(positions: Tensor, axes: Tensor) -> Tensor | None:
    """Find the point nearest to the cameras' axes, whichever way they look along them."""
    towards = torch.where(((positions.mean(0) - positions) * axes).sum(-1, keepdim=True) < 0, -axes, axes)
    middle = meeting_point(positions, towards)
    return middle if middle is not None else meeting_point(positions, axes)


def _odd_intrinsics(frames: Sequence[Frame]) -> list[str]:
    found = []
    names = [frame.name for frame in frames]
    fields = torch.tensor([fov_degrees(frame.camera)[0] for frame in frames])
    odd = (fields < 5) | (fields > 120) if not _any_fisheye(frames) else fields < 5
    if bool(odd.any()):
        found.append(f"{_named(names, odd)} have a field of view of {float(fields[odd][0]):.1f} degrees")
    shifts = []
    for frame in frames:
        size = frame.camera.focal.new_tensor([frame.camera.width, frame.camera.height])
        shifts.append(float((frame.camera.center / size - 0.5).abs().max()))
    shifted = torch.tensor(shifts) > OFF_CENTER
    if bool(shifted.any()):
        found.append(
            f"{_named(names, shifted)} have their principal point far from the middle of the picture"
        )
    blind = torch.tensor([_is_blind(frame.camera) for frame in frames])
    if bool(blind.any()):
        found.append(
            f"{_named(names, blind)} have a lens that maps nothing to some corners: these are not used"
        )
    return found


def _is_blind(camera: Camera) -> bool:
    if camera.lens is None:
        return False
    corners = pixel_centers(camera)[:: max(1, camera.height - 1), :: max(1, camera.width - 1)]
    return bool(rays_through(camera, corners).directions.isnan().any())


def _any_fisheye(frames: Sequence[Frame]) -> bool:
    return any(frame.camera.lens is not None and frame.camera.lens.model == "fisheye" for frame in frames)


def _odd_depths(frames: Sequence[Frame]) -> list[str]:
    odd = [
        frame.name
        for frame in frames
        if frame.near is not None and frame.far is not None and not 0 < frame.near < frame.far
    ]
    return [f"{_named(odd, torch.ones(len(odd)) > 0)}: near and far make no sense"] if odd else []


def _unit(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector, dim=-1)


def _named(names: Sequence[str], chosen: Tensor) -> str:
    """Count and name frames."""
    picked = [name for name, is_chosen in zip(names, chosen.tolist(), strict=True) if is_chosen]
    rest = "" if len(picked) <= NAMED else ", …"
    word = "frame" if len(picked) == 1 else "frames"
    return f"{len(picked)} {word} ({', '.join(picked[:NAMED])}{rest})"
