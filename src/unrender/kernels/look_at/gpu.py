"""Poses of cameras; one thread for each."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision
from unrender.kernels.look_at.reference import PARALLEL


def forward(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    inputs = [t.detach().contiguous() for t in (eye, target, up)]
    pose = eye.new_empty(*eye.shape[:-1], 4, 4)
    launch(look_at_kernels(eye.dtype).look, eye.numel() // 3, *inputs, pose)
    return pose


def backward(eye: Tensor, target: Tensor, up: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [t.detach().contiguous() for t in (eye, target, up, cotangent)]
    to_eye, to_target, to_up = (torch.empty_like(t) for t in inputs[:3])
    launch(look_at_kernels(eye.dtype).look_backward, eye.numel() // 3, *inputs, to_eye, to_target, to_up)
    return to_eye, to_target, to_up


@per_precision("look_at")
def look_at_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3
    pose_of = wp.types.matrix((4, 4), scalar)
    zero, parallel, shortest = scalar(0.0), scalar(PARALLEL), scalar(1e-12)

    @wp.func
    def unit(vector: vec3):
        return vector / wp.max(wp.length(vector), shortest)

    @wp.func
    def unit_backward(vector: vec3, slope: vec3):
        length = wp.length(vector)
        if length <= shortest:
            return slope / shortest
        direction = vector / length
        return (slope - wp.dot(slope, direction) * direction) / length

    @wp.func
    def is_along(ahead: vec3, upward: vec3):
        return wp.length(wp.cross(ahead, upward)) < parallel

    @wp.func
    def row_of(pose: pose_of, row: int):
        return vec3(pose[row, 0], pose[row, 1], pose[row, 2])

    @types.kernel
    def look(
        eyes: wp.array(dtype=vec3),
        targets: wp.array(dtype=vec3),
        ups: wp.array(dtype=vec3),
        poses: wp.array(dtype=pose_of),
    ):
        i = wp.tid()
        ahead, upward = unit(targets[i] - eyes[i]), unit(ups[i])
        if is_along(ahead, upward):
            upward = vec3(upward[2], upward[0], upward[1])
        right = unit(wp.cross(ahead, upward))
        down = wp.cross(ahead, right)
        pose = pose_of(zero)
        for axis in range(3):
            pose[0, axis] = right[axis]
            pose[1, axis] = down[axis]
            pose[2, axis] = ahead[axis]
        for row in range(3):
            pose[row, 3] = -wp.dot(row_of(pose, row), eyes[i])
        pose[3, 3] = scalar(1.0)
        poses[i] = pose

    @types.kernel
    def look_backward(
        eyes: wp.array(dtype=vec3),
        targets: wp.array(dtype=vec3),
        ups: wp.array(dtype=vec3),
        slopes: wp.array(dtype=pose_of),
        to_eyes: wp.array(dtype=vec3),
        to_targets: wp.array(dtype=vec3),
        to_ups: wp.array(dtype=vec3),
    ):
        i = wp.tid()
        eye, view, slope = eyes[i] + vec3(zero), targets[i] - eyes[i], slopes[i] + pose_of(zero)
        ahead, upward = unit(view), unit(ups[i])
        turned = is_along(ahead, upward)
        if turned:
            upward = vec3(upward[2], upward[0], upward[1])
        across = wp.cross(ahead, upward)
        right = unit(across)
        down = wp.cross(ahead, right)
        # the translation of each row is −row · eye
        to_right = row_of(slope, 0) - slope[0, 3] * eye
        to_down = row_of(slope, 1) - slope[1, 3] * eye
        to_ahead = row_of(slope, 2) - slope[2, 3] * eye
        to_eye = -(slope[0, 3] * right + slope[1, 3] * down + slope[2, 3] * ahead)
        to_ahead += wp.cross(right, to_down)
        to_right += wp.cross(to_down, ahead)
        to_across = unit_backward(across, to_right)
        to_ahead += wp.cross(upward, to_across)
        to_upward = wp.cross(to_across, ahead)
        if turned:
            to_upward = vec3(to_upward[1], to_upward[2], to_upward[0])
        to_view = unit_backward(view, to_ahead)
        to_eyes[i] = to_eye - to_view
        to_targets[i] = to_view
        to_ups[i] = unit_backward(ups[i] + vec3(zero), to_upward)

    return SimpleNamespace(look=look, look_backward=look_backward)
