"""Reflection; one thread per point. Gradients of coefficients are sums over the points, in a fixed order."""

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
    grad_output: Tensor,
) -> tuple[Tensor | None, ...]:
    coefficients = (diffuse, specular, shininess)
    points = [t.detach().contiguous() for t in (normals, directions, views, colors)]
    gradients, channels = [torch.empty_like(t) for t in points], colors.shape[-1]
    terms = None
    if any(isinstance(t, Tensor) for t in coefficients):
        terms = colors.new_empty(len(colors), 2 * channels + 1)
    arguments = (*points, *_coefficients(colors, *coefficients), grad_output.contiguous(), *gradients, terms)
    launch(reflect_kernels(colors.dtype).reflect_backward, len(colors), *arguments)
    if terms is None:
        return *gradients, None, None, None
    sums = terms.sum(0).split([channels, channels, 1])
    return *gradients, *(
        total.sum_to_size(t.shape if t.dim() else (1,)).view(t.shape) if isinstance(t, Tensor) else None
        for total, t in zip(sums, coefficients, strict=True)
    )


def _coefficients(colors: Tensor, *coefficients: Tensor | float) -> list[Tensor | float | None]:
    """Return each as an array and a number; the array, if there is one, takes precedence."""
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
        grad_output: wp.array2d(dtype=scalar),
        grad_normals: wp.array(dtype=vec3),
        grad_directions: wp.array(dtype=vec3),
        grad_views: wp.array(dtype=vec3),
        grad_colors: wp.array2d(dtype=scalar),
        terms: wp.array2d(dtype=scalar),
    ):
        """Compute the gradients and, if `terms` is given, each point's term of the gradients of the coefficients."""
        i = wp.tid()
        channels = colors.shape[1]
        normal, direction, view = normals[i], directions[i], views[i]
        cosine = wp.dot(normal, direction)
        mirrored = two * cosine * normal - direction
        aligned = wp.dot(mirrored, view)
        exponent = pick(shininess, shininess_value, 0)
        highlight, power_derivative = scalar(0.0), scalar(0.0)
        has_highlight = aligned > zero and cosine > zero
        if has_highlight:
            highlight = wp.pow(aligned, exponent)
            power_derivative = exponent * wp.pow(aligned, exponent - one)
        grad_cosine, grad_highlight = scalar(0.0), scalar(0.0)
        for channel in range(channels):
            grad, k = grad_output[i, channel], pick(diffuse, diffuse_value, channel)
            grad_colors[i, channel] = grad * k * wp.max(cosine, zero)
            grad_highlight += grad * pick(specular, specular_value, channel)
            if cosine >= zero:
                grad_cosine += grad * k * colors[i, channel]
            if terms.shape[0] > 0:
                terms[i, channel] = grad * colors[i, channel] * wp.max(cosine, zero)
                terms[i, channels + channel] = grad * highlight
        grad_aligned = grad_highlight * power_derivative
        if terms.shape[0] > 0:
            terms[i, 2 * channels] = zero
            if has_highlight:
                terms[i, 2 * channels] = grad_highlight * highlight * wp.log(aligned)
        grad_cosine += two * grad_aligned * wp.dot(normal, view)
        grad_normals[i] = grad_cosine * direction + two * cosine * grad_aligned * view
        grad_directions[i] = grad_cosine * normal - grad_aligned * view
        grad_views[i] = grad_aligned * mirrored

    return SimpleNamespace(reflect=reflect, reflect_backward=reflect_backward)
