"""Phong shading: one thread per fragment. Gradients of vertices are accumulated in fixed point."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._fixed_point import from_sums
from unrender.kernels._warp import (
    TORCH_TYPES,
    Precision,
    count_log2,
    in_units,
    launch,
    per_precision,
    size_bits,
    unit_exponent,
)
from unrender.kernels.normalize.reference import min_length
from unrender.kernels.shade_layers import reference

AMBIENT, DIRECTIONAL, POINT, HEADLIGHT = (
    wp.constant(kind)
    for kind in (reference.AMBIENT, reference.DIRECTIONAL, reference.POINT, reference.HEADLIGHT)
)


def forward(
    vertices: Tensor,
    normals: Tensor,
    colors: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    camera_from_world: Tensor,
    lights: Tensor,
    perspective: bool,
    two_sided: bool,
) -> Tensor:
    inputs = (vertices, normals, colors, faces.long(), face_ids.int(), barycentric, camera_from_world, lights)
    arrays = [t.contiguous() for t in inputs]
    shaded = vertices.new_empty(*face_ids.shape, colors.shape[-1])
    settings = (int(perspective), int(two_sided), face_ids.shape[-3] * face_ids.shape[-2])
    kernels = shade_kernels(vertices.dtype, colors.shape[-1])
    launch(kernels.shade, _size(face_ids), *arrays, *settings, shaded)
    return shaded


def backward(
    vertices: Tensor,
    normals: Tensor,
    colors: Tensor,
    faces: Tensor,
    face_ids: Tensor,
    barycentric: Tensor,
    camera_from_world: Tensor,
    lights: Tensor,
    perspective: bool,
    two_sided: bool,
    grad_output: Tensor,
    needs_colors: bool,
) -> tuple[Tensor | None, ...]:
    inputs = (vertices, normals, colors, faces.long(), face_ids.int(), barycentric, camera_from_world, lights)
    arrays = [t.contiguous() for t in (*inputs, grad_output)]
    settings = (int(perspective), int(two_sided), face_ids.shape[-3] * face_ids.shape[-2])
    sizes = [vertices.numel(), normals.numel(), colors.numel() if needs_colors else 0]
    sums = torch.zeros(sum(sizes) + 1, dtype=torch.int64, device=vertices.device)
    grad_barycentric = vertices.new_empty(barycentric.shape)
    kernels, bits = shade_kernels(vertices.dtype, colors.shape[-1]), count_log2(3 * face_ids.numel())
    for accumulates in (0, 1):
        numbers = (int(needs_colors), bits, accumulates)
        launch(kernels.scatter, _size(face_ids), *arrays, *settings, *numbers, sums, grad_barycentric)
    found = from_sums(sums[:-1], sums[-1:], bits, vertices.dtype).split(sizes)
    grad_vertices, grad_normals = found[0].view(vertices.shape), found[1].view(normals.shape)
    return (
        grad_vertices,
        grad_normals,
        found[2].view(colors.shape) if needs_colors else None,
        grad_barycentric,
    )


def _size(face_ids: Tensor) -> tuple[int, int]:
    return face_ids.shape[:-1].numel(), face_ids.shape[-1]


@per_precision("shade_layers")
def shade_kernels(types: Precision, channels: int) -> SimpleNamespace:
    """Define the kernels for colors of so many channels."""
    scalar, vec3, color_of = types.scalar, types.vec3, wp.types.vector(channels, types.scalar)
    pose_of = wp.types.matrix((4, 4), types.scalar)
    zero, one, two = scalar(0.0), scalar(1.0), scalar(2.0)
    shortest = scalar(min_length(torch.empty(0, dtype=TORCH_TYPES[types.scalar])))

    @wp.func
    def unit(vector: vec3):
        length = wp.length(vector)
        if length <= shortest:
            return vec3(zero)
        return vector / length

    @wp.func
    def unit_backward(vector: vec3, grad: vec3):
        length = wp.length(vector)
        if length <= shortest:
            return vec3(zero)
        direction = vector / length
        return (grad - wp.dot(grad, direction) * direction) / length

    @wp.func
    def mix(
        values: wp.array2d(dtype=vec3), faces: wp.array2d(dtype=wp.int64), b: int, face: int, weights: vec3
    ):
        total = vec3(zero)
        for k in range(3):
            total += weights[k] * values[b, int(faces[face, k])]
        return total

    @wp.func
    def to_camera(pose: pose_of, position: vec3, perspective: int):
        """Return the direction to the camera, not normalized."""
        right, down = vec3(pose[0, 0], pose[0, 1], pose[0, 2]), vec3(pose[1, 0], pose[1, 1], pose[1, 2])
        ahead = vec3(pose[2, 0], pose[2, 1], pose[2, 2])
        if perspective == 0:
            return -ahead
        return -(pose[0, 3] * right + pose[1, 3] * down + pose[2, 3] * ahead) - position

    @wp.func
    def to_light(lights: wp.array2d(dtype=scalar), n: int, position: vec3):
        """Return the direction to a directional or point light, not normalized."""
        place = vec3(lights[n, 1], lights[n, 2], lights[n, 3])
        if int(lights[n, 0]) == POINT:
            return place - position
        return place

    @wp.func
    def coefficients(lights: wp.array2d(dtype=scalar), n: int, first: int):
        values = color_of(zero)
        for channel in range(channels):
            values[channel] = lights[n, first + channel]
        return values

    @types.kernel
    def shade(
        vertices: wp.array2d(dtype=vec3),
        normals: wp.array2d(dtype=vec3),
        colors: wp.array(dtype=color_of),
        faces: wp.array2d(dtype=wp.int64),
        face_ids: wp.array2d(dtype=wp.int32),
        barycentric: wp.array2d(dtype=vec3),
        poses: wp.array(dtype=pose_of),
        lights: wp.array2d(dtype=scalar),
        perspective: int,
        two_sided: int,
        pixels: int,
        shaded: wp.array2d(dtype=color_of),
    ):
        pixel, layer = wp.tid()
        face = face_ids[pixel, layer]
        total = color_of(zero)
        if face >= 0:
            image, weights = pixel // pixels, barycentric[pixel, layer]
            position = mix(vertices, faces, image % vertices.shape[0], face, weights)
            normal = unit(mix(normals, faces, image % normals.shape[0], face, weights))
            albedo = color_of(zero)
            for k in range(3):
                albedo += weights[k] * colors[int(faces[face, k]) % colors.shape[0]]
            view = unit(to_camera(poses[image % poses.shape[0]], position, perspective))
            if two_sided != 0 and wp.dot(normal, view) < zero:
                normal = -normal
            for n in range(lights.shape[0]):
                kind, diffuse = int(lights[n, 0]), coefficients(lights, n, 5)
                if kind == AMBIENT:
                    total += wp.cw_mul(albedo, diffuse)
                else:
                    direction = view + vec3(zero)
                    if kind != HEADLIGHT:
                        direction = unit(to_light(lights, n, position))
                    cosine = wp.dot(normal, direction)
                    aligned = wp.dot(two * cosine * normal - direction, view)
                    total += wp.max(cosine, zero) * wp.cw_mul(albedo, diffuse)
                    if aligned > zero and cosine > zero:
                        total += wp.pow(aligned, lights[n, 4]) * coefficients(lights, n, 5 + channels)
        shaded[pixel, layer] = total

    @wp.func
    def shade_backward(
        position: vec3,
        interpolated: vec3,
        albedo: color_of,
        outward: vec3,
        lights: wp.array2d(dtype=scalar),
        perspective: int,
        two_sided: int,
        grad: color_of,
    ):
        """Return the gradients of the position, the interpolated normal and the color; `outward` is to the camera."""
        normal, view = unit(interpolated), unit(outward)
        sign = scalar(1.0)
        if two_sided != 0 and wp.dot(normal, view) < zero:
            sign = -one
        normal = sign * normal
        grad_position, grad_normal, grad_view, grad_color = vec3(zero), vec3(zero), vec3(zero), color_of(zero)
        for n in range(lights.shape[0]):
            kind, diffuse = int(lights[n, 0]), coefficients(lights, n, 5)
            if kind == AMBIENT:
                grad_color += wp.cw_mul(grad, diffuse)
            else:
                towards = to_light(lights, n, position)
                direction = view + vec3(zero)
                if kind != HEADLIGHT:
                    direction = unit(towards)
                cosine = wp.dot(normal, direction)
                mirrored = two * cosine * normal - direction
                aligned = wp.dot(mirrored, view)
                grad_color += wp.max(cosine, zero) * wp.cw_mul(grad, diffuse)
                grad_cosine, grad_aligned = scalar(0.0), scalar(0.0)
                if cosine >= zero:
                    grad_cosine = wp.dot(wp.cw_mul(grad, diffuse), albedo)
                if aligned > zero and cosine > zero:
                    grad_highlight = wp.dot(grad, coefficients(lights, n, 5 + channels))
                    grad_aligned = grad_highlight * lights[n, 4] * wp.pow(aligned, lights[n, 4] - one)
                grad_cosine += two * grad_aligned * wp.dot(normal, view)
                grad_normal += grad_cosine * direction + two * cosine * grad_aligned * view
                grad_view += grad_aligned * mirrored
                grad_direction = grad_cosine * normal - grad_aligned * view
                if kind == HEADLIGHT:
                    grad_view += grad_direction
                elif kind == POINT:
                    grad_position -= unit_backward(towards, grad_direction)
        if perspective != 0:
            grad_position -= unit_backward(outward, grad_view)
        return grad_position, unit_backward(interpolated, sign * grad_normal), grad_color

    @wp.func
    def add_term(term: scalar, place: int, accumulates: int, exponent: int, sums: wp.array(dtype=wp.int64)):
        if accumulates == 1:
            wp.atomic_add(sums, place, in_units(wp.float64(term), exponent))
        else:
            bits = size_bits(wp.float64(term))
            if bits > sums[sums.shape[0] - 1]:
                wp.atomic_max(sums, sums.shape[0] - 1, bits)

    @types.kernel
    def scatter(
        vertices: wp.array2d(dtype=vec3),
        normals: wp.array2d(dtype=vec3),
        colors: wp.array(dtype=color_of),
        faces: wp.array2d(dtype=wp.int64),
        face_ids: wp.array2d(dtype=wp.int32),
        barycentric: wp.array2d(dtype=vec3),
        poses: wp.array(dtype=pose_of),
        lights: wp.array2d(dtype=scalar),
        grad_output: wp.array2d(dtype=color_of),
        perspective: int,
        two_sided: int,
        pixels: int,
        needs_colors: int,
        bits: int,
        accumulates: int,
        sums: wp.array(dtype=wp.int64),
        grad_barycentric: wp.array2d(dtype=vec3),
    ):
        """Backpropagate to barycentrics and record the largest term or, in a second launch, accumulate it."""
        pixel, layer = wp.tid()
        face = face_ids[pixel, layer]
        if face < 0:
            if accumulates == 0:
                grad_barycentric[pixel, layer] = vec3(zero)
            return
        image, weights = pixel // pixels, barycentric[pixel, layer]
        b, c = image % vertices.shape[0], image % normals.shape[0]
        position, interpolated = mix(vertices, faces, b, face, weights), mix(normals, faces, c, face, weights)
        albedo = color_of(zero)
        for k in range(3):
            albedo += weights[k] * colors[int(faces[face, k]) % colors.shape[0]]
        outward = to_camera(poses[image % poses.shape[0]], position, perspective)
        grad_position, grad_normal, grad_color = shade_backward(
            position, interpolated, albedo, outward, lights, perspective, two_sided, grad_output[pixel, layer]
        )
        exponent = int(0)
        if accumulates == 1:
            exponent = unit_exponent(sums[sums.shape[0] - 1], bits)
        num_vertices, grad_weights = vertices.shape[1], vec3(zero)
        normals_from = vertices.shape[0] * num_vertices * 3
        colors_from = normals_from + normals.shape[0] * num_vertices * 3
        for k in range(3):
            vertex = int(faces[face, k])
            own = vertex % colors.shape[0]
            for axis in range(3):
                place = (b * num_vertices + vertex) * 3 + axis
                add_term(weights[k] * grad_position[axis], place, accumulates, exponent, sums)
                place = normals_from + (c * num_vertices + vertex) * 3 + axis
                add_term(weights[k] * grad_normal[axis], place, accumulates, exponent, sums)
            if needs_colors != 0:
                for channel in range(channels):
                    place = colors_from + own * channels + channel
                    add_term(weights[k] * grad_color[channel], place, accumulates, exponent, sums)
            if accumulates == 0:
                along = wp.dot(grad_position, vertices[b, vertex]) + wp.dot(grad_normal, normals[c, vertex])
                grad_weights[k] = along + wp.dot(grad_color, colors[own])
        if accumulates == 0:
            grad_barycentric[pixel, layer] = grad_weights

    return SimpleNamespace(shade=shade, scatter=scatter)
