"""Projection of points: one thread per point and camera; backward, one per point, and one per chunk of points.

Gradients are sums in a fixed order: those of points over the cameras, those of cameras over the points.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision
from unrender.kernels.project_points.reference import NEAR

POINTS_PER_THREAD = 32
"""Points per thread in the gradient of a camera."""
CAMERA_SIZE = 20
"""Numbers of a camera: its matrix, focal lengths and center."""


def forward(
    points: Tensor, camera_from_world: Tensor, focal: Tensor, center: Tensor, perspective: bool
) -> Tensor:
    shape, arrays = _flatten(points, camera_from_world, focal, center)
    images, count = math.prod(shape), points.shape[-2]
    projected = points.new_empty(*shape, count, 4)
    launch(project_kernels(points.dtype).project, (images, count), *arrays, int(perspective), projected)
    return projected


def backward(
    points: Tensor,
    camera_from_world: Tensor,
    focal: Tensor,
    center: Tensor,
    perspective: bool,
    grad_output: Tensor,
    needs_grad: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients of the inputs for which `needs_grad` is true."""
    inputs = (points, camera_from_world, focal, center)
    shape, arrays = _flatten(*inputs)
    images, count, grad_output = math.prod(shape), points.shape[-2], grad_output.contiguous()
    kernels, grad_points = project_kernels(points.dtype), None
    if needs_grad[0]:
        grad_points, size = torch.empty_like(arrays[0]), (arrays[0].shape[:-2].numel(), count)
        launch(kernels.point_gradients, size, *arrays, int(perspective), grad_output, images, grad_points)
        grad_points = _unbroadcast(grad_points, points, shape, 2)
    if not any(needs_grad[1:]):
        return grad_points, None, None, None
    parts = -(-count // POINTS_PER_THREAD)
    terms = points.new_empty(images, parts, CAMERA_SIZE)
    launch(kernels.camera_gradients, (images, parts), *arrays, int(perspective), grad_output, terms)
    sums = terms.view(arrays[1].shape[:-2].numel(), -1, CAMERA_SIZE).sum(1)
    own = zip(inputs[1:], (2, 1, 1), ((0, 16), (16, 18), (18, 20)), needs_grad[1:], strict=True)
    return grad_points, *(
        _unbroadcast(sums[:, start:end], like, shape, axes) if needed else None
        for like, axes, (start, end), needed in own
    )


def near_plane(projected: Tensor) -> Tensor:
    near = projected.new_full((), torch.finfo(projected.dtype).tiny)
    count = projected.shape[:-1].numel()
    launch(
        project_kernels(projected.dtype).farthest,
        -(-count // POINTS_PER_THREAD),
        projected.contiguous(),
        near,
    )
    return near


def _flatten(*inputs: Tensor) -> tuple[tuple[int, ...], list[Tensor]]:
    """Expand all inputs to the same batch axes, or to those of a single entry; also return the batch shape."""
    own = [2, 2, 1, 1]
    batches = [tuple(t.shape[: t.dim() - axes]) for t, axes in zip(inputs, own, strict=True)]
    cameras = _broadcast(batches[1:])
    shape, wanted, flat = _broadcast([batches[0], cameras]), [batches[0], *[cameras] * 3], []
    for tensor, batch, axes, full in zip(inputs, batches, own, wanted, strict=True):
        single = math.prod(full) == 1
        if batch != (full if single else shape):
            tensor = tensor.expand(*(full if single else shape), *tensor.shape[-axes:])
        flat.append(tensor.contiguous())
    return shape, flat


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the broadcast shape; `torch.broadcast_shapes` takes as long as a launch."""
    distinct = set(shapes) - {()}
    if len(distinct) <= 1:
        return next(iter(distinct), ())
    return tuple(torch.broadcast_shapes(*distinct))


def _unbroadcast(gradient: Tensor, like: Tensor, shape: tuple[int, ...], axes: int) -> Tensor:
    """Sum a gradient over the axes, before its own, along which its input was repeated."""
    if gradient.numel() == like.numel():
        return gradient.reshape(like.shape)
    return gradient.reshape(*shape, *like.shape[-axes:]).sum_to_size(like.shape)


@per_precision("project_points")
def project_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec2, vec3, vec4 = types.scalar, types.vec2, types.vec3, types.vec4
    pose_of = wp.types.matrix((4, 4), scalar)

    @types.kernel
    def farthest(projected: wp.array(dtype=vec4), near: wp.array(dtype=scalar)):
        """Raise the near plane to that of the farthest of some points."""
        first = wp.tid() * POINTS_PER_THREAD
        depth = scalar(0.0)
        for i in range(first, wp.min(first + POINTS_PER_THREAD, projected.shape[0])):
            depth = wp.max(depth, projected[i][3])
        wp.atomic_max(near, 0, scalar(NEAR) * depth)

    @wp.func
    def in_camera(pose: pose_of, point: vec3):
        x = pose[0, 0] * point[0] + pose[0, 1] * point[1] + pose[0, 2] * point[2] + pose[0, 3]
        y = pose[1, 0] * point[0] + pose[1, 1] * point[1] + pose[1, 2] * point[2] + pose[1, 3]
        z = pose[2, 0] * point[0] + pose[2, 1] * point[1] + pose[2, 2] * point[2] + pose[2, 3]
        return vec3(x, y, z)

    @wp.func
    def from_camera(grad: vec4, focal: vec2, center: vec2, perspective: int):
        """Return the gradient of a point in the camera's frame."""
        z = grad[3]
        if perspective != 0:
            z += grad[2] + center[0] * grad[0] + center[1] * grad[1]
        return vec3(focal[0] * grad[0], focal[1] * grad[1], z)

    @types.kernel
    def project(
        points: wp.array2d(dtype=vec3),
        poses: wp.array(dtype=pose_of),
        focal: wp.array(dtype=vec2),
        center: wp.array(dtype=vec2),
        perspective: int,
        projected: wp.array2d(dtype=vec4),
    ):
        image, i = wp.tid()
        camera = image % poses.shape[0]
        point = in_camera(poses[camera], points[image % points.shape[0], i])
        w = scalar(1.0)
        if perspective != 0:
            w = point[2]
        x = point[0] * focal[camera][0] + w * center[camera][0]
        y = point[1] * focal[camera][1] + w * center[camera][1]
        projected[image, i] = vec4(x, y, w, point[2])

    @types.kernel
    def point_gradients(
        points: wp.array2d(dtype=vec3),
        poses: wp.array(dtype=pose_of),
        focal: wp.array(dtype=vec2),
        center: wp.array(dtype=vec2),
        perspective: int,
        grad_output: wp.array2d(dtype=vec4),
        images: int,
        gradient: wp.array2d(dtype=vec3),
    ):
        own_axes, i = wp.tid()
        total = vec3(scalar(0.0))
        for image in range(own_axes, images, points.shape[0]):
            camera = image % poses.shape[0]
            pose = poses[camera]
            grad = from_camera(grad_output[image, i], focal[camera], center[camera], perspective)
            for axis in range(3):
                total += grad[axis] * vec3(pose[axis, 0], pose[axis, 1], pose[axis, 2])
        gradient[own_axes, i] = total

    @types.kernel
    def camera_gradients(
        points: wp.array2d(dtype=vec3),
        poses: wp.array(dtype=pose_of),
        focal: wp.array(dtype=vec2),
        center: wp.array(dtype=vec2),
        perspective: int,
        grad_output: wp.array2d(dtype=vec4),
        terms: wp.array3d(dtype=scalar),
    ):
        image, part = wp.tid()
        camera, first = image % poses.shape[0], part * POINTS_PER_THREAD
        grad_pose = pose_of(scalar(0.0))
        grad_focal, grad_center = vec2(scalar(0.0)), vec2(scalar(0.0))
        for i in range(first, wp.min(first + POINTS_PER_THREAD, points.shape[1])):
            point, grad = points[image % points.shape[0], i], grad_output[image, i]
            point_camera = in_camera(poses[camera], point)
            grad_point = from_camera(grad, focal[camera], center[camera], perspective)
            for row in range(3):
                for column in range(3):
                    grad_pose[row, column] += grad_point[row] * point[column]
                grad_pose[row, 3] += grad_point[row]
            w = scalar(1.0)
            if perspective != 0:
                w = point_camera[2]
            for axis in range(2):
                grad_focal[axis] += grad[axis] * point_camera[axis]
                grad_center[axis] += grad[axis] * w
        for row in range(4):
            for column in range(4):
                terms[image, part, row * 4 + column] = grad_pose[row, column]
        for axis in range(2):
            terms[image, part, 16 + axis] = grad_focal[axis]
            terms[image, part, 18 + axis] = grad_center[axis]

    return SimpleNamespace(
        farthest=farthest,
        project=project,
        point_gradients=point_gradients,
        camera_gradients=camera_gradients,
    )
