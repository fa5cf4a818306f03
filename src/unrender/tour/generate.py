"""The generated input of the tour: an object with known ground truth, scans and photos of it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unrender.data.demo_scene import save_demo_scene
from unrender.data.scenes import Scene
from unrender.geometry.camera import Camera, transform
from unrender.geometry.demo_object import demo_object
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.io import save_cloud, save_image, save_mesh
from unrender.render.lights import AmbientLight, DirectionalLight
from unrender.render.mesh import render_mesh
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.pose.find_pose import FindPose
from unrender.tasks.volume.config import FitVolume

FOV_DEGREES = 45.0
"""Of the photo for the pose estimation."""
SCAN, ONE_SIDE, TRUTH, PHOTO, SCENE = map(
    Path, ("scan.ply", "one-side.ply", "truth.ply", "photo.png", "photos")
)


@dataclasses.dataclass(frozen=True)
class TourSizes:
    """Sizes of the inputs and settings of the tasks."""

    points: int = 20_000
    """Points of the scan."""
    noise: float = 0.002
    """Standard deviation of the scan's noise, as a fraction of the diagonal of the object's bounding box."""
    photo_height: int = 480
    """Height of the photo for the pose estimation in pixels; aspect ratio 4 : 3."""
    pose: FindPose = FindPose()
    pixels: int = 256
    """Height and width of the training images."""
    num_train: int = 40
    num_test: int = 6
    """Numbers of training images and test views."""
    volume: FitVolume = FitVolume(resolution=128, steps=500, rays=16384, depth_loss_weight=0.0)
    nerf: FitNerf = FitNerf(steps=200, depth_loss_weight=0.0)
    """Both without depth supervision: the depth of the scene is the ground truth."""
    depth_views: int = 30
    depth_pixels: int = 160
    """Number and size of the depth maps that are fused."""
    spacing: float = 0.02
    """Point spacing of the exported cloud in world units; the object is 2 wide."""
    voxel_size: float = 0.015
    """Voxel size of the fused mesh in world units."""
    turntable: tuple[int, int] = (20, 320)
    """Frames and pixels of turntables of meshes and point clouds."""
    video: tuple[int, int] = (16, 256)
    """Frames and pixels of videos of fields."""


class TourInput(NamedTuple):
    """The generated input and the ground truth."""

    folder: Path
    sizes: TourSizes
    truth: Mesh
    camera: Camera
    """Of the photo for the pose estimation."""
    scene: Scene
    run_command: Callable[[str, Sequence[str]], object]
    """Runs a command of the command line, given its name and arguments."""
    device: str
    """Device of the commands: auto, cpu, cuda or cuda:N."""

    @property
    def diagonal(self) -> float:
        """Diagonal of the object's bounding box."""
        return float((self.truth.vertices.amax(0) - self.truth.vertices.amin(0)).norm())


def generate_input(
    folder: Path,
    sizes: TourSizes,
    run_command: Callable[[str, Sequence[str]], object],
    device: str = "auto",
) -> TourInput:
    """Write the object, a scan, a scan of one side, a photo, and a scene with training images and test views."""
    truth = demo_object()
    scan = scan_mesh(truth, sizes.points, sizes.noise)
    height, width = sizes.photo_height, sizes.photo_height * 4 // 3
    eye, target = [-1.9, 1.4, 2.6], [0.1, 0.0, 0.2]
    camera = Camera.look_at(eye, target, fov_degrees=FOV_DEGREES, height=height, width=width)
    save_mesh(truth, folder / TRUTH)
    save_cloud(scan, folder / SCAN)
    save_cloud(PointCloud(front_half(scan, camera)), folder / ONE_SIDE)
    save_image(photograph(truth.to(torch.float32), camera), folder / PHOTO)
    scene = save_demo_scene(
        folder / SCENE, size=sizes.pixels, num_train=sizes.num_train, num_test=sizes.num_test
    )
    return TourInput(folder, sizes, truth, camera, scene, run_command, device)


def scan_mesh(mesh: Mesh, num_points: int, noise: float) -> PointCloud:
    """Sample points from a mesh with Gaussian noise, as a fraction of the diagonal of its bounding box."""
    generator = torch.Generator().manual_seed(0)
    samples = sample_points_from_mesh(mesh, num_points, generator=generator)
    diagonal = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    offsets = torch.randn(samples.points.shape, generator=generator) * noise * diagonal
    return PointCloud(samples.points + offsets.to(samples.points.dtype))


def photograph(mesh: Mesh, camera: Camera) -> Tensor:
    """Render a mesh in directional light, RGBA with a transparent background."""
    lights = (AmbientLight(0.3), DirectionalLight(torch.tensor([-0.6, 0.6, 0.5]), 0.7))
    photo = render_mesh(mesh, camera, lights=lights, background=None, supersampling=2)
    color = photo[..., :3] / photo[..., 3:].clamp(min=1e-3)
    return torch.cat([color, photo[..., 3:]], -1).clamp(0, 1)


def front_half(scan: PointCloud, camera: Camera) -> Tensor:
    """Return the half of the points that is closer to the camera, in the camera frame."""
    points = transform(camera.camera_from_world, scan.points.to(torch.float32))
    return points[points[:, 2] < points[:, 2].median()]
