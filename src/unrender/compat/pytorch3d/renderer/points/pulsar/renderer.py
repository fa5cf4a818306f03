"""Pulsar, which is not supported; `PointsRenderer` renders points."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.points.pulsar import PulsarPointsRenderer, Renderer

__all__ = ["PulsarPointsRenderer", "Renderer"]


__getattr__ = refuse_unknown(__name__)
