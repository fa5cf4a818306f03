"""Rasterization by OpenGL, which is not supported; `MeshRasterizer` needs none."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.opengl import MeshRasterizerOpenGL

__all__ = ["MeshRasterizerOpenGL"]


__getattr__ = refuse_unknown(__name__)
