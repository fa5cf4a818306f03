"""Rasterization by OpenGL, which is not supported; `MeshRasterizer` needs none."""

from unrender.compat.pytorch3d._names import refuse_at_use, refuse_unknown

EGLContext = refuse_at_use(__name__, "EGLContext")
MeshRasterizerOpenGL = refuse_at_use(__name__, "MeshRasterizerOpenGL")


__getattr__ = refuse_unknown(__name__)
