"""Camera paths: where a camera goes for a film, by where others stand.

Cameras of a path are one batch, and have the intrinsics and the size of the first camera given, without its lens;
`Camera.resize` gives them other pixels.
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
AGREEING = 0.5
"""Length of the mean of directions, from which on it is believed."""
VARIED, LEVEL = 0.03, 0.2
"""Least mean square of the pictures' rows along their second axis, and most along the third as a share of that, in
pictures from different directions by cameras held level."""
PARALLEL = 1e-3
"""Mean squared sine of the angle between optical axes and their common direction, below which they meet nowhere."""
ROUNDING = 1e-5
"""Mean step, relative to the largest coordinate, and mean turn in radians, below which they are nothing but noise."""
SPIRAL_SIZE = 0.9
"""Share of the cameras within the spiral's width and height."""


def orbit_path(cameras: Camera | Sequence[Camera], num_frames: int) -> Camera:
    """Go once around what cameras look at, always looking there, and begin on the side of the first camera.

    That is the point nearest to all optical axes; the path has their median distance from it and their median
    elevation above it, by what is up for them: see `upward`. For cameras on one side of a scene, `spiral_path`
    shows more of what they saw.
    Raises InputError where all cameras stand in one place.
    """
    given = _one_batch("orbit_path", cameras, num_frames)
    middle, up = _middle("orbit_path", given), upward(given)
    offsets = given.position - middle
    distance = offsets.norm(dim=-1)
    rise = torch.asin((offsets @ up / distance.clamp(min=1e-30)).clamp(-1, 1)).median()
    forward = offsets[0] - (offsets[0] @ up) * up
    if float(forward.norm()) < 1e-6 * float(distance.median()):  # from straight above, any side is the first
        forward = torch.linalg.cross(up, torch.eye(3).to(up)[int(up.abs().argmin())])
    forward = forward / forward.norm()
    turn = (torch.arange(num_frames).to(up) * (2 * math.pi / num_frames))[:, None]
    around = turn.cos() * forward + turn.sin() * torch.linalg.cross(up, forward)
    outward = rise.cos() * around + rise.sin() * up
    right = torch.linalg.cross(up.expand_as(around), around)
    axes = torch.stack([right, torch.linalg.cross(right, outward), -outward], -1)
    return _posed(_first(cameras), rigid(axes, middle + distance.median() * outward))


def path_between(
    cameras: Camera | Sequence[Camera], num_frames: int, *, closed: bool = False, order: Order = "given"
) -> Camera:
    """Go smoothly through the poses of cameras, from the first to the last, or around to the first again if `closed`.

    Positions are a Catmull-Rom spline, rotations are interpolated along the shortest way. Frames are even in time, of
    which each part of the way takes its length plus its turn, both as multiples of their means. With the order
    "nearest", what follows is the nearest camera that was not visited yet. Equal poses one after the other count once.
    Source: Barry and Goldman 1988, for knots that are not even.
    """
    given = _one_batch("path_between", cameras, num_frames)
    if order not in get_args(Order):
        raise InputError(
            f"path_between: `order` should be one of {', '.join(get_args(Order))}, got {order!r}"
        )
    visited = _nearest_order(given.position) if order == "nearest" else list(range(len(given.position)))
    poses = given.world_from_camera[visited + visited[:1] if closed else visited]
    lengths = _lengths(poses)
    poses, lengths = poses[[True, *(lengths > 0).tolist()]], lengths[lengths > 0]
    if len(lengths) == 0:
        return _posed(_first(cameras), poses[:1].expand(num_frames, 4, 4))
    knots = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    share = torch.arange(num_frames).to(knots) / max(num_frames - (not closed), 1)
    times = share * knots[-1]
    part = (torch.searchsorted(knots, times, right=True) - 1).clamp(0, len(lengths) - 1)
    along = ((times - knots[part]) / lengths[part])[:, None]
    positions = _spline(poses[:, :3, 3], lengths, closed, part, along)
    rotations = _turned(poses[:, :3, :3], part, along)
    return _posed(_first(cameras), rigid(rotations, positions))


def spiral_path(
    cameras: Camera | Sequence[Camera], num_frames: int, *, turns: int = 2, focus: float | None = None
) -> Camera:
    """Go around before a scene that all cameras face, swaying as they did, and back to the beginning.

    About their mean pose, an ellipse in which 9 of 10 of them stand, and as far forward and back, once on the way.
    All look at the point `focus` world units before the mean pose; by default as far as that nearest to all optical
    axes.
    Source: LLFF (Mildenhall et al. 2019), `render_path_spiral`.
    """
    given = _one_batch("spiral_path", cameras, num_frames)
    if turns < 1 or (focus is not None and not 0 < focus < math.inf):
        raise InputError(
            f"spiral_path: `turns` should be at least 1 and `focus` a distance > 0, got {turns} and {focus}"
        )
    up, forward = upward(given), given.camera_from_world[:, 2, :3].mean(0)
    if float(forward.norm()) < AGREEING:
        raise InputError(
            "spiral_path: the cameras do not face one way; `orbit_path` goes around what they see"
        )
    start = given.position.mean(0)
    mean = Camera.look_at(start, start + forward, up, height=1, width=1)
    local = (given.position - start) @ mean.camera_from_world[:3, :3].T
    radii = local.abs().quantile(SPIRAL_SIZE, 0)
    if focus is None:
        focus = float((_middle("spiral_path", given) - start) @ mean.camera_from_world[2, :3])
    if not focus > float(radii[2]):
        raise InputError("spiral_path: the cameras look at nothing before them; give `focus`, a distance")
    turn = torch.arange(num_frames).to(up) * (2 * math.pi * turns / num_frames)
    sway = torch.stack([turn.cos(), turn.sin(), (turn / turns).sin()], -1) * radii
    target = start + focus * mean.camera_from_world[2, :3]
    return _looking(_first(cameras), start + sway @ mean.camera_from_world[:3, :3], target, up)


@checked
def nearest_to_axes(
    positions: Float[Tensor, "cameras 3"], forward: Float[Tensor, "cameras 3"]
) -> Float[Tensor, "3"]:
    """Return the point with the least squared distances from optical axes: what cameras look at.

    forward: directions of unit length. Where all axes are parallel, the point lies before the cameras, twice as far
    as the farthest of them is from their middle.
    """
    across = torch.eye(3).to(forward) - forward[:, :, None] * forward[:, None]
    matrix, right = across.mean(0), (across @ positions[..., None]).mean(0)[:, 0]
    if float(torch.linalg.eigvalsh(matrix)[0]) < PARALLEL:
        spread = float((positions - positions.mean(0)).norm(dim=-1).max())
        return positions.mean(0) + 2 * spread * forward.mean(0)
    nearest: Tensor = torch.linalg.solve(matrix, right)
    return nearest


def upward(cameras: Camera) -> Float[Tensor, "3"]:
    """Return the direction, of unit length, that is up for a batch of cameras.

    Of cameras held level in different directions, it is across all their pictures' rows; else what is up in the mean
    of the pictures or, where they were turned every way, across the plane in which the cameras stand.
    """
    rows, down, forward = cameras.camera_from_world[:, :3, :3].unbind(1)
    above = -down - forward / 2  # who looks straight down has what is up behind
    values, vectors = torch.linalg.eigh((rows[:, :, None] * rows[:, None]).mean(0))
    side = float((above @ vectors[:, 0]).sign().mean())
    if float(values[1]) > VARIED and float(values[0]) < LEVEL * float(values[1]) and abs(side) > AGREEING:
        level: Tensor = vectors[:, 0] * math.copysign(1.0, side)
        return level
    up: Tensor = -down.mean(0)
    if float(up.norm()) < AGREEING:
        positions = cameras.position
        across = torch.linalg.svd(positions - positions.mean(0), full_matrices=True).Vh[2]
        up = across * math.copysign(1.0, float(across @ above.mean(0)))
    return torch.nn.functional.normalize(up, dim=0)


def _one_batch(function: str, cameras: Camera | Sequence[Camera], num_frames: int) -> Camera:
    """Join the poses of cameras, in double precision, with the intrinsics of the first."""
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
        raise InputError(f"{function}: there are no cameras")
    first = _first(cameras).to(torch.float64)
    return _with_poses(first, poses.detach().double())


def _first(cameras: Camera | Sequence[Camera]) -> Camera:
    if not isinstance(cameras, Camera):
        return cameras[0]
    return cameras[(0,) * len(cameras.batch_shape)] if cameras.batch_shape else cameras


def _with_poses(first: Camera, camera_from_world: Tensor) -> Camera:
    """Give the first camera's intrinsics, without its lens, to each pose."""
    count = len(camera_from_world)
    return first.replace(
        focal=first.focal.expand(count, 2),
        center=first.center.expand(count, 2),
        camera_from_world=camera_from_world.to(first.camera_from_world),
        lens=None,
    )


def _posed(first: Camera, world_from_camera: Tensor) -> Camera:
    return _with_poses(first, invert_rigid(world_from_camera))


def _looking(first: Camera, eyes: Tensor, target: Tensor, up: Tensor) -> Camera:
    return _with_poses(first, Camera.look_at(eyes, target, up, height=1, width=1).camera_from_world)


def _middle(function: str, cameras: Camera) -> Tensor:
    """Return what the cameras look at; refuse those that have nothing around which to go."""
    middle = nearest_to_axes(cameras.position, cameras.camera_from_world[:, 2, :3])
    if not float((cameras.position - middle).norm(dim=-1).median()) > 0:
        raise InputError(f"{function}: all cameras stand in one place: nothing tells how far things are")
    return middle


def _nearest_order(positions: Tensor) -> list[int]:
    """Order positions so that each one's successor is the nearest that is left."""
    order, left = [0], torch.ones(len(positions), dtype=torch.bool)
    left[0] = False
    while bool(left.any()):
        distances = (positions - positions[order[-1]]).norm(dim=-1)
        order.append(int(distances.where(left, torch.inf).argmin()))
        left[order[-1]] = False
    return order


def _lengths(poses: Tensor) -> Tensor:
    """Say how long the parts of a way are: distance and angle, each divided by its mean."""
    positions, rotations = poses[:, :3, 3], poses[:, :3, :3]
    steps: Tensor = (positions[1:] - positions[:-1]).norm(dim=-1)
    angles = rotation_angle(rotations[1:], rotations[:-1])
    if len(steps) == 0:
        return steps
    least = ROUNDING * max(float(positions.abs().max()), 1e-30)
    lengths: Tensor = steps / steps.mean().clamp(min=least) + angles / angles.mean().clamp(min=ROUNDING)
    return lengths


def _spline(points: Tensor, lengths: Tensor, closed: bool, part: Tensor, along: Tensor) -> Tensor:
    """Interpolate with cubics: the velocity at a point is that of the parabola through it and its neighbours."""
    steps = (points[1:] - points[:-1]) / lengths[:, None]
    before, after = (torch.cat([steps[-1:], steps, steps[:1]])[i : i + len(points)] for i in (0, 1))
    spans = torch.cat([lengths[-1:], lengths, lengths[:1]])[:, None]
    velocity = (before * spans[1:] + after * spans[:-1]) / (spans[1:] + spans[:-1])
    if not closed:  # at the ends, of the parabola through the last three points
        velocity[0], velocity[-1] = steps[0], steps[-1]
        if len(steps) > 1:
            velocity[0], velocity[-1] = 2 * steps[0] - velocity[1], 2 * steps[-1] - velocity[-2]
    a, b = points[part], points[part + 1]
    u, v = velocity[part] * lengths[part, None], velocity[part + 1] * lengths[part, None]
    cubic = a + along * u + along**2 * (3 * (b - a) - 2 * u - v) + along**3 * (2 * (a - b) + u + v)
    return cubic


def _turned(rotations: Tensor, part: Tensor, along: Tensor) -> Tensor:
    """Turn from one rotation to the next, evenly about one axis."""
    start = rotations[part]
    return start @ so3_exp_map(along * so3_log_map(start.mT @ rotations[part + 1]))
