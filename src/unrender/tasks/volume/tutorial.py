"""The recipe of PyTorch3D's tutorial "Fit a volume to a set of images", as it stands there, with our parts.

A grid of alphas and colors, both through a sigmoid, is seen along rays of 150 samples between two depths. Each sample
takes its alpha of the light, however long the ray is in it: so the result is tied to the number of samples.
`fit_volume` does better in every respect; this is kept to compare, and to start from in code of one's own.
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

EXTENT = 3.0
"""Sides of the volume, around the origin, in world units."""
NEAR, FAR, SAMPLES = 0.1, 3.0, 150
"""Depths of the first and the last sample, and how many there are."""
START = -4.0
"""Of the alphas, before the sigmoid; colors start at 0."""
VIEWS_A_STEP = 10
LEARNING_RATE = 0.1
SLOWER_AFTER = 0.75
"""Of all steps; then the learning rate is a tenth, and Adam begins anew."""
SCALING = 0.1
"""Of both losses."""


@dataclasses.dataclass(frozen=True)
class TutorialStep:
    """Where a fit stands."""

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
    """Fit size³ voxels to pictures before black, and to where the object is in them.

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
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
    for index in range(steps):
        if index == round(SLOWER_AFTER * steps):
            optimizer = torch.optim.Adam([logits], lr=0.1 * LEARNING_RATE)
        chosen = torch.randperm(len(images), generator=generator)[:VIEWS_A_STEP].tolist()
        grid = logits.sigmoid()
        leaf = grid.detach().requires_grad_()
        losses = {"color": 0.0, "silhouette": 0.0}
        for view in chosen:  # one after another, so that memory is that of one
            seen = see_alphas(leaf, cameras[view])
            color = huber(seen.color, images[view]) / len(chosen)
            silhouette = huber(seen.opacity, silhouettes[view]) / len(chosen)
            (color + silhouette).backward()
            losses["color"] += float(color.detach())
            losses["silhouette"] += float(silhouette.detach())
        optimizer.zero_grad()
        grid.backward(leaf.grad)
        optimizer.step()
        yield TutorialStep(index, steps - 1, losses, as_volume(logits.detach().sigmoid()))


def see_alphas(grid: Float[Tensor, "depth height width 4"], camera: Camera) -> GridMarch:
    """March through alphas and colors, in axes ``height width``; samples are at even depths, not distances."""
    rays = rays_of(camera)
    ahead = rays.directions @ camera.camera_from_world[2, :3]
    distances = torch.linspace(NEAR, FAR, SAMPLES).to(ahead) / ahead[..., None]
    scale = grid.shape[0] / EXTENT
    in_voxels = rays.origins * scale + grid.shape[0] / 2, rays.directions * scale
    color, opacity = march_grid(grid, *(t.reshape(-1, t.shape[-1]) for t in (*in_voxels, distances)))
    return GridMarch(color.view(*ahead.shape, 3), opacity.view(ahead.shape))


def huber(values: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of (√(1 + (difference / s)²) − 1) · s: squared where small, linear where large."""
    squared = (values - targets).square() / SCALING**2
    return ((1 + squared).clamp(min=1e-4).sqrt() - 1).mul(SCALING).abs().mean()


def as_volume(grid: Float[Tensor, "depth height width 4"]) -> Volume:
    """Put alphas and colors into the world."""
    corner = grid.new_full((3,), EXTENT / 2)
    return Volume.in_box(grid[..., 0], -corner, corner, grid[..., 1:])
