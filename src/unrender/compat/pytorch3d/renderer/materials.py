"""Materials: reflectance of surfaces."""

import torch

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.renderer.utils import Setting, TensorProperties
from unrender.errors import InputError

Device = torch.device | str
WHITE = ((1.0, 1.0, 1.0),)


class Materials(TensorProperties):
    """Factors [N, channels] of ambient, diffuse and specular light, and the exponent of highlights."""

    ambient_color: torch.Tensor
    diffuse_color: torch.Tensor
    specular_color: torch.Tensor
    shininess: torch.Tensor

    def __init__(
        self,
        ambient_color: Setting = WHITE,
        diffuse_color: Setting = WHITE,
        specular_color: Setting = WHITE,
        shininess: Setting = 64,
        device: Device = "cpu",
    ) -> None:
        colors = {
            "ambient_color": ambient_color,
            "diffuse_color": diffuse_color,
            "specular_color": specular_color,
        }
        super().__init__(device=device, **colors, shininess=shininess)
        channels = self.ambient_color.shape[-1]
        for name in colors:
            value = getattr(self, name)
            if value.dim() != 2 or value.shape[1] != channels:
                raise InputError(f"Materials: `{name}` should be [N, {channels}], got {list(value.shape)}")
        if self.shininess.dim() != 1:
            raise InputError(f"Materials: `shininess` should be [N], got {list(self.shininess.shape)}")


register(__name__)
__getattr__ = refuse_unknown(__name__)
