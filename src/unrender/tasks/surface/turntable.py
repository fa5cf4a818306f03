"""Turntable videos of textured meshes."""

from collections.abc import Sequence

import torch

from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import interpolated_path, orbit_path
from unrender.geometry.mesh import Mesh
from unrender.io.files import FilePath
from unrender.io.video import save_video
from unrender.render.lights import AmbientLight
from unrender.render.mesh import render_mesh
from unrender.render.texture import Texture

UNLIT = (AmbientLight(1.0),)
"""The light is in the colors of photos already."""


@torch.no_grad()
def save_turntable(
    mesh: Mesh,
    texture: Texture | None,
    cameras: Camera | Sequence[Camera],
    path: FilePath,
    *,
    orbit: bool = True,
    num_frames: int = 96,
    size: int = 512,
    frames_per_second: float = 24.0,
) -> None:
    """Render a mesh, without lighting, along a camera path, and save the video (mp4, gif).

    The path is an orbit around what the cameras look at (`orbit_path`), or without `orbit`, for scenes that were
    captured from one side or from within, a closed path between the cameras (`interpolated_path`). size: longer side of
    the video in pixels.
    Raises InputError for an orbit of cameras that share one position, and for another suffix.
    """
    if orbit:
        cameras_path = orbit_path(cameras, num_frames)
    else:
        cameras_path = interpolated_path(cameras, num_frames, closed=True, order="nearest")
    small = cameras_path.resize_longest(size).to(mesh.vertices.device)
    frames = (
        render_mesh(mesh, small[i], lights=UNLIT, texture=texture, supersampling=2) for i in range(num_frames)
    )
    save_video(frames, path, frames_per_second=frames_per_second)
