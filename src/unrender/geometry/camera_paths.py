"""Camera paths for videos, derived from the poses of existing cameras.

A path is one batch of cameras with the intrinsics and image size of the first given camera, without its lens. Use
`Camera.resize` for another resolution.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.camera import Camera, invert_rigid, rigid
from unrender.geometry.rotations import rotation_angle, so3_exp_map, so3_log_map

Order = Literal["given", "nearest"]
MIN_MEAN_LENGTH = 0.5
"""A mean of unit vectors shorter than this does not define a direction."""
MIN_ROW_SPREAD, MAX_TILT_RATIO = 0.03, 0.2
"""Cameras count as held level in different directions if the second eigenvalue of the scatter of their image rows
exceeds the first number, and the third eigenvalue is at most this fraction of the second."""
MIN_BASELINE = 1e-6
"""Distance between cameras below which they share one position, as a fraction of their distance from the origin."""
MIN_AXIS_SPREAD = 1e-3
"""Mean squared sine of the angles between optical axes and their common direction below which they are parallel."""
NOISE_FLOOR = 1e-5
"""Mean step relative to the largest coordinate, and mean rotation in radians, below which motion is rounding noise."""
SPIRAL_QUANTILE = 0.9
"""Fraction of the cameras within the spiral's width and height."""


def orbit_path(cameras: Camera | Sequence[Camera], num_frames: int) -> Camera:
    """Create a circular path around the point that the cameras look at, starting on the side of the first camera.

    The center is `focus_point`; the path has the cameras' median distance from it and their median elevation above
    it, with respect to `up_direction`. For forward-facing scenes, use `spiral_path`.
    Raises InputError if all cameras share one position.
    """
    given = _one_batch("orbit_path", cameras, num_frames)
    center, up = _focus_point("orbit_path", given), up_direction(given)
    offsets = given.position - center
    distance = offsets.norm(dim=-1)
    rise = torch.asin((offsets @ up / distance.clamp(min=1e-30)).clamp(-1, 1)).median()
    forward = offsets[0] - (offsets[0] @ up) * up
    if float(forward.norm()) < 1e-6 * float(distance.median()):  # straight above: start on any side
        forward = torch.linalg.cross(up, least_axis(up))
    forward = forward / forward.norm()
    turn = (torch.arange(num_frames).to(up) * (2 * math.pi / num_frames))[:, None]
    around = turn.cos() * forward + turn.sin() * torch.linalg.cross(up, forward)
    outward = rise.cos() * around + rise.sin() * up
    right = torch.linalg.cross(up.expand_as(around), around)
    axes = torch.stack([right, torch.linalg.cross(right, outward), -outward], -1)
    return _with_world_from_camera(_first(cameras), rigid(axes, center + distance.median() * outward))


def interpolated_path(
    cameras: Camera | Sequence[Camera], num_frames: int, *, closed: bool = False, order: Order = "given"
) -> Camera:
    """Interpolate smoothly between camera poses, from the first to the last, and back to the first if `closed`.

    Positions follow a Catmull-Rom spline; rotations are interpolated along the geodesic (slerp). Knots are spaced by
    the distance plus the rotation angle between poses, each divided by its mean, and frames are uniform in that
    parameter. With `order="nearest"`, each camera is followed by the nearest one not yet visited. Repeated poses in a
    row count once.
    Source: Barry and Goldman 1988, for non-uniform knots.
    """
    given = _one_batch("interpolated_path", cameras, num_frames)
    if order not in get_args(Order):
        raise InputError(
            f"interpolated_path: `order` should be one of {', '.join(get_args(Order))}, got {order!r}"
        )
    visited = _nearest_order(given.position) if order == "nearest" else list(range(len(given.position)))
    poses = given.world_from_camera[visited + visited[:1] if closed else visited]
    lengths = _segment_lengths(poses)
    poses, lengths = poses[[True, *(lengths > 0).tolist()]], lengths[lengths > 0]
    if len(lengths) == 0:
        return _with_world_from_camera(_first(cameras), poses[:1].expand(num_frames, 4, 4))
    knots = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    fraction = torch.arange(num_frames).to(knots) / max(num_frames - (not closed), 1)
    times = fraction * knots[-1]
    segment = (torch.searchsorted(knots, times, right=True) - 1).clamp(0, len(lengths) - 1)
    t = ((times - knots[segment]) / lengths[segment])[:, None]
    positions = _catmull_rom(poses[:, :3, 3], lengths, closed, segment, t)
    rotations = _slerp(poses[:, :3, :3], segment, t)
    return _with_world_from_camera(_first(cameras), rigid(rotations, positions))


def spiral_path(
    cameras: Camera | Sequence[Camera], num_frames: int, *, turns: int = 2, focus: float | None = None
) -> Camera:
    """Create a closed spiral in front of a forward-facing scene.

    The spiral is centered at the mean pose. Its width and height contain 9 of 10 camera positions; it moves forward
    and back once by the same measure. Every frame looks at the point `focus` world units in front of the mean pose, by
    default at the depth of `focus_point`.
    Source: LLFF (Mildenhall et al. 2019), `render_path_spiral`.
    """
    given = _one_batch("spiral_path", cameras, num_frames)
    if turns < 1 or (focus is not None and not 0 < focus < math.inf):
        raise InputError(
            f"spiral_path: `turns` should be at least 1 and `focus` a positive distance, got {turns} and {focus}"
        )
    up, forward = up_direction(given), given.camera_from_world[:, 2, :3].mean(0)
    if float(forward.norm()) < MIN_MEAN_LENGTH:
        raise InputError(
            "spiral_path: the cameras face different directions; use `orbit_path` for scenes captured from all around"
        )
    start = given.position.mean(0)
    mean = Camera.look_at(start, start + forward, up, height=1, width=1)
    local = (given.position - start) @ mean.camera_from_world[:3, :3].T
    radii = local.abs().quantile(SPIRAL_QUANTILE, 0)
    if focus is None:
        focus = float((_focus_point("spiral_path", given) - start) @ mean.camera_from_world[2, :3])
    if not focus > float(radii[2]):
        raise InputError(
            "spiral_path: the optical axes do not meet in front of the cameras; set `focus`, the distance to look at"
        )
    turn = torch.arange(num_frames).to(up) * (2 * math.pi * turns / num_frames)
    sway = torch.stack([turn.cos(), turn.sin(), (turn / turns).sin()], -1) * radii
    target = start + focus * mean.camera_from_world[2, :3]
    eyes = start + sway @ mean.camera_from_world[:3, :3]
    return _with_poses(_first(cameras), Camera.look_at(eyes, target, up, height=1, width=1).camera_from_world)


@checked
def focus_point(
    positions: Float[Tensor, "cameras 3"], forward: Float[Tensor, "cameras 3"]
) -> Float[Tensor, "3"]:
    """Compute the point closest to all optical axes in the least-squares sense: what the cameras look at.

    `forward` holds unit view directions. If all axes are parallel, the point lies in front of the cameras, at twice
    the distance of the farthest camera from their centroid.
    """
    point = intersect_axes(positions, forward, MIN_AXIS_SPREAD)
    if point is None:
        spread = float((positions - positions.mean(0)).norm(dim=-1).max())
        return positions.mean(0) + 2 * spread * forward.mean(0)
    return point


def intersect_axes(positions: Tensor, directions: Tensor, min_spread: float) -> Tensor | None:
    """Return the point closest to all optical axes in the least-squares sense; None if the axes are parallel.

    They are parallel if the smallest eigenvalue of the mean of I − dd ᵀ, over unit directions d, is below
    `min_spread`: the mean squared sine of their angles to a common direction.
    """
    across = torch.eye(3).to(directions) - directions[:, :, None] * directions[:, None]
    matrix, right = across.mean(0), (across @ positions[..., None]).mean(0)[:, 0]
    if float(torch.linalg.eigvalsh(matrix)[0]) < min_spread:
        return None
    point: Tensor = torch.linalg.solve(matrix, right)
    return point


def up_direction(cameras: Camera) -> Float[Tensor, "3"]:
    """Estimate the unit up direction of a batch of cameras.

    For cameras held level in different directions, it is orthogonal to all image rows. Otherwise it is the mean of the
    images' up directions or, where these cancel, the normal of the plane through the camera positions.
    """
    rows, down, forward = cameras.camera_from_world[:, :3, :3].unbind(1)
    above = -down - forward / 2  # a camera that looks straight down has up behind it
    values, vectors = torch.linalg.eigh((rows[:, :, None] * rows[:, None]).mean(0))
    side = float((above @ vectors[:, 0]).sign().mean())
    is_level = float(values[1]) > MIN_ROW_SPREAD and float(values[0]) < MAX_TILT_RATIO * float(values[1])
    if is_level and abs(side) > MIN_MEAN_LENGTH:
        level: Tensor = vectors[:, 0] * math.copysign(1.0, side)
        return level
    up: Tensor = -down.mean(0)
    if float(up.norm()) < MIN_MEAN_LENGTH:
        positions = cameras.position
        across = torch.linalg.svd(positions - positions.mean(0), full_matrices=True).Vh[2]
        up = across * math.copysign(1.0, float(across @ above.mean(0)))
    return torch.nn.functional.normalize(up, dim=0)


def stack_cameras(cameras: Sequence[Camera]) -> Camera:
    """Return one batch of cameras, with the intrinsics of the first, without its lens."""
    return _with_poses(cameras[0], torch.stack([camera.camera_from_world for camera in cameras]))


def least_axis(direction: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """Return the coordinate axis least along a unit direction; of axes that differ by rounding, the first."""
    return torch.eye(3).to(direction)[int((direction.abs() * 1e6).round().argmin())]


def _one_batch(function: str, cameras: Camera | Sequence[Camera], num_frames: int) -> Camera:
    """Stack camera poses, in double precision, with the intrinsics of the first camera."""
    if num_frames < 1:
        raise InputError(f"{function}: `num_frames` should be at least 1, got {num_frames}")
    poses = (
        cameras.camera_from_world.reshape(-1, 4, 4)
        if isinstance(cameras, Camera)
        else torch.stack([camera.camera_from_world for camera in cameras])
        if len(cameras)
        else torch.zeros(0, 4, 4)
    )
    if len(poses) == 0:
        raise InputError(f"{function}: `cameras` should hold at least one camera, got none")
    first = _first(cameras).to(torch.float64)
    return _with_poses(first, poses.detach().double())


def _first(cameras: Camera | Sequence[Camera]) -> Camera:
    if not isinstance(cameras, Camera):
        return cameras[0]
    return cameras[(0,) * len(cameras.batch_shape)] if cameras.batch_shape else cameras


def _with_poses(first: Camera, camera_from_world: Tensor) -> Camera:
    """Combine the first camera's intrinsics, without its lens, with each pose."""
    count = len(camera_from_world)
    return first.replace(
        focal=first.focal.expand(count, 2),
        center=first.center.expand(count, 2),
        camera_from_world=camera_from_world.to(first.camera_from_world),
        lens=None,
    )


def _with_world_from_camera(first: Camera, world_from_camera: Tensor) -> Camera:
    return _with_poses(first, invert_rigid(world_from_camera))


def _focus_point(function: str, cameras: Camera) -> Tensor:
    """Compute the cameras' focus point; raise InputError if all of them share one position."""
    center = focus_point(cameras.position, cameras.camera_from_world[:, 2, :3])
    apart = (cameras.position - cameras.position[0]).norm(dim=-1).max()
    distance = (cameras.position - center).norm(dim=-1).median()
    if not float(torch.minimum(apart, distance)) > MIN_BASELINE * float(cameras.position.norm(dim=-1).max()):
        raise InputError(
            f"{function}: all cameras share one position: depth cannot be recovered without a baseline"
        )
    return center


def _nearest_order(positions: Tensor) -> list[int]:
    """Order positions greedily: each is followed by the nearest one not yet visited."""
    order, left = [0], torch.ones(len(positions), dtype=torch.bool)
    left[0] = False
    while bool(left.any()):
        distances = (positions - positions[order[-1]]).norm(dim=-1)
        order.append(int(distances.where(left, torch.inf).argmin()))
        left[order[-1]] = False
    return order


def _segment_lengths(poses: Tensor) -> Tensor:
    """Measure each segment of a path: distance and rotation angle, each divided by its mean."""
    positions, rotations = poses[:, :3, 3], poses[:, :3, :3]
    steps: Tensor = (positions[1:] - positions[:-1]).norm(dim=-1)
    angles = rotation_angle(rotations[1:], rotations[:-1])
    if len(steps) == 0:
        return steps
    min_step = NOISE_FLOOR * max(float(positions.abs().max()), 1e-30)
    lengths: Tensor = steps / steps.mean().clamp(min=min_step) + angles / angles.mean().clamp(min=NOISE_FLOOR)
    return lengths


def _catmull_rom(points: Tensor, lengths: Tensor, closed: bool, segment: Tensor, t: Tensor) -> Tensor:
    """Interpolate with cubics: the velocity at a point is that of the parabola through it and its neighbors."""
    steps = (points[1:] - points[:-1]) / lengths[:, None]
    before, after = (torch.cat([steps[-1:], steps, steps[:1]])[i : i + len(points)] for i in (0, 1))
    spans = torch.cat([lengths[-1:], lengths, lengths[:1]])[:, None]
    velocity = (before * spans[1:] + after * spans[:-1]) / (spans[1:] + spans[:-1])
    if not closed:  # at the ends, of the parabola through the last three points
        velocity[0], velocity[-1] = steps[0], steps[-1]
        if len(steps) > 1:
            velocity[0], velocity[-1] = 2 * steps[0] - velocity[1], 2 * steps[-1] - velocity[-2]
    a, b = points[segment], points[segment + 1]
    u, v = velocity[segment] * lengths[segment, None], velocity[segment + 1] * lengths[segment, None]
    cubic = a + t * u + t**2 * (3 * (b - a) - 2 * u - v) + t**3 * (2 * (a - b) + u + v)
    return cubic


def _slerp(rotations: Tensor, segment: Tensor, t: Tensor) -> Tensor:
    """Rotate from one orientation to the next about a fixed axis, at constant angular velocity."""
    start = rotations[segment]
    return start @ so3_exp_map(t * so3_log_map(start.mT @ rotations[segment + 1]))
