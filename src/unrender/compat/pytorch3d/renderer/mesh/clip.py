"""Clipping of faces, which is part of unrender's kernels: these names of PyTorch3D raise when they are used."""

from unrender.compat.pytorch3d._names import refuse_at_use, refuse_unknown

ClipFrustum = refuse_at_use(__name__, "ClipFrustum")
ClippedFaces = refuse_at_use(__name__, "ClippedFaces")
clip_faces = refuse_at_use(__name__, "clip_faces")
convert_clipped_rasterization_to_original_faces = refuse_at_use(
    __name__, "convert_clipped_rasterization_to_original_faces"
)


__getattr__ = refuse_unknown(__name__)
