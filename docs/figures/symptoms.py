"""Render the images of docs/troubleshooting.md: each strip starts with the correct result.

python docs/figures/symptoms.py [FOLDER] writes *.png to FOLDER, by default next to this file (make figures). All scenes
are generated and small: some seconds per image.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import unrender

SIZE = 150
"""Side of each image in pixels."""
COLORS = 128
"""Number of palette colors, to keep files small."""
WHITE = torch.ones(3)
CONFIG = unrender.FitVolume(resolution=64, steps=200, rays=4096, degree=1, depth_loss_weight=0.0)


def volumes(folder: Path) -> None:
    """Fit a volume with too few steps, to too few images, and with wrong cameras."""
    with tempfile.TemporaryDirectory() as directory:
        scene = unrender.save_demo_scene(directory, size=96, num_train=24, num_test=3)
        camera = scene.split("test")[1].camera.resize(SIZE, SIZE)

        def fitted(config: unrender.FitVolume = CONFIG, scene: unrender.Scene = scene) -> Tensor:
            *_, last = unrender.fit_volume(scene, config)
            print(f"{last.losses['psnr']:.1f} dB on training rays")
            return last.result.render(camera, WHITE).color

        reference = fitted()
        save(folder, "shortly.png", [reference, fitted(dataclasses.replace(CONFIG, steps=20))])
        in_box = dataclasses.replace(CONFIG, space="aabb")
        three_frames = [frame for frame in scene.frames if frame.name[-7:-4] in ("001", "004", "006")]
        save(
            folder,
            "few.png",
            [reference, fitted(in_box, dataclasses.replace(scene, frames=tuple(three_frames)))],
        )
        focal = with_cameras(scene, lambda camera: camera.replace(focal=1.15 * camera.focal))
        flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        flipped = with_cameras(
            scene, lambda camera: camera.replace(camera_from_world=flip @ camera.camera_from_world)
        )
        shifted = with_cameras(scene, lambda camera: camera.replace(center=camera.center + 3.0))
        wrong = [fitted(in_box, scene) for scene in (focal, shifted, flipped)]
        save(folder, "cameras.png", [reference, *wrong])


def with_cameras(
    scene: unrender.Scene, change: Callable[[unrender.Camera], unrender.Camera]
) -> unrender.Scene:
    """Return a scene with modified cameras."""
    frames = [dataclasses.replace(frame, camera=change(frame.camera)) for frame in scene.frames]
    return dataclasses.replace(scene, frames=tuple(frames))


def meshes(folder: Path) -> None:
    """Fit a ring from a sphere, and noisy points with too little and too much smoothing."""
    camera = unrender.Camera.look_at([1.6, 2.0, 3.0], fov_degrees=48, height=SIZE, width=SIZE)
    ring = scan(unrender.torus(), 2000)
    starts = [fitted_mesh(ring, camera, start=start) for start in ("auto", "sphere")]
    save(folder, "start.png", [unrender.render_points(ring, camera, radius=1.2), *starts])

    camera = unrender.Camera.look_at([1.6, 1.0, 2.2], fov_degrees=38, height=SIZE, width=SIZE)
    noisy = scan(unrender.demo_object(), 5000, noise=0.012)
    weights = [fitted_mesh(noisy, camera, smoothness=weight) for weight in (None, 1e-10, 3e-5)]
    save(folder, "smoothness.png", weights)


def scan(mesh: unrender.Mesh, count: int, noise: float = 0.0) -> unrender.PointCloud:
    """Sample points of a surface, with Gaussian noise."""
    generator = torch.Generator().manual_seed(0)
    points = unrender.sample_points_from_mesh(mesh, count, generator=generator).points
    return unrender.PointCloud(
        points + noise * torch.randn(points.shape, generator=generator, dtype=points.dtype)
    )


def fitted_mesh(cloud: unrender.PointCloud, camera: unrender.Camera, **settings: object) -> Tensor:
    """Render the mesh fitted with these settings."""
    config = dataclasses.replace(unrender.FitMesh(edge_length=0.08, steps=30), **settings)
    *_, last = unrender.fit_mesh(cloud, config)
    return unrender.render_mesh(last.result.to(torch.float32), camera, supersampling=3)


def wall(folder: Path) -> None:
    """Render a flat wall from above, unprojected from z and from distances mistaken for z."""
    camera = unrender.Camera.look_at([0.0, 0, 0], [0.0, 0, 1], fov_degrees=70, height=60, width=90)
    cosines = unrender.rays_of(camera).directions @ camera.camera_from_world[2, :3]
    z = torch.full((60, 90), 2.0)
    above = unrender.Camera.look_at(
        [0.0, 4, 1.2], [0.0, 0, 1.2], [0.0, 0, 1], view_height=4.2, height=SIZE, width=SIZE
    )
    images = []
    for depth in (z, z / cosines):
        points = unrender.points_from_depth(depth, camera.focal, camera.center).points.view(-1, 3)
        cloud = unrender.PointCloud(torch.cat([points, torch.zeros(1, 3)]))
        images.append(unrender.render_points(cloud, above, radius=1.6, supersampling=2))
    save(folder, "wall.png", images)


def sides(folder: Path) -> None:
    """Render a silhouette from the front and, mirrored, from behind: near, and from far away."""
    mesh = unrender.demo_object().to(torch.float32)
    images = []
    for distance, angle in ((3.2, 40.0), (60.0, 2.2)):
        eye = torch.tensor([0.5, 0.25, 0.83]) * distance
        front, back = (
            unrender.render_silhouette(
                mesh,
                unrender.Camera.look_at(side * eye, fov_degrees=angle, height=SIZE, width=SIZE),
                blur=1.0,
            )
            for side in (1.0, -1.0)
        )
        back = back.flip(1)
        images.append(1 - torch.stack([back, (front + back) / 2, front], -1).mul(0.8))
    save(folder, "sides.png", images)


def save(folder: Path, name: str, images: Sequence[Tensor]) -> None:
    """Save images side by side, with a gap between them."""
    gap = torch.ones(images[0].shape[0], 8, 3)
    row = [strip for image in images for strip in (gap, image.detach().float())][1:]
    pixels = (255 * torch.cat(row, 1).clamp(0, 1)).byte().numpy()
    Image.fromarray(pixels).quantize(COLORS, dither=Image.Dither.NONE).save(folder / name, optimize=True)
    print(folder / name)


def main(folder: Path) -> None:
    """Render all images."""
    for make in (wall, sides, meshes, volumes):
        make(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
