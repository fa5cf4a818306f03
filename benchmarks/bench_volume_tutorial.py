"""Time the volume tutorial of PyTorch3D: a cow of 128³ voxels from 40 pictures of 128², 10 of them a step.

python benchmarks/bench_volume_tutorial.py ../shared/data/meshes/cow/cow.obj [--steps 300]

PyTorch3D 0.7.9 (C++ on a CPU, 2 threads) took 15.5 s a step, where one matrix product 2048³ ("mm") took 111 ms; ours is
measured in the same run as products. `--steps` is the length of the whole schedule; 0 leaves the recipe out.

Then `fit_volume` gets the same pictures, and works until it is as good as the recipe became, or as --psnr says.
Both are measured on every fourth of the pictures that they learned from, before black.
"""

import argparse
import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from timing import machine, record, seconds
from torch import Tensor

from unrender import (
    Camera,
    FitVolume,
    FitVolumeStep,
    Frame,
    Mesh,
    RenderOutput,
    Scene,
    Texture,
    TrainingStep,
    fit_tutorial_volume,
    fit_volume,
    load_scene,
    load_textured_mesh,
    render_mesh,
    save_image,
    save_transforms,
)
from unrender.kernels.march_grid import GridMarch
from unrender.tasks.volume.tutorial import see_alphas

PYTORCH3D_SECONDS, PYTORCH3D_MM = 15.5, 0.111
VIEWS, SIZE, DISTANCE = 40, 128, 2.7
EVERY = 4
OURS = FitVolume(resolution=128, steps=2000, rays=16384, background="black")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mesh", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--psnr", type=float)
    options = parser.parse_args()
    print(machine())
    pictures = photograph(*load_textured_mesh(options.mesh))
    goal = options.psnr
    if options.steps:
        reached = follow_recipe(*pictures, options.steps)
        goal = reached if goal is None else goal
    with tempfile.TemporaryDirectory() as folder:
        fit = fit_volume(save_scene(*pictures, Path(folder)), OURS)
        fit_until(fit, 50, *pictures, 30.0 if goal is None else goal)


def follow_recipe(images: Tensor, silhouettes: Tensor, cameras: Camera, steps: int) -> float:
    times, products, taken, matrix = [], [], [], torch.rand(2048, 2048)
    fit = fit_tutorial_volume(images, silhouettes, cameras, steps=steps)
    for _ in range(steps):
        products.append(seconds(lambda: matrix @ matrix))
        times.append(seconds(lambda: taken.append(next(fit))))
        step = taken.pop()
        if step.index % 10 == 0 or step.index == step.last_index:
            losses = "  ".join(f"{name} {value:.5f}" for name, value in step.losses.items())
            print(f"step {step.index:3d}  {losses}  {statistics.median(times):.2f} s a step", flush=True)
    ours, mm = statistics.median(times[1:]), statistics.median(products[1:])
    print(f"{ours:.2f} s, {ours / mm:.0f} mm a step")
    record("volume_tutorial/step", f"{ours / mm:.0f} mm")
    print(f"PyTorch3D {PYTORCH3D_SECONDS} s, {PYTORCH3D_SECONDS / PYTORCH3D_MM:.0f} mm")
    grid = torch.cat([step.volume.density[..., None], step.volume.color], -1)
    with torch.no_grad():
        seen = [see_alphas(grid, cameras[i]) for i in range(0, VIEWS, EVERY)]
    return compare("the recipe", seen, images, silhouettes)


def save_scene(images: Tensor, silhouettes: Tensor, cameras: Camera, folder: Path) -> Scene:
    """Write the pictures with their silhouettes as alpha; all are for learning."""
    frames = []
    for i in range(VIEWS):
        path = folder / f"{i:02d}.png"
        alpha = silhouettes[i, ..., None].clamp(0, 1)
        color = (images[i] / alpha.clamp(min=1e-3)).clamp(0, 1)
        save_image(torch.cat([color, alpha], -1), path)
        frames.append(Frame(path.name, cameras[i], path))
    save_transforms(frames, folder / "transforms.json")
    scene = load_scene(folder)
    frames = [dataclasses.replace(frame, split="train") for frame in scene.frames]
    return dataclasses.replace(scene, frames=tuple(frames))


def fit_until(
    fit: Iterable[FitVolumeStep | TrainingStep],
    look_every: int,
    images: Tensor,
    silhouettes: Tensor,
    cameras: Camera,
    goal: float,
) -> None:
    """Learn from all pictures, as the recipe does, and look now and then how good it is; that is not counted."""
    begin, looking = time.perf_counter(), 0.0
    for step in fit:
        if step.index % look_every:
            continue
        spent = time.perf_counter() - begin - looking
        pause = time.perf_counter()
        seen = [step.result.render(cameras[i], torch.zeros(3)) for i in range(0, VIEWS, EVERY)]
        reached = compare(f"step {step.index}, {spent:.1f} s", seen, images, silhouettes)
        looking += time.perf_counter() - pause
        if reached >= goal:
            print(f"{goal:.2f} dB after {spent:.1f} s")
            return


def compare(
    what: str, seen: Sequence[GridMarch | RenderOutput], images: Tensor, silhouettes: Tensor
) -> float:
    error = torch.stack([s.color for s in seen]) - images[::EVERY]
    opaque = torch.stack([s.opacity for s in seen]) > 0.5
    truth = silhouettes[::EVERY] > 0.5
    iou = float((opaque & truth).sum() / (opaque | truth).sum())
    value = -10 * math.log10(float(error.square().mean()))
    print(f"{what}: PSNR {value:.2f} dB, silhouette IoU {iou:.4f}", flush=True)
    return value


def photograph(mesh: Mesh, texture: Texture | None) -> tuple[Tensor, Tensor, Camera]:
    """Center and scale the cow as the tutorial does, and go around it, on a level with it."""
    middle = mesh.vertices.mean(0)
    mesh = mesh.replace(vertices=(mesh.vertices - middle) / (mesh.vertices - middle).abs().max())
    angles = torch.linspace(-math.pi, math.pi, VIEWS)
    eyes = DISTANCE * torch.stack([angles.sin(), torch.zeros(VIEWS), angles.cos()], -1)
    cameras = Camera.look_at(eyes, fov_degrees=60.0, height=SIZE, width=SIZE)
    rgba = torch.stack(
        [
            render_mesh(mesh, cameras[i], texture=texture, background=None, supersampling=2)
            for i in range(VIEWS)
        ]
    )
    return rgba[..., :3].clamp(0, 1) * rgba[..., 3:], rgba[..., 3], cameras


if __name__ == "__main__":
    main()
