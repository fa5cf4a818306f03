"""Mesh renderers: a rasterizer and a shader."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer._fragments import Fragments
from unrender.compat.pytorch3d.renderer.mesh.rasterizer import MeshRasterizer
from unrender.compat.pytorch3d.renderer.mesh.shader import SoftSilhouetteShader
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.kernels.silhouette.reference import LOGIT_AT_BLUR


class MeshRenderer(nn.Module):
    """Rasterize, then shade; settings of both can be overridden in a call."""

    rasterizer: Any
    shader: Any

    def __init__(self, rasterizer: Any, shader: Any) -> None:
        super().__init__()
        self.rasterizer = rasterizer
        self.shader = shader

    def to(self, device: Any, *_: Any, **__: Any) -> Self:  # type: ignore[override]
        """Move cameras, lights and materials to a device."""
        self.rasterizer.to(device)
        self.shader.to(device)
        return self

    def forward(self, meshes_world: Meshes, **kwargs: Any) -> Tensor:
        """Return images [N, H, W, 4].

        A soft silhouette whose rasterizer reaches as far as it should, log(1 / 1e-4 − 1) · sigma, is that of all faces
        within reach, not only of the nearest `faces_per_pixel`.
        """
        if (blur := self._blur_of_silhouette(kwargs)) is not None:
            alpha = self.rasterizer.coverage(meshes_world, blur, **kwargs)
            return torch.cat([alpha.new_ones(*alpha.shape, 3), alpha[..., None]], -1)
        fragments = self.rasterizer(meshes_world, **kwargs)
        images: Tensor = self.shader(fragments, meshes_world, **kwargs)
        return images

    def _blur_of_silhouette(self, kwargs: dict[str, Any]) -> float | None:
        """Return the blur if the image is a silhouette that one kernel renders without layers."""
        if type(self.shader) is not SoftSilhouetteShader or type(self.rasterizer) is not MeshRasterizer:
            return None
        settings = kwargs.get("raster_settings", self.rasterizer.raster_settings)
        params = kwargs.get("blend_params", self.shader.blend_params)
        fits = abs(settings.blur_radius - LOGIT_AT_BLUR * params.sigma) <= 1e-3 * settings.blur_radius
        if not fits or settings.blur_radius <= 0 or settings.cull_backfaces:
            return None
        blur: float = params.blur
        return blur


class MeshRendererWithFragments(nn.Module):
    """Rasterize, then shade; also return the fragments."""

    rasterizer: Any
    shader: Any

    def __init__(self, rasterizer: Any, shader: Any) -> None:
        super().__init__()
        self.rasterizer = rasterizer
        self.shader = shader

    def to(self, device: Any, *_: Any, **__: Any) -> Self:  # type: ignore[override]
        """Move cameras, lights and materials to a device."""
        self.rasterizer.to(device)
        self.shader.to(device)
        return self

    def forward(self, meshes_world: Meshes, **kwargs: Any) -> tuple[Tensor, Fragments]:
        """Return images [N, H, W, 4] and fragments."""
        fragments = self.rasterizer(meshes_world, **kwargs)
        return self.shader(fragments, meshes_world, **kwargs), fragments


__getattr__ = refuse_unknown(__name__)
