"""Video sequences with ground-truth poses: meshes before photos, with occlusion, blur and lighting."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import unrender
from unrender import Camera, Mesh, Texture
from unrender.geometry.camera import rigid, transform

FOV_DEGREES = 45.0


@dataclasses.dataclass(frozen=True)
class Sequence:
    """What happens in a sequence."""

    frames: int = 200
    width: int = 640
    height: int = 480
    seed: int = 0
    occluder: bool = False
    """A disc of another photo that covers up to half of the object."""
    light_changes: bool = False
    """The light turns around the object and its intensity changes."""
    blur: int = 1
    """Number of renderings averaged per frame: motion blur."""
    leaves: bool = False
    """The object leaves the image and returns, with another rotation."""
    camera_pans: bool = False
    """The background moves."""
    speed: float = 1.0
    """1: on average 2 degrees of rotation per frame."""


class FrameTruth(NamedTuple):
    image: Tensor
    """[height, width, 3] RGB in 8 bits."""
    pose: Tensor
    depth: Tensor
    visible: float
    """Fraction of the object's pixels that are visible; 0 outside the image."""


def camera_of(sequence: Sequence) -> Camera:
    focal = sequence.height / 2 / math.tan(math.radians(FOV_DEGREES / 2))
    center = torch.tensor([sequence.width / 2, sequence.height / 2])
    return Camera(torch.tensor([focal] * 2), center, torch.eye(4), sequence.height, sequence.width)


def render_sequence(
    mesh: Mesh, texture: Texture | None, sequence: Sequence, photos: list[Path]
) -> Iterator[FrameTruth]:
    """Render the frames of a sequence one after another."""
    generator = torch.Generator().manual_seed(sequence.seed)
    camera, path = camera_of(sequence), _Path(mesh, sequence, generator)
    background = _background(sequence, photos, sequence.seed, generator)
    patch = _background(sequence, photos, sequence.seed + 1, generator)
    for index in range(sequence.frames):
        image = _panned(background, sequence, index)
        layers = [
            _render(
                mesh, texture, camera, path.pose(index + 0.5 * k / sequence.blur), _lights(sequence, index)
            )
            for k in range(sequence.blur)
        ]
        color, alpha = (sum(layer[k] for layer in layers) / len(layers) for k in (0, 1))
        image = image * (1 - alpha[..., None]) + color
        pose = path.pose(index + 0.25 * (sequence.blur - 1) / sequence.blur)
        visible, depth = alpha > 0.5, layers[len(layers) // 2][2]
        total = max(int(visible.sum()), 1)
        if sequence.occluder:
            disc = _disc(camera, pose, mesh, index)
            image = torch.where(disc[..., None], patch, image)
            depth = torch.where(disc, 0.6 * float(pose[2, 3]), depth)
            visible = visible & ~disc
        noisy = image + 0.015 * torch.randn(image.shape, generator=generator)
        inside = path.fraction_inside(camera, pose)
        yield FrameTruth(
            (noisy.clamp(0, 1) * 255).round().byte(), pose, depth, inside * int(visible.sum()) / total
        )


class _Path:
    """A smooth random motion of the object, about a point before the camera."""

    def __init__(self, mesh: Mesh, sequence: Sequence, generator: torch.Generator) -> None:
        low, high = mesh.vertices.aminmax(dim=0)
        self.center, self.vertices = (low + high) / 2, mesh.vertices
        self.radius = float((mesh.vertices - self.center).norm(dim=1).max())
        self.start = unrender.random_rotations(1, generator=generator)[0].float()
        self.phases = 2 * math.pi * torch.rand(2, 6, generator=generator)
        self.sequence = sequence

    def pose(self, time: float) -> Tensor:
        wave = torch.sin(
            torch.tensor([0.031, 0.023, 0.027, 0.035, 0.026, 0.021]) * self.sequence.speed * time
            + self.phases[0]
        )
        wave = wave + 0.25 * torch.sin(0.11 * self.sequence.speed * time + self.phases[1])
        rotation = unrender.so3_exp_map(1.1 * wave[:3]) @ self.start
        x, y, z = (wave[3:] * torch.tensor([1.1, 0.8, 1.0])).tolist()
        z += 6.0
        if self.sequence.leaves:
            phase = (time / self.sequence.frames - 0.35) / 0.35  # outside in the middle of this interval
            x += 8.5 * math.sin(math.pi * min(max(phase, 0.0), 1.0)) ** 2
        return rigid(rotation, self.radius * torch.tensor([x, y, z]) - rotation @ self.center)

    def fraction_inside(self, camera: Camera, pose: Tensor) -> float:
        x, y, _ = camera.replace(camera_from_world=pose).project(self.vertices).unbind(-1)
        return float(((x > 0) & (x < camera.width) & (y > 0) & (y < camera.height)).float().mean())


def _render(
    mesh: Mesh, texture: Texture | None, camera: Camera, pose: Tensor, lights: tuple[object, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Render premultiplied colors, coverage and depth, in a crop around the object."""
    color = torch.zeros(camera.height, camera.width, 4)
    depth = torch.zeros(camera.height, camera.width)
    xy = camera.replace(camera_from_world=pose).project(mesh.vertices)[:, :2]
    left, top = (max(0, int(v) - 2) for v in xy.amin(0))
    right, bottom = (
        min(s, int(v) + 3) for v, s in zip(xy.amax(0), (camera.width, camera.height), strict=True)
    )
    if right - left > 1 and bottom - top > 1:
        crop = camera.crop(left, top, height=bottom - top, width=right - left).replace(camera_from_world=pose)
        color[top:bottom, left:right] = unrender.render_mesh(
            mesh, crop, lights=lights, texture=texture, background=None, supersampling=2
        ).clamp(0, 1)
        depth[top:bottom, left:right] = unrender.render_depth(mesh, crop)
    return color[..., :3], color[..., 3], depth


def _lights(sequence: Sequence, index: int) -> tuple[object, ...]:
    angle = 0.04 * index if sequence.light_changes else 0.0
    strength = 1 + 0.35 * math.sin(0.07 * index) if sequence.light_changes else 1.0
    direction = torch.tensor([0.3 * math.cos(angle) - 0.5 * math.sin(angle), -0.8, -0.5 * math.cos(angle)])
    return (unrender.AmbientLight(0.35 * strength), unrender.DirectionalLight(direction, 0.65 * strength))


def _background(sequence: Sequence, photos: list[Path], number: int, generator: torch.Generator) -> Tensor:
    """Return a photo in the size of the frames, or colored noise; larger if the camera pans."""
    size = (sequence.height, sequence.width)
    if photos:
        image = unrender.load_image(photos[(7 * number) % len(photos)])[..., :3]
    else:
        image = torch.rand(24, 32, 3, generator=generator)
    scaled = interpolate(image.movedim(-1, 0)[None], size=size, mode="bilinear", antialias=True)
    return scaled[0].movedim(0, -1).clamp(0, 1)


def _panned(background: Tensor, sequence: Sequence, index: int) -> Tensor:
    shift = round(60 * math.sin(0.05 * index)) if sequence.camera_pans else 0
    return background.roll(shift, 1)


def _disc(camera: Camera, pose: Tensor, mesh: Mesh, index: int) -> Tensor:
    """Return the pixels of an occluder that swings before the object and covers up to half of it."""
    low, high = mesh.vertices.aminmax(dim=0)
    center = camera.project(transform(pose, ((low + high) / 2)[None]))[0]
    radius = float((high - low).norm()) / 2 * float(camera.focal[0] / center[2])
    y, x = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    phase = 0.06 * index
    side = 1 if int(phase / (2 * math.pi)) % 2 == 0 else -1
    offset = side * radius * (1.3 + 0.75 * math.cos(phase))
    return (x - center[0] - offset).square() + (y - center[1] - 0.3 * radius).square() < (0.7 * radius) ** 2
