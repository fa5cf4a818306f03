"""Rasterizer: projects and rasterizes meshes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d._pickles import register
from unrender.compat.pytorch3d.renderer._fragments import Fragments
from unrender.compat.pytorch3d.renderer._pinhole import pinhole
from unrender.compat.pytorch3d.renderer._rasterizer import Rasterizer
from unrender.compat.pytorch3d.renderer.cameras import CamerasBase
from unrender.compat.pytorch3d.renderer.fisheyecameras import FishEyeCameras
from unrender.compat.pytorch3d.renderer.mesh.rasterize_meshes import (
    ImageSize,
    height_width,
    near_depth,
    pixels,
    rasterize_projected,
)
from unrender.compat.pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes as rasterize_meshes
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.structures.utils import list_to_padded
from unrender.errors import InputError
from unrender.geometry.constants import constant
from unrender.kernels._dispatch import can_read
from unrender.kernels.project_points import project_points
from unrender.kernels.silhouette import soft_silhouette


@dataclass
class RasterizationSettings:
    """Settings of the rasterizer; those of bins and of OpenGL have no effect."""

    image_size: ImageSize = 256
    blur_radius: float = 0.0
    faces_per_pixel: int = 1
    bin_size: int | None = None
    max_faces_opengl: int = 10_000_000
    max_faces_per_bin: int | None = None
    perspective_correct: bool | None = None
    clip_barycentric_coords: bool | None = None
    cull_backfaces: bool = False
    z_clip_value: float | None = None
    cull_to_frustum: bool = False


class MeshRasterizer(Rasterizer):
    """Rasterize meshes in world coordinates, with one camera for all or one per mesh."""

    cameras: CamerasBase | None

    def __init__(
        self, cameras: CamerasBase | None = None, raster_settings: RasterizationSettings | None = None
    ) -> None:
        super().__init__(cameras, raster_settings or RasterizationSettings())

    def transform(self, meshes_world: Meshes, **kwargs: Any) -> Meshes:
        """Project vertices to x and y in NDC, and depth."""
        points = self._project(meshes_world, kwargs)
        ndc = [torch.cat([p[:, :2] / p[:, 2:3], p[:, 3:]], 1) for p in points]
        return meshes_world.update_padded(list_to_padded(ndc))

    def forward(self, meshes_world: Meshes, **kwargs: Any) -> Fragments:
        """Rasterize; cameras and their settings can be overridden here."""
        settings, size, points, near = self._prepare(meshes_world, kwargs)
        clip = settings.clip_barycentric_coords
        return rasterize_projected(
            [p[0] for p in points],
            [mesh.faces for mesh in meshes_world.core()],  # whose indices have been checked
            size,
            settings.blur_radius,
            settings.faces_per_pixel,
            near=near,
            cull=settings.cull_backfaces,
            clip=settings.blur_radius > 0 if clip is None else clip,
        )

    def coverage(self, meshes_world: Meshes, blur: float, **kwargs: Any) -> Tensor:
        """Return soft silhouettes [N, H, W] over all faces within `blur`, which is in NDC."""
        _, size, points, near = self._prepare(meshes_world, kwargs)
        height, width = size
        images = [
            soft_silhouette(p, mesh.faces, height=height, width=width, near=near, blur=blur * min(size) / 2)
            for p, mesh in zip(points, meshes_world.core(), strict=True)
        ]
        return images[0] if len(images) == 1 else torch.cat(images)

    def _prepare(
        self, meshes: Meshes, kwargs: dict[str, Any]
    ) -> tuple[RasterizationSettings, tuple[int, int], list[Tensor], float | Tensor]:
        """Return each mesh's points [1, V, 4], (x·w, y·w, w, depth) in pixels, and the depth of the near plane."""
        settings: RasterizationSettings = kwargs.get("raster_settings", self.raster_settings)
        cameras, size = self._cameras(kwargs), height_width(settings.image_size)
        correct, divides = settings.perspective_correct, cameras.is_perspective()
        correct = divides if correct is None else correct
        short = correct == divides and not all(
            map(can_read, meshes.verts_list())
        )  # operations count on a GPU
        intrinsics = pinhole(cameras, kwargs) if short else None
        if intrinsics is not None:
            points = self._project_pinhole(meshes, size, *intrinsics, kwargs)
        else:
            points = self._project(meshes, kwargs)
            if correct != divides:
                points = [_linear_on_screen(p) if not correct else _divided_by_depth(p) for p in points]
            points = [pixels(p, size)[None] for p in points]
        znear, clip = cameras.get_znear(), settings.z_clip_value
        if clip is None and correct and divides and znear is not None:
            return settings, size, points, _half_of_least(znear)
        return settings, size, points, near_depth(points, clip, divides)

    def _cameras(self, kwargs: dict[str, Any]) -> CamerasBase:
        cameras: CamerasBase | None = kwargs.get("cameras", self.cameras)
        if cameras is None:
            raise InputError("MeshRasterizer: Cameras must be specified here or when the rasterizer is made")
        return cameras

    def _project_pinhole(
        self,
        meshes: Meshes,
        size: tuple[int, int],
        focal: Tensor,
        principal: Tensor,
        kwargs: dict[str, Any],
    ) -> list[Tensor]:
        """Project with +x right and +y down, in pixels: NDC are +1 at the top left."""
        cameras, scale = self._cameras(kwargs), min(size) / 2
        R, T = cameras.pose(**kwargs)
        _check_count(len(R), len(meshes))
        bottom = constant((0.0, 0.0, 0.0, 1.0), R).expand(len(R), 1, 4)
        poses = torch.cat([torch.cat([R.mT, T[..., None]], -1), bottom], 1)
        focal, center = -scale * focal, constant((size[1] / 2, size[0] / 2), principal) - scale * principal
        divides, points = cameras.is_perspective(), []
        for i, verts in enumerate(meshes.verts_list()):
            pose, *intrinsics = (_member(t, i) for t in (poses, focal, center))
            points.append(project_points(verts, pose, intrinsics[0], intrinsics[1], divides))
        return points

    def _project(self, meshes: Meshes, kwargs: dict[str, Any]) -> list[Tensor]:
        """Return (x·w, y·w, w, depth) of each mesh's vertices; undivided, so points may lie behind the camera."""
        cameras = self._cameras(kwargs)
        if isinstance(cameras, FishEyeCameras):
            return _fisheye_points(cameras, meshes.verts_list(), kwargs)
        to_view = cameras.get_world_to_view_transform(**kwargs)
        to_ndc = cameras.get_projection_transform(**kwargs).compose(
            cameras.get_ndc_camera_transform(**kwargs)
        )
        view, ndc = to_view.get_matrix(), to_ndc.get_matrix()
        for count in (len(view), len(ndc)):
            _check_count(count, len(meshes))
        points = []
        for i, verts in enumerate(meshes.verts_list()):
            matrix, projection = view[i % len(view)], ndc[i % len(ndc)]
            points_view = verts @ matrix[:3, :3] + matrix[3, :3]
            projected = points_view @ projection[:3] + projection[3]
            points.append(torch.cat([projected[:, :2], projected[:, 3:], points_view[:, 2:]], 1))
        return points


def _fisheye_points(
    cameras: FishEyeCameras, verts_list: list[Tensor], kwargs: dict[str, Any]
) -> list[Tensor]:
    """Return vertices on the screen of fish-eye cameras; edges between them stay straight, as in PyTorch3D."""
    _check_count(len(cameras), len(verts_list))
    points = []
    for i, verts in enumerate(verts_list):
        camera = cameras[i % len(cameras)]
        to_view = camera.get_world_to_view_transform(**kwargs)
        depth = (to_view.transform_points(verts) if camera.world_coordinates else verts)[:, 2:]
        points.append(torch.cat([camera.transform_points(verts)[:, :2], torch.ones_like(depth), depth], 1))
    return points


def _check_count(cameras: int, meshes: int) -> None:
    if cameras not in (1, meshes):
        raise InputError(f"MeshRasterizer: expected 1 camera, or {meshes}, one per mesh, got {cameras}")


def _member(batch: Tensor, index: int) -> Tensor:
    """Return a member as a batch of one; a single one serves all."""
    return batch if len(batch) == 1 else batch[index : index + 1]


def _half_of_least(znear: Tensor | float) -> float | Tensor:
    if isinstance(znear, Tensor) and not can_read(znear):
        return znear.detach().amin() / 2
    return float(torch.as_tensor(znear).min()) / 2


def _linear_on_screen(points: Tensor) -> Tensor:
    """Divide by w, such that interpolation is linear in the image, not in space."""
    x, y, w, depth = points.unbind(-1)
    return torch.stack([x / w, y / w, torch.ones_like(w), depth], -1)


def _divided_by_depth(points: Tensor) -> Tensor:
    """Interpolate as in a perspective image, although the projection is orthographic."""
    x, y, w, depth = points.unbind(-1)
    return torch.stack([x * depth / w, y * depth / w, depth, depth], -1)


__all__ = ["Fragments", "MeshRasterizer", "RasterizationSettings"]

register(__name__)
__getattr__ = refuse_unknown(__name__)
