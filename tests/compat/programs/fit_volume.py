"""Fit a volume of densities and colors to pictures."""

import argparse

import torch
from cow_pictures import take
from pytorch3d.renderer import (
    EmissionAbsorptionRaymarcher,
    FoVPerspectiveCameras,
    NDCMultinomialRaysampler,
    VolumeRenderer,
)
from pytorch3d.structures import Volumes


class VolumeModel(torch.nn.Module):
    def __init__(self, renderer, volume_size, voxel_size):
        super().__init__()
        self.log_densities = torch.nn.Parameter(-4.0 * torch.ones(1, *volume_size))
        self.log_colors = torch.nn.Parameter(torch.zeros(3, *volume_size))
        self._voxel_size = voxel_size
        self._renderer = renderer

    def forward(self, cameras):
        batch_size = cameras.R.shape[0]
        densities = torch.sigmoid(self.log_densities)
        colors = torch.sigmoid(self.log_colors)
        volumes = Volumes(
            densities=densities[None].expand(batch_size, *self.log_densities.shape),
            features=colors[None].expand(batch_size, *self.log_colors.shape),
            voxel_size=self._voxel_size,
        )
        return self._renderer(cameras=cameras, volumes=volumes)[0]


def huber(x, y, scaling=0.1):
    squared = (x - y) ** 2
    return ((1 + squared / scaling**2).clamp(1e-4).sqrt() - 1) * scaling


def prepare(mesh=None, views=40, size=128, volume=128, points=150, views_a_step=10, lr=0.1):
    cameras, images, silhouettes = take(mesh, views, size)
    extent = 3.0
    renderer = VolumeRenderer(
        raysampler=NDCMultinomialRaysampler(
            image_width=size, image_height=size, n_pts_per_ray=points, min_depth=0.1, max_depth=extent
        ),
        raymarcher=EmissionAbsorptionRaymarcher(),
    )
    model = VolumeModel(renderer, [volume] * 3, extent / volume)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def step():
        chosen = torch.randperm(views)[:views_a_step]
        batch = FoVPerspectiveCameras(
            R=cameras.R[chosen], T=cameras.T[chosen], znear=cameras.znear[chosen], zfar=cameras.zfar[chosen]
        )
        optimizer.zero_grad()
        rendered, opacity = model(batch).split([3, 1], dim=-1)
        silhouette_error = huber(opacity[..., 0], silhouettes[chosen]).abs().mean()
        color_error = huber(rendered, images[chosen]).abs().mean()
        loss = color_error + silhouette_error
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step, model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mesh")
    parser.add_argument("--views", type=int, default=40)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--volume", type=int, default=128)
    parser.add_argument("--points", type=int, default=150)
    parser.add_argument("--views-a-step", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.manual_seed(0)
    step, _ = prepare(
        options.mesh, options.views, options.size, options.volume, options.points, options.views_a_step
    )
    losses = [step() for _ in range(options.steps)]
    few = max(1, len(losses) // 5)
    first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
    print(f"from {first:.5f} to {last:.5f}")


if __name__ == "__main__":
    main()
