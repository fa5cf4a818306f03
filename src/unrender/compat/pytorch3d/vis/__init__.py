"""Interactive plots of scenes with plotly."""

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.vis.plotly_vis import AxisArgs, Lighting, plot_batch_individually, plot_scene

__all__ = ["AxisArgs", "Lighting", "plot_batch_individually", "plot_scene"]

__getattr__ = refuse_unknown(__name__)
