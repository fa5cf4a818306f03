"""Turntable videos of textured meshes."""

from collections.abc import Sequence

import torch

from unrender.geometry.camera import Camera
from unrender.geometry.camera_paths import orbit_path
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
    num_frames: int = 96,
    size: int = 512,
    frames_per_second: float = 24.0,
) -> None:
    """Render a mesh, without lighting, from an orbit around what the cameras look at, and save the video (mp4, gif).

    size: longer side of the video in pixels. See `orbit_path` for the path.
    Raises InputError if all cameras share one position, or the path has another suffix.
    """
    orbit = orbit_path(cameras, num_frames).resize_longest(size).to(mesh.vertices.device)
    frames = (
        render_mesh(mesh, orbit[i], lights=UNLIT, texture=texture, supersampling=2) for i in range(num_frames)
    )
    save_video(frames, path, frames_per_second=frames_per_second)
