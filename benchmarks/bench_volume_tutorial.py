"""Time the volume tutorial of PyTorch3D: a cow of 128³ voxels from 40 pictures of 128², 10 of them a step.

python benchmarks/bench_volume_tutorial.py ../shared/data/meshes/cow/cow.obj [--steps 300]

PyTorch3D 0.7.9 (C++ on a CPU, 2 threads) took 15.5 s a step, where one matrix product 2048³ ("mm") took 111 ms; ours is
measured in the same run as products. `--steps` is the length of the whole schedule.
"""

import argparse
import math
import statistics
from pathlib import Path

import torch
from timing import machine, seconds
from torch import Tensor

from unrender import Camera, Mesh, Texture, load_textured_mesh, render_mesh
from unrender.tasks.tutorial_volume import fit_tutorial_volume, see_alphas

PYTORCH3D_SECONDS, PYTORCH3D_MM = 15.5, 0.111
VIEWS, SIZE, DISTANCE = 40, 128, 2.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mesh", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    print(machine())
    images, silhouettes, cameras = photograph(*load_textured_mesh(options.mesh))
    times, products, taken, matrix = [], [], [], torch.rand(2048, 2048)
    fit = fit_tutorial_volume(images, silhouettes, cameras, steps=options.steps)
    for _ in range(options.steps):
        products.append(seconds(lambda: matrix @ matrix))
        times.append(seconds(lambda: taken.append(next(fit))))
        step = taken.pop()
        if step.index % 10 == 0 or step.index == step.last_index:
            losses = "  ".join(f"{name} {value:.5f}" for name, value in step.losses.items())
            print(f"step {step.index:3d}  {losses}  {statistics.median(times):.2f} s a step", flush=True)
    ours, mm = statistics.median(times[1:]), statistics.median(products[1:])
    print(f"{ours:.2f} s, {ours / mm:.0f} mm a step")
    print(f"PyTorch3D {PYTORCH3D_SECONDS} s, {PYTORCH3D_SECONDS / PYTORCH3D_MM:.0f} mm")
    volume = step.volume
    grid = torch.cat([volume.density[..., None], volume.color], -1)
    with torch.no_grad():
        seen = [see_alphas(grid, cameras[i]) for i in range(0, VIEWS, 4)]
    error = torch.stack([s.color for s in seen]) - images[::4]
    opaque = torch.stack([s.opacity for s in seen]) > 0.5
    truth = silhouettes[::4] > 0.5
    iou = float((opaque & truth).sum() / (opaque | truth).sum())
    print(f"PSNR {-10 * math.log10(float(error.square().mean())):.2f} dB, silhouette IoU {iou:.4f}")


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
