"""Poses of cameras; one thread per camera."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision
from unrender.kernels.look_at.reference import PARALLEL


def forward(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    inputs = [t.contiguous() for t in (eye, target, up)]
    pose = eye.new_empty(*eye.shape[:-1], 4, 4)
    launch(look_at_kernels(eye.dtype).look_at, eye.numel() // 3, *inputs, pose)
    return pose


def backward(eye: Tensor, target: Tensor, up: Tensor, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [t.contiguous() for t in (eye, target, up, grad_output)]
    grad_eye, grad_target, grad_up = (torch.empty_like(t) for t in inputs[:3])
    launch(
        look_at_kernels(eye.dtype).look_at_backward, eye.numel() // 3, *inputs, grad_eye, grad_target, grad_up
    )
    return grad_eye, grad_target, grad_up


@per_precision("look_at")
def look_at_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3
    pose_of = wp.types.matrix((4, 4), scalar)
    zero, parallel, min_length = scalar(0.0), scalar(PARALLEL), scalar(1e-12)

    @wp.func
    def unit(vector: vec3):
        return vector / wp.max(wp.length(vector), min_length)

    @wp.func
    def unit_backward(vector: vec3, grad: vec3):
        length = wp.length(vector)
        if length <= min_length:
            return grad / min_length
        direction = vector / length
        return (grad - wp.dot(grad, direction) * direction) / length

    @wp.func
    def is_along(forward_axis: vec3, upward: vec3):
        return wp.length(wp.cross(forward_axis, upward)) < parallel

    @wp.func
    def row_of(pose: pose_of, row: int):
        return vec3(pose[row, 0], pose[row, 1], pose[row, 2])

    @types.kernel
    def look_at(
        eyes: wp.array(dtype=vec3),
        targets: wp.array(dtype=vec3),
        ups: wp.array(dtype=vec3),
        poses: wp.array(dtype=pose_of),
    ):
        i = wp.tid()
        forward_axis, upward = unit(targets[i] - eyes[i]), unit(ups[i])
        if is_along(forward_axis, upward):
            upward = vec3(upward[2], upward[0], upward[1])
        right = unit(wp.cross(forward_axis, upward))
        down = wp.cross(forward_axis, right)
        pose = pose_of(zero)
        for axis in range(3):
            pose[0, axis] = right[axis]
            pose[1, axis] = down[axis]
            pose[2, axis] = forward_axis[axis]
        for row in range(3):
            pose[row, 3] = -wp.dot(row_of(pose, row), eyes[i])
        pose[3, 3] = scalar(1.0)
        poses[i] = pose

    @types.kernel
    def look_at_backward(
        eyes: wp.array(dtype=vec3),
        targets: wp.array(dtype=vec3),
        ups: wp.array(dtype=vec3),
        grad_poses: wp.array(dtype=pose_of),
        grad_eyes: wp.array(dtype=vec3),
        grad_targets: wp.array(dtype=vec3),
        grad_ups: wp.array(dtype=vec3),
    ):
        i = wp.tid()
        eye, view, grad = eyes[i] + vec3(zero), targets[i] - eyes[i], grad_poses[i] + pose_of(zero)
        forward_axis, upward = unit(view), unit(ups[i])
        is_parallel = is_along(forward_axis, upward)
        if is_parallel:
            upward = vec3(upward[2], upward[0], upward[1])
        unnormalized_right = wp.cross(forward_axis, upward)
        right = unit(unnormalized_right)
        down = wp.cross(forward_axis, right)
        # the translation of each row is −row · eye
        grad_right = row_of(grad, 0) - grad[0, 3] * eye
        grad_down = row_of(grad, 1) - grad[1, 3] * eye
        grad_forward = row_of(grad, 2) - grad[2, 3] * eye
        grad_eye = -(grad[0, 3] * right + grad[1, 3] * down + grad[2, 3] * forward_axis)
        grad_forward += wp.cross(right, grad_down)
        grad_right += wp.cross(grad_down, forward_axis)
        grad_unnormalized = unit_backward(unnormalized_right, grad_right)
        grad_forward += wp.cross(upward, grad_unnormalized)
        grad_upward = wp.cross(grad_unnormalized, forward_axis)
        if is_parallel:
            grad_upward = vec3(grad_upward[1], grad_upward[2], grad_upward[0])
        grad_view = unit_backward(view, grad_forward)
        grad_eyes[i] = grad_eye - grad_view
        grad_targets[i] = grad_view
        grad_ups[i] = unit_backward(ups[i] + vec3(zero), grad_upward)

    return SimpleNamespace(look_at=look_at, look_at_backward=look_at_backward)
