"""Plots of meshes, clouds, cameras and rays, and of textures."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.vis.plotly_vis import get_camera_wireframe, plot_batch_individually, plot_scene
from unrender.compat.pytorch3d.vis.texture_vis import texturesuv_image_matplotlib, texturesuv_image_PIL

__all__ = [
    "get_camera_wireframe",
    "plot_batch_individually",
    "plot_scene",
    "texturesuv_image_PIL",
    "texturesuv_image_matplotlib",
]

__getattr__ = refuse_unknown(__name__)
