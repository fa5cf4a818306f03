"""Fish-eye cameras, which are not supported; unrender has `Lens`."""

from unrender.compat.pytorch3d._names import refuse_at_use, refuse_unknown

FishEyeCameras = refuse_at_use(__name__, "FishEyeCameras")


__getattr__ = refuse_unknown(__name__)
