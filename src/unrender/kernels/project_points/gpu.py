"""Points seen by cameras: one thread for each, and on the way back one for each point, and for some points of a camera.

Each gradient is a sum in fixed order: of a point over the cameras that see it, of a camera over its points.
"""

import math
from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision

POINTS_PER_THREAD = 32
"""Of those whose terms of a camera's gradient one thread adds."""
OF_CAMERA = 20
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
    cotangent: Tensor,
    of_points: bool,
    of_cameras: bool,
) -> tuple[Tensor | None, ...]:
    inputs = (points, camera_from_world, focal, center)
    shape, arrays = _flatten(*inputs)
    images, (num_points, count), slopes = math.prod(shape), arrays[0].shape[:2], cotangent.contiguous()
    kernels, to_points = project_kernels(points.dtype), None
    if of_points:
        to_points = torch.empty_like(arrays[0])
        launch(
            kernels.point_gradients, (num_points, count), *arrays, int(perspective), slopes, images, to_points
        )
        to_points = _unbroadcast(to_points, points, shape)
    if not of_cameras:
        return to_points, None, None, None
    parts = -(-count // POINTS_PER_THREAD)
    terms = points.new_empty(images, parts, OF_CAMERA)
    launch(kernels.camera_gradients, (images, parts), *arrays, int(perspective), slopes, terms)
    sums = terms.view(len(arrays[1]), -1, OF_CAMERA).sum(1)
    gradients = sums[:, :16].unflatten(1, (4, 4)), sums[:, 16:18], sums[:, 18:]
    return to_points, *(_unbroadcast(g, t, shape) for g, t in zip(gradients, inputs[1:], strict=True))


def _flatten(*inputs: Tensor) -> tuple[tuple[int, ...], list[Tensor]]:
    """Give all inputs one batch axis, of one entry or as many as there are images; return the images' axes too."""
    own = [2, 2, 1, 1]
    batches = [tuple(t.shape[: t.dim() - axes]) for t, axes in zip(inputs, own, strict=True)]
    cameras = torch.broadcast_shapes(*batches[1:])
    shape = tuple(torch.broadcast_shapes(batches[0], cameras))
    flat = []
    for tensor, batch, axes, wanted in zip(inputs, batches, own, (batches[0], *[cameras] * 3), strict=True):
        if batch != wanted:
            tensor = tensor.expand(*wanted, *tensor.shape[-axes:])
        if math.prod(wanted) not in (1, math.prod(shape)):
            tensor = tensor.expand(*shape, *tensor.shape[-axes:])
        flat.append(tensor.detach().reshape(-1, *tensor.shape[-axes:]).contiguous())
    return shape, flat


def _unbroadcast(gradient: Tensor, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum a gradient over the axes along which its input was repeated."""
    if gradient.numel() == like.numel():
        return gradient.view(like.shape)
    return gradient.view(*shape, *gradient.shape[1:]).sum_to_size(like.shape)


@per_precision("project_points")
def project_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec2, vec3, vec4 = types.scalar, types.vec2, types.vec3, types.vec4
    pose_of = wp.types.matrix((4, 4), scalar)

    @wp.func
    def in_camera(pose: pose_of, point: vec3):
        x = pose[0, 0] * point[0] + pose[0, 1] * point[1] + pose[0, 2] * point[2] + pose[0, 3]
        y = pose[1, 0] * point[0] + pose[1, 1] * point[1] + pose[1, 2] * point[2] + pose[1, 3]
        z = pose[2, 0] * point[0] + pose[2, 1] * point[1] + pose[2, 2] * point[2] + pose[2, 3]
        return vec3(x, y, z)

    @wp.func
    def from_camera(slope: vec4, focal: vec2, center: vec2, perspective: int):
        """Return the gradient of a point in the camera's frame."""
        z = slope[3]
        if perspective != 0:
            z += slope[2] + center[0] * slope[0] + center[1] * slope[1]
        return vec3(focal[0] * slope[0], focal[1] * slope[1], z)

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
        slopes: wp.array2d(dtype=vec4),
        images: int,
        gradient: wp.array2d(dtype=vec3),
    ):
        own, i = wp.tid()
        total = vec3(scalar(0.0))
        for image in range(own, images, points.shape[0]):
            camera = image % poses.shape[0]
            pose = poses[camera]
            slope = from_camera(slopes[image, i], focal[camera], center[camera], perspective)
            for axis in range(3):
                total += slope[axis] * vec3(pose[axis, 0], pose[axis, 1], pose[axis, 2])
        gradient[own, i] = total

    @types.kernel
    def camera_gradients(
        points: wp.array2d(dtype=vec3),
        poses: wp.array(dtype=pose_of),
        focal: wp.array(dtype=vec2),
        center: wp.array(dtype=vec2),
        perspective: int,
        slopes: wp.array2d(dtype=vec4),
        terms: wp.array3d(dtype=scalar),
    ):
        image, part = wp.tid()
        camera, first = image % poses.shape[0], part * POINTS_PER_THREAD
        of_pose = pose_of(scalar(0.0))
        of_focal, of_center = vec2(scalar(0.0)), vec2(scalar(0.0))
        for i in range(first, wp.min(first + POINTS_PER_THREAD, points.shape[1])):
            point, slope = points[image % points.shape[0], i], slopes[image, i]
            seen = in_camera(poses[camera], point)
            to_seen = from_camera(slope, focal[camera], center[camera], perspective)
            for row in range(3):
                for column in range(3):
                    of_pose[row, column] += to_seen[row] * point[column]
                of_pose[row, 3] += to_seen[row]
            w = scalar(1.0)
            if perspective != 0:
                w = seen[2]
            for axis in range(2):
                of_focal[axis] += slope[axis] * seen[axis]
                of_center[axis] += slope[axis] * w
        for row in range(4):
            for column in range(4):
                terms[image, part, row * 4 + column] = of_pose[row, column]
        for axis in range(2):
            terms[image, part, 16 + axis] = of_focal[axis]
            terms[image, part, 18 + axis] = of_center[axis]

    return SimpleNamespace(
        project=project, point_gradients=point_gradients, camera_gradients=camera_gradients
    )
