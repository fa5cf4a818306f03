"""The volume fitting of PyTorch3D's tutorial "Fit a volume to a set of images", on the kernels of this library.

A grid of alphas and colors, both through a sigmoid, is rendered along rays of 150 samples between two depths. Alphas do
not depend on the length of the interval between samples, so the result is tied to the number of samples. Use
`fit_volume` for your own scenes; this is for comparison, and a starting point for code of your own.
"""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from unrender._checked import checked
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.rays import rays_of
from unrender.geometry.volume import Volume
from unrender.kernels.march_grid import GridMarch, march_grid
from unrender.training.gradient_step import backpropagate

EXTENT = 3.0
"""Sides of the volume, around the origin, in world units."""
NEAR, FAR, SAMPLES = 0.1, 3.0, 150
"""Depths of the first and the last sample, and the number of samples."""
START = -4.0
"""Initial logit of the alphas; that of the colors is 0."""
VIEWS_PER_STEP = 10
LEARNING_RATE = 0.1
DECAY_AT = 0.75
"""Fraction of the steps after which the learning rate is a tenth, and the state of Adam is reset."""
HUBER_SCALE = 0.1
"""Difference at which both losses change from quadratic to linear."""


@dataclasses.dataclass(frozen=True)
class TutorialStep:
    """State of the fit after a training step."""

    index: int
    last_index: int
    losses: dict[str, float]
    volume: Volume
    """Its density holds alphas: march through it with `gives="alpha"`, at the depths that it was fitted with."""


@checked
def fit_tutorial_volume(
    images: Float[Tensor, "views height width 3"],
    silhouettes: Float[Tensor, "views height width"],
    cameras: Camera,
    *,
    size: int = 128,
    steps: int = 300,
    seed: int = 0,
) -> Iterator[TutorialStep]:
    """Fit size³ voxels to images on a black background and their silhouettes, as PyTorch3D's tutorial does.

    Source: PyTorch3D 0.7, docs/tutorials/fit_textured_volume.ipynb.
    """
    if cameras.batch_shape != (len(images),):
        raise InputError(
            f"fit_tutorial_volume: `cameras` should be one for each of {len(images)} images, got "
            f"{list(cameras.batch_shape)}"
        )
    return _fit(images, silhouettes, cameras, size, steps, seed)


def _fit(
    images: Tensor, silhouettes: Tensor, cameras: Camera, size: int, steps: int, seed: int
) -> Iterator[TutorialStep]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.tensor([START, 0.0, 0.0, 0.0]).to(images)
    logits = start.expand(size, size, size, 4).clone().requires_grad_()
    rays, volume = _rays_in_voxels(cameras, size), as_volume(logits.detach())
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE, fused=True)
    for index in range(steps):
        if index == round(DECAY_AT * steps):
            optimizer = torch.optim.Adam([logits], lr=0.1 * LEARNING_RATE, fused=True)
        chosen = torch.randperm(len(images), generator=generator)[:VIEWS_PER_STEP].to(images.device)
        optimizer.zero_grad()
        output = _march(logits.sigmoid(), *(t[chosen] for t in rays))
        color, silhouette = huber(output.color, images[chosen]), huber(output.opacity, silhouettes[chosen])
        backpropagate(color + silhouette)
        optimizer.step()
        losses = dict(zip(("color", "silhouette"), torch.stack([color, silhouette]).tolist(), strict=True))
        grid = logits.detach().sigmoid()
        yield TutorialStep(
            index, steps - 1, losses, volume.replace(density=grid[..., 0], color=grid[..., 1:])
        )


def render_alphas(grid: Float[Tensor, "depth height width 4"], camera: Camera) -> GridMarch:
    """Render alphas and colors, in axes ``*batch height width``; samples are equidistant in depth, not in distance."""
    return _march(grid, *_rays_in_voxels(camera, grid.shape[0]))


def _rays_in_voxels(camera: Camera, size: int) -> tuple[Tensor, Tensor]:
    """Return origins and directions in voxels; directions are those in which the depth grows by 1."""
    rays = rays_of(camera)
    cosines = (rays.directions * camera.camera_from_world[..., None, None, 2, :3]).sum(-1, keepdim=True)
    scale = size / EXTENT
    return rays.origins * scale + size / 2, rays.directions * (scale / cosines)


def _march(grid: Tensor, origins: Tensor, directions: Tensor) -> GridMarch:
    depths = torch.linspace(NEAR, FAR, SAMPLES, dtype=grid.dtype, device=grid.device)
    color, opacity = march_grid(grid, origins.reshape(-1, 3), directions.reshape(-1, 3), depths[None])
    shape = directions.shape[:-1]
    return GridMarch(color.view(*shape, 3), opacity.view(shape))


def huber(values: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of (√(1 + (difference / s)²) − 1) · s: squared where small, linear where large."""
    squared = (values - targets).square() / HUBER_SCALE**2
    return ((1 + squared).clamp(min=1e-4).sqrt() - 1).mul(HUBER_SCALE).abs().mean()


def as_volume(grid: Float[Tensor, "depth height width 4"]) -> Volume:
    """Return alphas and colors as a volume in world space, centered at the origin."""
    corner = grid.new_full((3,), EXTENT / 2)
    return Volume.in_box(grid[..., 0], -corner, corner, grid[..., 1:])
