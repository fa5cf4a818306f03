"""Pulsar, which is not supported; `PointsRenderer` renders points."""

from unrender.compat.pytorch3d._names import refuse_at_use, refuse_unknown

PulsarPointsRenderer = refuse_at_use(__name__, "PulsarPointsRenderer")
Renderer = refuse_at_use(__name__, "Renderer")


__getattr__ = refuse_unknown(__name__)
