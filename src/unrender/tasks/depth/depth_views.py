"""Depth images for fusion and point clouds, measured in a field."""

import torch
from jaxtyping import Float
from torch import Tensor

from unrender.fields.protocol import RenderedField
from unrender.geometry.camera import Camera
from unrender.render.depth import DepthMap, DepthView
from unrender.tasks.depth.measure_depth import measure_depth


def measure_view(field: RenderedField, camera: Camera) -> DepthView:
    """Return the median depth of a field in a view, with the color of its surface."""
    depth = measure_depth(field, camera)
    return median_view(depth, surface_color(field, depth))


def surface_color(field: RenderedField, depth: DepthMap) -> Float[Tensor, "height width 3"]:
    """Return the rendered color divided by the opacity: the color of the surface without its background."""
    rendered = field.render(depth.camera, depth.opacity.new_zeros(3))
    return (rendered.color / rendered.opacity.clamp(min=1e-3)[..., None]).clamp(0, 1)


def median_view(depth: DepthMap, color: Tensor | None = None) -> DepthView:
    """Return the median depth, 0 where it is not valid."""
    return DepthView(depth.camera, torch.where(depth.valid, depth.median_z, 0), color)
