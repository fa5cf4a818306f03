"""Time the volume tutorial of PyTorch3D: a cow of 128³ voxels from 40 images of 128², 10 of them per step.

python benchmarks/bench_volume_tutorial.py ../shared/data/meshes/cow/cow.obj [--steps 300]

PyTorch3D 0.7.9 (C++ CPU build, 2 threads) took 15.5 s per step on a machine where one matrix product 2048³ ("mm") took
111 ms; ours is measured in the same run as the products. `--steps` is the length of the schedule; 0 skips the tutorial.

Then `fit_volume` trains on the same images until it reaches the PSNR of the tutorial, or --psnr. Both are measured on
every fourth training image, composited on black.
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
from unrender.tasks.volume.tutorial import render_alphas

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
    dataset = render_dataset(*load_textured_mesh(options.mesh))
    goal = options.psnr
    if options.steps:
        reached = run_tutorial(*dataset, options.steps)
        goal = reached if goal is None else goal
    with tempfile.TemporaryDirectory() as folder:
        fit = fit_volume(save_scene(*dataset, Path(folder)), OURS)
        fit_until(fit, 50, *dataset, 30.0 if goal is None else goal)


def run_tutorial(images: Tensor, silhouettes: Tensor, cameras: Camera, steps: int) -> float:
    times, products, taken, matrix = [], [], [], torch.rand(2048, 2048)
    fit = fit_tutorial_volume(images, silhouettes, cameras, steps=steps)
    for _ in range(steps):
        products.append(seconds(lambda: matrix @ matrix))
        times.append(seconds(lambda: taken.append(next(fit))))
        step = taken.pop()
        if step.index % 10 == 0 or step.index == step.last_index:
            losses = "  ".join(f"{name} {value:.5f}" for name, value in step.losses.items())
            print(f"step {step.index:3d}  {losses}  {statistics.median(times):.2f} s per step", flush=True)
    ours, mm = statistics.median(times[1:]), statistics.median(products[1:])
    print(f"{ours:.2f} s, {ours / mm:.0f} mm per step")
    record("volume_tutorial/step", f"{ours / mm:.0f} mm")
    print(f"PyTorch3D {PYTORCH3D_SECONDS} s, {PYTORCH3D_SECONDS / PYTORCH3D_MM:.0f} mm")
    grid = torch.cat([step.volume.density[..., None], step.volume.color], -1)
    with torch.no_grad():
        renders = [render_alphas(grid, cameras[i]) for i in range(0, VIEWS, EVERY)]
    return compare("tutorial", renders, images, silhouettes)


def save_scene(images: Tensor, silhouettes: Tensor, cameras: Camera, folder: Path) -> Scene:
    """Write the images with their silhouettes as alpha; all of them are training images."""
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
    fit: Iterable[TrainingStep],
    evaluate_every: int,
    images: Tensor,
    silhouettes: Tensor,
    cameras: Camera,
    goal: float,
) -> None:
    """Train on all images, as the tutorial does, and evaluate regularly; evaluation time is not counted."""
    begin, evaluating = time.perf_counter(), 0.0
    for step in fit:
        if step.index % evaluate_every:
            continue
        spent = time.perf_counter() - begin - evaluating
        pause = time.perf_counter()
        renders = [step.result.render(cameras[i], torch.zeros(3)) for i in range(0, VIEWS, EVERY)]
        reached = compare(f"step {step.index}, {spent:.1f} s", renders, images, silhouettes)
        evaluating += time.perf_counter() - pause
        if reached >= goal:
            print(f"{goal:.2f} dB after {spent:.1f} s")
            return


def compare(
    label: str, renders: Sequence[GridMarch | RenderOutput], images: Tensor, silhouettes: Tensor
) -> float:
    error = torch.stack([s.color for s in renders]) - images[::EVERY]
    opaque = torch.stack([s.opacity for s in renders]) > 0.5
    truth = silhouettes[::EVERY] > 0.5
    iou = float((opaque & truth).sum() / (opaque | truth).sum())
    value = -10 * math.log10(float(error.square().mean()))
    print(f"{label}: PSNR {value:.2f} dB, silhouette IoU {iou:.4f}", flush=True)
    return value


def render_dataset(mesh: Mesh, texture: Texture | None) -> tuple[Tensor, Tensor, Camera]:
    """Center and scale the cow as the tutorial does, and render it from a horizontal circle of cameras."""
    center = mesh.vertices.mean(0)
    mesh = mesh.replace(vertices=(mesh.vertices - center) / (mesh.vertices - center).abs().max())
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
