"""Reflection; one thread for each point. The gradient of a coefficient is a sum over the points, in torch's order."""

from types import SimpleNamespace

import torch
import warp as wp
from torch import Tensor

from unrender.kernels._warp import Precision, launch, per_precision


def forward(
    normals: Tensor,
    directions: Tensor,
    views: Tensor,
    colors: Tensor,
    diffuse: Tensor | float,
    specular: Tensor | float,
    shininess: Tensor | float,
) -> Tensor:
    points = [t.detach().contiguous() for t in (normals, directions, views, colors)]
    reflected = torch.empty_like(points[-1])
    arguments = (*points, *_coefficients(colors, diffuse, specular, shininess), reflected)
    launch(reflect_kernels(colors.dtype).reflect, len(colors), *arguments)
    return reflected


def backward(
    normals: Tensor,
    directions: Tensor,
    views: Tensor,
    colors: Tensor,
    diffuse: Tensor | float,
    specular: Tensor | float,
    shininess: Tensor | float,
    cotangent: Tensor,
) -> tuple[Tensor | None, ...]:
    coefficients = (diffuse, specular, shininess)
    points = [t.detach().contiguous() for t in (normals, directions, views, colors)]
    gradients, channels = [torch.empty_like(t) for t in points], colors.shape[-1]
    terms = None
    if any(isinstance(t, Tensor) for t in coefficients):
        terms = colors.new_empty(len(colors), 2 * channels + 1)
    arguments = (*points, *_coefficients(colors, *coefficients), cotangent.contiguous(), *gradients, terms)
    launch(reflect_kernels(colors.dtype).reflect_backward, len(colors), *arguments)
    if terms is None:
        return *gradients, None, None, None
    sums = terms.sum(0).split([channels, channels, 1])
    return *gradients, *(
        total.sum_to_size(t.shape if t.dim() else (1,)).view(t.shape) if isinstance(t, Tensor) else None
        for total, t in zip(sums, coefficients, strict=True)
    )


def _coefficients(colors: Tensor, *coefficients: Tensor | float) -> list[Tensor | float | None]:
    """Return each as an array and a number, of which the array counts where there is one."""
    pairs = [
        (t.detach().to(colors).contiguous(), 0.0) if isinstance(t, Tensor) else (None, t)
        for t in coefficients
    ]
    return [value for pair in pairs for value in pair]


@per_precision("reflect")
def reflect_kernels(types: Precision) -> SimpleNamespace:
    """Define the kernels."""
    scalar, vec3 = types.scalar, types.vec3
    zero, one, two = scalar(0.0), scalar(1.0), scalar(2.0)

    @wp.func
    def pick(values: wp.array(dtype=scalar), value: scalar, channel: int):
        if values.shape[0] == 0:
            return value
        return values[channel % values.shape[0]]

    @types.kernel
    def reflect(
        normals: wp.array(dtype=vec3),
        directions: wp.array(dtype=vec3),
        views: wp.array(dtype=vec3),
        colors: wp.array2d(dtype=scalar),
        diffuse: wp.array(dtype=scalar),
        diffuse_value: scalar,
        specular: wp.array(dtype=scalar),
        specular_value: scalar,
        shininess: wp.array(dtype=scalar),
        shininess_value: scalar,
        reflected: wp.array2d(dtype=scalar),
    ):
        i = wp.tid()
        cosine = wp.dot(normals[i], directions[i])
        aligned = wp.dot(two * cosine * normals[i] - directions[i], views[i])
        highlight = scalar(0.0)
        if aligned > zero and cosine > zero:
            highlight = wp.pow(aligned, pick(shininess, shininess_value, 0))
        for channel in range(colors.shape[1]):
            shade = colors[i, channel] * pick(diffuse, diffuse_value, channel) * wp.max(cosine, zero)
            reflected[i, channel] = shade + pick(specular, specular_value, channel) * highlight

    @types.kernel
    def reflect_backward(
        normals: wp.array(dtype=vec3),
        directions: wp.array(dtype=vec3),
        views: wp.array(dtype=vec3),
        colors: wp.array2d(dtype=scalar),
        diffuse: wp.array(dtype=scalar),
        diffuse_value: scalar,
        specular: wp.array(dtype=scalar),
        specular_value: scalar,
        shininess: wp.array(dtype=scalar),
        shininess_value: scalar,
        slopes: wp.array2d(dtype=scalar),
        to_normals: wp.array(dtype=vec3),
        to_directions: wp.array(dtype=vec3),
        to_views: wp.array(dtype=vec3),
        to_colors: wp.array2d(dtype=scalar),
        terms: wp.array2d(dtype=scalar),
    ):
        """Compute the gradients, and the terms of those of the coefficients where `terms` is an array."""
        i = wp.tid()
        channels = colors.shape[1]
        normal, direction, view = normals[i], directions[i], views[i]
        cosine = wp.dot(normal, direction)
        mirrored = two * cosine * normal - direction
        aligned = wp.dot(mirrored, view)
        exponent = pick(shininess, shininess_value, 0)
        highlight, slope_of_aligned = scalar(0.0), scalar(0.0)
        bright = aligned > zero and cosine > zero
        if bright:
            highlight = wp.pow(aligned, exponent)
            slope_of_aligned = exponent * wp.pow(aligned, exponent - one)
        to_cosine, to_highlight = scalar(0.0), scalar(0.0)
        for channel in range(channels):
            slope, k = slopes[i, channel], pick(diffuse, diffuse_value, channel)
            to_colors[i, channel] = slope * k * wp.max(cosine, zero)
            to_highlight += slope * pick(specular, specular_value, channel)
            if cosine >= zero:
                to_cosine += slope * k * colors[i, channel]
            if terms.shape[0] > 0:
                terms[i, channel] = slope * colors[i, channel] * wp.max(cosine, zero)
                terms[i, channels + channel] = slope * highlight
        to_aligned = to_highlight * slope_of_aligned
        if terms.shape[0] > 0:
            terms[i, 2 * channels] = zero
            if bright:
                terms[i, 2 * channels] = to_highlight * highlight * wp.log(aligned)
        to_cosine += two * to_aligned * wp.dot(normal, view)
        to_normals[i] = to_cosine * direction + two * cosine * to_aligned * view
        to_directions[i] = to_cosine * normal - to_aligned * view
        to_views[i] = to_aligned * mirrored

    return SimpleNamespace(reflect=reflect, reflect_backward=reflect_backward)
