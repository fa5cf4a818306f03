"""Rendering of point clouds."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.points.compositor import AlphaCompositor, NormWeightedCompositor
from unrender.compat.pytorch3d.renderer.points.pulsar import PulsarPointsRenderer
from unrender.compat.pytorch3d.renderer.points.rasterize_points import rasterize_points
from unrender.compat.pytorch3d.renderer.points.rasterizer import (
    PointFragments,
    PointsRasterizationSettings,
    PointsRasterizer,
)
from unrender.compat.pytorch3d.renderer.points.renderer import PointsRenderer

__all__ = [
    "AlphaCompositor",
    "NormWeightedCompositor",
    "PointFragments",
    "PointsRasterizationSettings",
    "PointsRasterizer",
    "PointsRenderer",
    "PulsarPointsRenderer",
    "rasterize_points",
]

__getattr__ = refuse_unknown(__name__)
