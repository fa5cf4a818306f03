"""Blending by splatting, which is not supported."""

from unrender.compat.pytorch3d._names import refuse_at_use, refuse_unknown

SplatterBlender = refuse_at_use(__name__, "SplatterBlender")


__getattr__ = refuse_unknown(__name__)
