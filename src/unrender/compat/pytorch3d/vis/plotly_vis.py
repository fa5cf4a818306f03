"""Meshes, clouds, cameras and rays as a plotly figure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrender.compat.pytorch3d._names import refuse_unknown
from unrender.compat.pytorch3d.renderer.cameras import CamerasBase
from unrender.compat.pytorch3d.renderer.implicit.utils import (
    HeterogeneousRayBundle,
    RayBundle,
    ray_bundle_to_ray_points,
)
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesUV, TexturesVertex
from unrender.compat.pytorch3d.structures.join import join_meshes_as_scene
from unrender.compat.pytorch3d.structures.meshes import Meshes
from unrender.compat.pytorch3d.structures.pointclouds import Pointclouds
from unrender.errors import InputError, UnrenderError

Rays = RayBundle | HeterogeneousRayBundle
Struct = Meshes | Pointclouds | CamerasBase | Rays


class AxisArgs(NamedTuple):
    """Style of the axes of a plot."""

    showgrid: bool = False
    zeroline: bool = False
    showline: bool = False
    ticks: str = ""
    showticklabels: bool = False
    backgroundcolor: str = "#fff"
    showaxeslabels: bool = False


class Lighting(NamedTuple):
    """Lighting of the meshes of a plot."""

    ambient: float = 0.8
    diffuse: float = 1.0
    fresnel: float = 0.0
    specular: float = 0.0
    roughness: float = 0.5
    facenormalsepsilon: float = 1e-6
    vertexnormalsepsilon: float = 1e-12


def plot_scene(
    plots: Mapping[str, Mapping[str, Struct]],
    *,
    viewpoint_cameras: CamerasBase | None = None,
    ncols: int = 1,
    camera_scale: float = 0.3,
    pointcloud_max_points: int = 20000,
    pointcloud_marker_size: int = 1,
    raybundle_max_rays: int = 20000,
    raybundle_max_points_per_ray: int = 1000,
    raybundle_ray_point_marker_size: int = 1,
    raybundle_ray_line_width: int = 1,
    **kwargs: Any,
) -> Any:
    """Plot meshes, clouds, cameras and rays: {title of the subplot: {name: object}}; return a plotly figure.

    `axis_args`, `xaxis`, `yaxis`, `zaxis`, `mesh_opacity` and `lighting` are taken too. Clouds and rays beyond the
    maxima are thinned at random.
    """
    settings = {
        "scale": camera_scale,
        "max_points": pointcloud_max_points,
        "marker_size": pointcloud_marker_size,
        "max_rays": raybundle_max_rays,
        "max_points_per_ray": raybundle_max_points_per_ray,
        "ray_marker_size": raybundle_ray_point_marker_size,
        "ray_width": raybundle_ray_line_width,
        "lighting": kwargs.pop("lighting", Lighting()),
        "opacity": kwargs.pop("mesh_opacity", 1.0),
    }
    axes = kwargs.pop("axis_args", AxisArgs())
    own_axes = {f"{name}axis": kwargs.pop(f"{name}axis", {}) for name in "xyz"}
    if kwargs:
        raise InputError(f"plot_scene: unknown arguments {', '.join(sorted(kwargs))}")
    figure = _make_figure(list(plots), ncols)
    for number, contents in enumerate(plots.values()):
        row, column = number // ncols + 1, number % ncols + 1
        for name, struct in contents.items():
            for trace in traces(name, struct, settings):
                figure.add_trace(trace, row=row, col=column)
        scene = _axes(axes, list(contents.values()))
        for axis, style in own_axes.items():
            scene[axis] |= style
        if viewpoint_cameras is not None:
            scene["camera"] = _viewpoint(viewpoint_cameras, number, scene)
        figure.update_scenes(scene, row=row, col=column)
    return figure


def plot_batch_individually(
    batched_structs: Struct | Sequence[Struct],
    *,
    viewpoint_cameras: CamerasBase | None = None,
    ncols: int = 1,
    extend_struct: bool = True,
    subplot_titles: Sequence[str] | None = None,
    **kwargs: Any,
) -> Any:
    """Plot each member of a batch, or of several batches together, in a subplot of its own."""
    structs = [batched_structs] if isinstance(batched_structs, Struct) else list(batched_structs)
    count = max(_length(struct) for struct in structs)
    plots: dict[str, dict[str, Struct]] = {}
    for i in range(count):
        chosen = {}
        for k, struct in enumerate(structs):
            if i < _length(struct) or (extend_struct and _length(struct) == 1):
                chosen[f"trace{i + 1}-{k + 1}"] = (
                    struct if isinstance(struct, Rays) else struct[i % _length(struct)]
                )
        plots[subplot_titles[i] if subplot_titles else f"Plot {i + 1}"] = chosen
    return plot_scene(plots, viewpoint_cameras=viewpoint_cameras, ncols=ncols, **kwargs)


def traces(name: str, struct: Struct, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Convert one object to a plotly trace."""
    if isinstance(struct, Meshes):
        return [_mesh(name, struct, settings)]
    if isinstance(struct, Pointclouds):
        return [_cloud(name, struct, settings)]
    if isinstance(struct, CamerasBase):
        return [_lines(name, camera_wireframe(struct, settings["scale"]), 2)]
    if isinstance(struct, Rays):
        return _rays(name, struct, settings)
    raise InputError(
        f"plot_scene: takes Meshes, Pointclouds, cameras and RayBundle, got {type(struct).__name__}"
    )


def _mesh(name: str, meshes: Meshes, settings: Mapping[str, Any]) -> dict[str, Any]:
    whole = join_meshes_as_scene(meshes.detach().cpu(), include_textures=False)
    verts, faces = whole.get_mesh_verts_faces(0)
    trace = {"type": "mesh3d", "name": name, "opacity": settings["opacity"]}
    trace |= {"lighting": settings["lighting"]._asdict()}
    trace |= dict(zip("xyz", (column.numpy() for column in verts.unbind(1)), strict=True))
    trace |= dict(zip("ijk", (column.numpy() for column in faces.unbind(1)), strict=True))
    textures = meshes.textures
    if isinstance(textures, TexturesVertex) and textures.verts_features_packed().shape[1] == 3:
        trace["vertexcolor"] = _rgb(textures.verts_features_packed())
    elif isinstance(textures, TexturesUV):
        trace["facecolor"] = _rgb(_colors_of_faces(meshes, textures))
    return trace


def _colors_of_faces(meshes: Meshes, textures: TexturesUV) -> Tensor:
    """Sample the textures at the center of each face."""
    colors = []
    for image, uvs, corners in zip(
        textures.maps_list(), textures.verts_uvs_list(), textures.faces_uvs_list(), strict=True
    ):
        colors.append(textures.read(image, uvs[corners].mean(1)))
    return torch.cat(colors)


def _cloud(name: str, clouds: Pointclouds, settings: Mapping[str, Any]) -> dict[str, Any]:
    points, features = clouds.points_packed().detach().cpu(), clouds.features_packed()
    chosen = _thin(len(points), settings["max_points"])
    marker: dict[str, Any] = {"size": settings["marker_size"]}
    if features is not None and features.shape[1] in (3, 4):
        marker["color"] = _rgb(features[chosen, :3])
    return _points(name, points[chosen], "markers") | {"marker": marker}


def _rays(name: str, rays: Rays, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    points = ray_bundle_to_ray_points(rays).detach().cpu().flatten(0, -3)
    points = points[_thin(len(points), settings["max_rays"])]
    chosen = _thin(points.shape[1], settings["max_points_per_ray"])
    ends = points[:, [0, -1]]
    marks = _points(name, points[:, chosen].reshape(-1, 3), "markers")
    return [
        _lines(name, ends, settings["ray_width"]),
        marks | {"marker": {"size": settings["ray_marker_size"]}},
    ]


def get_camera_wireframe(scale: float = 0.3) -> Tensor:
    """Return the points [15, 3], in the camera's frame, of one line through a pyramid in front of a camera."""
    tip, front = [0.0, 0.0, 0.0], [0.0, 0.0, 3.0]
    a, b, c, d = [-1.0, 0.75, 2.0], [1.0, 0.75, 2.0], [-1.0, -0.75, 2.0], [1.0, -0.75, 2.0]
    middle, top = [0.0, 0.75, 2.0], [0.0, 1.0, 2.0]
    path = [a, middle, top, middle, b, d, c, a, tip, b, d, tip, c, tip, front]
    return torch.tensor(path) * scale


def camera_wireframe(cameras: CamerasBase, scale: float) -> Tensor:
    """Return the lines [N · 8, 2, 3] of a pyramid in front of each camera, with a mark for the up direction."""
    tip, up = [0.0, 0.0, 0.0], [0.0, 1.4, 2.0]
    a, b, c, d = [1.0, 1.0, 2.0], [-1.0, 1.0, 2.0], [-1.0, -1.0, 2.0], [1.0, -1.0, 2.0]
    lines = [[a, b], [b, c], [c, d], [d, a], [tip, a], [tip, b], [tip, c], [tip, d], [a, up], [up, b]]
    in_camera = torch.tensor(lines, device=cameras.device).view(-1, 3) * (scale / 2)
    to_world = cameras.get_world_to_view_transform().inverse()
    return to_world.transform_points(in_camera).detach().cpu().reshape(-1, 2, 3)


def _points(name: str, points: Tensor, mode: str) -> dict[str, Any]:
    trace: dict[str, Any] = {"type": "scatter3d", "name": name, "mode": mode}
    return trace | dict(zip("xyz", (column.numpy() for column in points.unbind(1)), strict=True))


def _lines(name: str, ends: Tensor, width: int) -> dict[str, Any]:
    gaps = torch.full_like(ends[:, :1], math.nan)  # plotly ends a line there
    return _points(name, torch.cat([ends, gaps], 1).view(-1, 3), "lines") | {"line": {"width": width}}


def _thin(count: int, most: int) -> Tensor:
    return torch.arange(count) if count <= most else torch.randperm(count)[:most].sort().values


def _rgb(colors: Tensor) -> list[str]:
    levels = (colors.detach().cpu().clamp(0, 1) * 255).round().int().tolist()
    return [f"rgb({r},{g},{b})" for r, g, b in levels]


def _length(struct: Struct) -> int:
    return len(struct.origins) if isinstance(struct, Rays) else len(struct)


def _axes(args: AxisArgs, structs: Sequence[Struct]) -> dict[str, Any]:
    """Give all axes the same length and scale; y points up."""
    corners = [_extent(struct) for struct in structs]
    low = torch.stack([c.amin(0) for c in corners]).amin(0) if corners else -torch.ones(3)
    high = torch.stack([c.amax(0) for c in corners]).amax(0) if corners else torch.ones(3)
    midpoint, reach = (low + high) / 2, float((high - low).max()) * 0.55 or 1.0
    look = {key: value for key, value in args._asdict().items() if key != "showaxeslabels"}
    scene: dict[str, Any] = {"aspectmode": "cube", "camera": {"up": {"x": 0, "y": 1, "z": 0}}}
    for axis, center in zip("xyz", midpoint.tolist(), strict=True):
        scene[f"{axis}axis"] = look | {"range": [center - reach, center + reach]}
        if not args.showaxeslabels:
            scene[f"{axis}axis"]["title"] = ""
    return scene


def _extent(struct: Struct) -> Tensor:
    if isinstance(struct, Meshes):
        return struct.verts_packed().detach().cpu()
    if isinstance(struct, Pointclouds):
        return struct.points_packed().detach().cpu()
    if isinstance(struct, CamerasBase):
        return camera_wireframe(struct, 0.3).reshape(-1, 3)
    return ray_bundle_to_ray_points(struct).detach().cpu().reshape(-1, 3)


def _viewpoint(cameras: CamerasBase, number: int, scene: Mapping[str, Any]) -> dict[str, Any]:
    """View from a camera; plotly measures in half lengths of the axes, from their center."""
    camera = cameras[number % len(cameras)]
    ranges = torch.tensor([scene[f"{axis}axis"]["range"] for axis in "xyz"])
    midpoint, half = ranges.mean(1), (ranges[:, 1] - ranges[:, 0]) / 2
    eye = camera.get_camera_center().detach().cpu()[0]
    to_world = camera.get_world_to_view_transform().inverse().get_matrix().detach().cpu()[0, :3, :3]
    named = {
        "eye": (eye - midpoint) / half,
        "center": (eye + to_world[2] - midpoint) / half,
        "up": to_world[1],
    }
    return {name: dict(zip("xyz", vector.tolist(), strict=True)) for name, vector in named.items()}


def _make_figure(titles: list[str], ncols: int) -> Any:
    try:
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise UnrenderError("plot_scene: figures are made by plotly: pip install plotly") from error
    rows = math.ceil(len(titles) / ncols)
    kinds = [[{"type": "scene"}] * ncols] * rows
    figure = make_subplots(
        rows=rows, cols=ncols, specs=kinds, subplot_titles=titles, column_widths=[1.0] * ncols
    )
    figure.update_layout(margin={"l": 0, "r": 0, "t": 30, "b": 0})
    return figure


__getattr__ = refuse_unknown(__name__)
