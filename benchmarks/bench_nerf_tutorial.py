"""Time the NeRF tutorial of PyTorch3D: a cow from 40 pictures of 128², 6 × 750 rays of 128 points a step.

python benchmarks/bench_nerf_tutorial.py ../shared/data/meshes/cow/cow.obj [--steps 3000] [--of 3000] [--minutes 3]

PyTorch3D 0.7.9 (C++ on a CPU, 2 threads) took 25.7 s a step, where one matrix product 2048³ ("mm") took 111 ms; ours is
measured in the same run as products. `--of` is the length of the whole schedule, of which `--steps` are taken, or as
many as it takes to reach --psnr. PSNR is measured before black, on every fourth
pixel, across and down, of every fourth of the pictures that are learned from.

Then `fit_nerf` gets the same pictures for so many `--minutes`, the looks at the result included; the seconds that are
printed are without these.

Unlike the tutorial, rays go through the middles of pixels, and there is nothing beyond its cube of 3 units.
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path

import torch
from bench_volume_tutorial import EVERY, VIEWS, compare, fit_until, photograph, save_scene
from timing import machine, record, seconds
from torch import Tensor

from unrender import (
    Camera,
    FieldSpace,
    FitNerf,
    Marched,
    NeRF,
    Rays,
    RaySamples,
    fit_nerf,
    load_textured_mesh,
    march,
    random_pixels,
    rays_of,
    rays_through,
)
from unrender.tasks.volume.tutorial import huber

PYTORCH3D_SECONDS, PYTORCH3D_MM = 25.7, 0.111
VIEWS_A_STEP, RAYS_A_VIEW, POINTS = 6, 750, 128
NEAR, FAR = 0.1, 3.0
RATE, SLOWER_AFTER = 1e-3, 0.75
LOOK_EVERY, THIN = 50, 4
"""Steps between looks, and pixels between those that are looked at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mesh", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--of", type=int, default=3000)
    parser.add_argument("--psnr", type=float, default=float("inf"))
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    print(machine())
    pictures = photograph(*load_textured_mesh(options.mesh))
    if options.steps:
        follow_recipe(*pictures, options)
    with tempfile.TemporaryDirectory() as folder:
        config = FitNerf(minutes=options.minutes)
        fit_until(fit_nerf(save_scene(*pictures, Path(folder)), config), 200, *pictures, math.inf)


def follow_recipe(images: Tensor, silhouettes: Tensor, cameras: Camera, options: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(1)
    field = NeRF.tutorial(FieldSpace(torch.zeros(3), 1.5), generator=generator)
    optimizer = torch.optim.Adam(field.parameters(), lr=RATE)
    times, products, matrix, losses = [], [], torch.rand(2048, 2048), [0.0, 0.0]

    def step() -> None:
        chosen = torch.randperm(VIEWS, generator=generator)[:VIEWS_A_STEP]
        pixels = random_pixels(
            VIEWS_A_STEP * RAYS_A_VIEW,
            num_views=VIEWS_A_STEP,
            height=images.shape[1],
            width=images.shape[2],
            generator=generator,
        )
        views = chosen[pixels.views]
        seen = see(field, cameras[views], rays_through(cameras[views], pixels.centers))
        color = huber(seen.color, images[views, pixels.rows, pixels.columns])
        silhouette = huber(seen.opacity, silhouettes[views, pixels.rows, pixels.columns])
        optimizer.zero_grad()
        (color + silhouette).backward()
        optimizer.step()
        losses[:] = float(color.detach()), float(silhouette.detach())

    for index in range(1, options.steps + 1):
        if index == round(SLOWER_AFTER * options.of):
            optimizer = torch.optim.Adam(field.parameters(), lr=0.1 * RATE)
        products.append(seconds(lambda: matrix @ matrix))
        times.append(seconds(step))
        if index % 10 == 0:
            ours, mm = statistics.median(times), statistics.median(products)
            print(
                f"step {index}  color {losses[0]:.5f}  silhouette {losses[1]:.5f}  "
                f"{ours:.2f} s, {ours / mm:.0f} mm a step",
                flush=True,
            )
        if index % LOOK_EVERY == 0 or index == options.steps:
            with torch.no_grad():
                views = [
                    see(field, cameras[i], rays_of(cameras[i])[::THIN, ::THIN])
                    for i in range(0, VIEWS, EVERY)
                ]
            thin = (each[:, ::THIN, ::THIN] for each in (images, silhouettes))
            if compare(f"step {index}", views, *thin) >= options.psnr:
                break
    ours, mm = statistics.median(times), statistics.median(products)
    theirs = PYTORCH3D_SECONDS / PYTORCH3D_MM
    print(f"{ours:.2f} s, {ours / mm:.0f} mm a step; PyTorch3D {PYTORCH3D_SECONDS} s, {theirs:.0f} mm")
    print(f"{theirs / (ours / mm):.1f} times as fast")
    record("nerf_tutorial/step", f"{ours / mm:.0f} mm, {theirs / (ours / mm):.1f} times as fast")


def see(field: NeRF, camera: Camera, rays: Rays) -> Marched:
    """March as the tutorial does: before black, at even depths, samples as opaque however far from each other."""
    ahead = (rays.directions * camera.camera_from_world[..., 2, :3]).sum(-1)
    distances = torch.linspace(NEAR, FAR, POINTS) / ahead[..., None]
    lengths = torch.full_like(distances, field.half_side / field.fine_network.density_unit)
    return march(field, rays, RaySamples(distances, lengths))


if __name__ == "__main__":
    main()
