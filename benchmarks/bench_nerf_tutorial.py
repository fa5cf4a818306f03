"""Time the NeRF tutorial of PyTorch3D: a cow from 40 images of 128², 6 × 750 rays with 128 samples per step.

python benchmarks/bench_nerf_tutorial.py ../shared/data/meshes/cow/cow.obj [--steps 3000] [--minutes 3]

PyTorch3D 0.7.9 (C++ CPU build, 2 threads) took 25.7 s per step on a machine where one matrix product 2048³ ("mm") took
111 ms; ours is measured in the same run as the products. `--schedule-steps` is the length of the schedule; training
stops after `--steps`, or once --psnr is reached. PSNR is measured on black, on every fourth pixel in x and y of every
fourth training image.

Then `fit_nerf` trains on the same images for `--minutes`, including evaluation; the printed times exclude it.

Unlike in the tutorial, rays pass through pixel centers, and there is nothing outside of its cube of side 3.
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path

import torch
from bench_volume_tutorial import EVERY, VIEWS, compare, fit_until, render_dataset, save_scene
from timing import machine, record, seconds
from torch import Tensor

from unrender import (
    Camera,
    FitNerf,
    NeRF,
    Rays,
    RaySamples,
    RenderOutput,
    SceneBox,
    fit_nerf,
    load_textured_mesh,
    march,
    random_pixels,
    rays_of,
    rays_through,
)
from unrender.tasks.volume.tutorial import huber

PYTORCH3D_SECONDS, PYTORCH3D_MM = 25.7, 0.111
VIEWS_PER_STEP, RAYS_PER_VIEW, POINTS = 6, 750, 128
NEAR, FAR = 0.1, 3.0
RATE, DECAY_AFTER = 1e-3, 0.75
EVALUATE_EVERY, STRIDE = 50, 4
"""Steps between evaluations, and the pixel stride of evaluated images."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mesh", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--schedule-steps", type=int, default=3000)
    parser.add_argument("--psnr", type=float, default=float("inf"))
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    print(machine())
    dataset = render_dataset(*load_textured_mesh(options.mesh))
    if options.steps:
        run_tutorial(*dataset, options)
    with tempfile.TemporaryDirectory() as folder:
        config = FitNerf(minutes=options.minutes)
        fit_until(fit_nerf(save_scene(*dataset, Path(folder)), config), 200, *dataset, math.inf)


def run_tutorial(images: Tensor, silhouettes: Tensor, cameras: Camera, options: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(1)
    field = NeRF.tutorial(SceneBox.cube(torch.zeros(3), 1.5), generator=generator)
    optimizer = torch.optim.Adam(field.parameters(), lr=RATE)
    times, products, matrix, losses = [], [], torch.rand(2048, 2048), [0.0, 0.0]

    def step() -> None:
        chosen = torch.randperm(VIEWS, generator=generator)[:VIEWS_PER_STEP]
        pixels = random_pixels(
            VIEWS_PER_STEP * RAYS_PER_VIEW,
            num_views=VIEWS_PER_STEP,
            height=images.shape[1],
            width=images.shape[2],
            generator=generator,
        )
        views = chosen[pixels.views]
        rendered = render(field, cameras[views], rays_through(cameras[views], pixels.centers))
        color = huber(rendered.color, images[views, pixels.rows, pixels.columns])
        silhouette = huber(rendered.opacity, silhouettes[views, pixels.rows, pixels.columns])
        optimizer.zero_grad()
        (color + silhouette).backward()
        optimizer.step()
        losses[:] = float(color.detach()), float(silhouette.detach())

    for index in range(1, options.steps + 1):
        if index == round(DECAY_AFTER * options.schedule_steps):
            optimizer = torch.optim.Adam(field.parameters(), lr=0.1 * RATE)
        products.append(seconds(lambda: matrix @ matrix))
        times.append(seconds(step))
        if index % 10 == 0:
            ours, mm = statistics.median(times), statistics.median(products)
            print(
                f"step {index}  color {losses[0]:.5f}  silhouette {losses[1]:.5f}  "
                f"{ours:.2f} s, {ours / mm:.0f} mm per step",
                flush=True,
            )
        if index % EVALUATE_EVERY == 0 or index == options.steps:
            with torch.no_grad():
                views = [
                    render(field, cameras[i], rays_of(cameras[i])[::STRIDE, ::STRIDE])
                    for i in range(0, VIEWS, EVERY)
                ]
            strided = (each[:, ::STRIDE, ::STRIDE] for each in (images, silhouettes))
            if compare(f"step {index}", views, *strided) >= options.psnr:
                break
    ours, mm = statistics.median(times), statistics.median(products)
    theirs = PYTORCH3D_SECONDS / PYTORCH3D_MM
    print(f"{ours:.2f} s, {ours / mm:.0f} mm per step; PyTorch3D {PYTORCH3D_SECONDS} s, {theirs:.0f} mm")
    print(f"{theirs / (ours / mm):.1f} × faster")
    record("nerf_tutorial/step", f"{ours / mm:.0f} mm, {theirs / (ours / mm):.1f} times as fast")


def render(field: NeRF, camera: Camera, rays: Rays) -> RenderOutput:
    """Render as the tutorial does: on black, at uniform depths, with alphas independent of the sample spacing."""
    cosines = (rays.directions * camera.camera_from_world[..., 2, :3]).sum(-1)
    distances = torch.linspace(NEAR, FAR, POINTS) / cosines[..., None]
    lengths = torch.full_like(distances, 1.5 / field.fine_network.density_unit)
    return march(field, rays, RaySamples(distances, lengths))


if __name__ == "__main__":
    main()
