"""Render volumes: a procedural field, and one scalar volume with two transfer functions.

A field is any function from points and directions to density and color; voxels with a transfer function are another.
Density is absorption per world unit, so the image does not depend on the number of samples.

python examples/04_render_volume.py [FOLDER] writes image.png and turntable.gif to FOLDER (default: temporary).
"""

import sys
import tempfile
from pathlib import Path

import torch

import unrender

SIZE = 160


def cloud(points: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return density and color of a wavy ring of fog, which is bluer at the top."""
    x, y, z = points.unbind(-1)
    from_ring = ((x.square() + z.square()).sqrt() - 0.7).square() + (y - 0.2 * (3 * x).sin()).square()
    color = torch.stack([1 - y.clamp(0, 1), torch.full_like(y, 0.6), 0.5 + y], -1).clamp(0, 1)
    return 8 * torch.exp(-60 * from_ring), color


def scan(size: int = 64) -> unrender.Volume:
    """Return a synthetic scan: a shell of value 1 around two balls of value 2."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    shell = torch.exp(-(((x * x + y * y + z * z).sqrt() - 0.8) / 0.06).square())
    balls = sum(2 * torch.exp(-((x - s).square() + y * y + z * z) / 0.04) for s in (-0.35, 0.35))
    return unrender.Volume.in_box(shell + balls, -torch.ones(3), torch.ones(3))


def main(folder: Path) -> None:
    """Render all three side by side, and a turntable video of the scan."""
    folder.mkdir(parents=True, exist_ok=True)
    around = [unrender.Camera.look_at(
        [3.2 * torch.sin(a), 1.6, 3.2 * torch.cos(a)], fov_degrees=34.0, height=SIZE, width=SIZE
    ) for a in torch.arange(24) / 24 * 2 * torch.pi]  # fmt: skip
    rays, black = unrender.rays_of(around[2]), torch.zeros(3)
    fog = unrender.march(cloud, rays, unrender.sample_uniform(2.0, 5.5, 128), background=black)
    volume = scan()
    skin = unrender.window_transfer(volume, (0.3, 1.2), colormap="bone", opacity=0.5)
    core = unrender.window_transfer(volume, (1.0, 2.2), colormap="inferno")
    images = [unrender.render_volume(volume, window, around[2], background=black) for window in (skin, core)]
    row = torch.cat([fog.color, *(image.color for image in images)], 1)
    unrender.save_image(row.clamp(0, 1), folder / "image.png")
    video = (unrender.render_volume(volume, skin, camera, background=black).color for camera in around)
    unrender.save_video(video, folder / "turntable.gif", frames_per_second=12)
    print(f"minimum transmittance of the fog: {100 * (1 - fog.opacity.max()):.1f} %")
    print(folder / "image.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="unrender-")))
