"""Shaders: from fragments to images [N, H, W, 4]."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from unrender.compat.pytorch3d._names import refuse_at_use, refuse_unknown
from unrender.compat.pytorch3d.renderer._fragments import Fragments
from unrender.compat.pytorch3d.renderer.blending import (
    BlendParams,
    hard_rgb_blend,
    sigmoid_alpha_blend,
    softmax_rgb_blend,
)
from unrender.compat.pytorch3d.renderer.lighting import PointLights
from unrender.compat.pytorch3d.renderer.materials import Materials
from unrender.compat.pytorch3d.renderer.mesh.shading import flat_shading, gouraud_shading, phong_shading
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.errors import InputError

Device = torch.device | str
SplatterPhongShader = refuse_at_use(__name__, "SplatterPhongShader")


class ShaderBase(nn.Module):
    """Base class with cameras, lights, materials and blending; each can be overridden in a call."""

    cameras: Any
    lights: Any
    materials: Any

    def __init__(
        self,
        device: Device = "cpu",
        cameras: Any = None,
        lights: Any = None,
        materials: Any = None,
        blend_params: BlendParams | None = None,
    ) -> None:
        super().__init__()
        self.cameras = cameras
        self.lights = PointLights(device=device) if lights is None else lights
        self.materials = Materials(device=device) if materials is None else materials
        self.blend_params = BlendParams() if blend_params is None else blend_params

    def __setattr__(self, name: str, value: Any) -> None:
        """Store cameras, lights and materials as settings, not as submodules with parameters."""
        if name in ("cameras", "lights", "materials"):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _get_cameras(self, **kwargs: Any) -> Any:
        cameras = kwargs.get("cameras", self.cameras)
        if cameras is None:
            raise InputError(
                f"{type(self).__name__}: `cameras` should be given here or to the shader's constructor"
            )
        return cameras

    def _lit_by(self, kwargs: dict[str, Any]) -> tuple[Any, Any, Any, BlendParams]:
        """Return lights, cameras, materials and blending of a call."""
        return (
            kwargs.get("lights", self.lights),
            self._get_cameras(**kwargs),
            kwargs.get("materials", self.materials),
            kwargs.get("blend_params", self.blend_params),
        )

    def to(self, device: Any, *_: Any, **__: Any) -> Self:  # type: ignore[override]
        """Move cameras, lights and materials to a device."""
        for name in ("cameras", "lights", "materials"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.to(device))
        return self


class HardPhongShader(ShaderBase):
    """Phong shading of the nearest face."""

    def forward(self, fragments: Fragments, meshes: Meshes, **kwargs: Any) -> Tensor:
        """Return images [N, H, W, 4]."""
        lights, cameras, materials, blend = self._lit_by(kwargs)
        colors = phong_shading(
            meshes, fragments, lights, cameras, materials, meshes.sample_textures(fragments)
        )
        return hard_rgb_blend(colors, fragments, blend)


class SoftPhongShader(ShaderBase):
    """Phong shading of all layers, blended."""

    def forward(self, fragments: Fragments, meshes: Meshes, **kwargs: Any) -> Tensor:
        """Return images [N, H, W, 4]."""
        lights, cameras, materials, blend = self._lit_by(kwargs)
        colors = phong_shading(
            meshes, fragments, lights, cameras, materials, meshes.sample_textures(fragments)
        )
        return softmax_rgb_blend(colors, fragments, blend, *_depths(cameras, kwargs))


class TexturedSoftPhongShader(SoftPhongShader):
    """Earlier name of `SoftPhongShader`."""


class HardGouraudShader(ShaderBase):
    """Gouraud shading of the nearest face."""

    def forward(self, fragments: Fragments, meshes: Meshes, **kwargs: Any) -> Tensor:
        """Return images [N, H, W, 4]."""
        lights, cameras, materials, blend = self._lit_by(kwargs)
        return hard_rgb_blend(
            gouraud_shading(meshes, fragments, lights, cameras, materials), fragments, blend
        )


class SoftGouraudShader(ShaderBase):
    """Gouraud shading of all layers, blended."""

    def forward(self, fragments: Fragments, meshes: Meshes, **kwargs: Any) -> Tensor:
        """Return images [N, H, W, 4]."""
        lights, cameras, materials, blend = self._lit_by(kwargs)
        colors = gouraud_shading(meshes, fragments, lights, cameras, materials)
        return softmax_rgb_blend(colors, fragments, blend, *_depths(cameras, kwargs))


class HardFlatShader(ShaderBase):
    """Flat shading of the nearest face."""

    def forward(self, fragments: Fragments, meshes: Meshes, **kwargs: Any) -> Tensor:
        """Return images [N, H, W, 4]."""
        lights, cameras, materials, blend = self._lit_by(kwargs)
        colors = flat_shading(
            meshes, fragments, lights, cameras, materials, meshes.sample_textures(fragments)
        )
        return hard_rgb_blend(colors, fragments, blend)


class HardDepthShader(ShaderBase):
    """Depth of the nearest face; that of the far plane where there is none."""

    def forward(self, fragments: Fragments, meshes: Meshes, **kwargs: Any) -> Tensor:
        """Return depths [N, H, W, 1]."""
        cameras = self._get_cameras(**kwargs)
        _, far = _depths(cameras, kwargs)
        return torch.where(
            fragments.pix_to_face[..., :1] < 0, _per_image(far, fragments), fragments.zbuf[..., :1]
        )


class SoftDepthShader(ShaderBase):
    """Depths of the layers weighted by coverage, nearest first, until the weights sum to 1."""

    def forward(self, fragments: Fragments, meshes: Meshes, **kwargs: Any) -> Tensor:
        """Return depths [N, H, W, 1]."""
        if fragments.dists is None:
            raise InputError("SoftDepthShader: needs the distances of the fragments")
        cameras = self._get_cameras(**kwargs)
        _, far = _depths(cameras, kwargs)
        sigma = kwargs.get("blend_params", self.blend_params).sigma
        covered = torch.sigmoid(-fragments.dists / sigma) * (fragments.pix_to_face >= 0)
        one = torch.ones_like(covered[..., :1])
        depths = torch.cat([fragments.zbuf, one * _per_image(far, fragments)], -1)
        reached = torch.cat([covered, one], -1).cumsum(-1).clamp(max=1)
        weights = reached.diff(dim=-1, prepend=torch.zeros_like(one))
        return (weights * depths).sum(-1, keepdim=True)


class SoftSilhouetteShader(nn.Module):
    """Soft silhouettes: coverage as alpha, with white color."""

    def __init__(self, blend_params: BlendParams | None = None) -> None:
        super().__init__()
        self.blend_params = BlendParams() if blend_params is None else blend_params

    def forward(self, fragments: Fragments, meshes: Meshes, **kwargs: Any) -> Tensor:
        """Return images [N, H, W, 4]."""
        blend = kwargs.get("blend_params", self.blend_params)
        return sigmoid_alpha_blend(torch.ones_like(fragments.bary_coords), fragments, blend)


def _per_image(value: Any, fragments: Fragments) -> Tensor:
    tensor = torch.as_tensor(value, dtype=fragments.zbuf.dtype, device=fragments.zbuf.device)
    return tensor.reshape(-1, 1, 1, 1)


def _depths(cameras: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Return the depth range of the blending."""
    return (
        kwargs.get("znear", getattr(cameras, "znear", 1.0)),
        kwargs.get("zfar", getattr(cameras, "zfar", 100.0)),
    )


__getattr__ = refuse_unknown(__name__)
