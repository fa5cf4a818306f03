"""Fit a simple radiance field to pictures, by rays drawn at random."""

import argparse

import torch
from cow_pictures import take
from pytorch3d.renderer import (
    EmissionAbsorptionRaymarcher,
    FoVPerspectiveCameras,
    HarmonicEmbedding,
    ImplicitRenderer,
    MonteCarloRaysampler,
    NDCMultinomialRaysampler,
    ray_bundle_to_ray_points,
)


class NeuralRadianceField(torch.nn.Module):
    def __init__(self, n_harmonic_functions=60, n_hidden_neurons=256):
        super().__init__()
        self.harmonic_embedding = HarmonicEmbedding(n_harmonic_functions, 0.1)
        dimensions = self.harmonic_embedding.get_output_dim()
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(dimensions, n_hidden_neurons),
            torch.nn.Softplus(beta=10.0),
            torch.nn.Linear(n_hidden_neurons, n_hidden_neurons),
            torch.nn.Softplus(beta=10.0),
        )
        self.color_layer = torch.nn.Sequential(
            torch.nn.Linear(n_hidden_neurons + dimensions, n_hidden_neurons),
            torch.nn.Softplus(beta=10.0),
            torch.nn.Linear(n_hidden_neurons, 3),
            torch.nn.Sigmoid(),
        )
        self.density_layer = torch.nn.Sequential(
            torch.nn.Linear(n_hidden_neurons, 1), torch.nn.Softplus(beta=10.0)
        )
        self.density_layer[0].bias.data[0] = -1.5

    def forward(self, ray_bundle, **kwargs):
        features = self.mlp(self.harmonic_embedding(ray_bundle_to_ray_points(ray_bundle)))
        densities = 1 - (-self.density_layer(features)).exp()
        directions = self.harmonic_embedding(torch.nn.functional.normalize(ray_bundle.directions, dim=-1))
        directions = directions[..., None, :].expand(*features.shape[:-1], directions.shape[-1])
        return densities, self.color_layer(torch.cat((features, directions), dim=-1))


def huber(x, y, scaling=0.1):
    squared = (x - y) ** 2
    return ((1 + squared / scaling**2).clamp(1e-4).sqrt() - 1) * scaling


def prepare(mesh=None, views=40, size=128, rays=750, points=128, views_a_step=6, hidden=256):
    cameras, images, silhouettes = take(mesh, views, size)
    extent = 3.0
    marcher = EmissionAbsorptionRaymarcher()
    sampler = MonteCarloRaysampler(
        min_x=-1.0,
        max_x=1.0,
        min_y=-1.0,
        max_y=1.0,
        n_rays_per_image=rays,
        n_pts_per_ray=points,
        min_depth=0.1,
        max_depth=extent,
    )
    renderer = ImplicitRenderer(raysampler=sampler, raymarcher=marcher)
    field = NeuralRadianceField(n_hidden_neurons=hidden)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-3)
    targets = torch.cat([images, silhouettes[..., None]], -1).permute(0, 3, 1, 2)

    def step():
        chosen = torch.randperm(views)[:views_a_step]
        batch = FoVPerspectiveCameras(
            R=cameras.R[chosen], T=cameras.T[chosen], znear=cameras.znear[chosen], zfar=cameras.zfar[chosen]
        )
        optimizer.zero_grad()
        rendered, bundle = renderer(cameras=batch, volumetric_function=field)
        wanted = torch.nn.functional.grid_sample(
            targets[chosen], -bundle.xys.view(views_a_step, -1, 1, 2), align_corners=True
        )
        wanted = wanted.permute(0, 2, 3, 1).view(rendered.shape)
        loss = (
            huber(rendered[..., :3], wanted[..., :3]).mean() + huber(rendered[..., 3], wanted[..., 3]).mean()
        )
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    full = NDCMultinomialRaysampler(
        image_width=size, image_height=size, n_pts_per_ray=points, min_depth=0.1, max_depth=extent
    )
    return step, lambda: ImplicitRenderer(full, marcher)(cameras[0], volumetric_function=field)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mesh")
    parser.add_argument("--views", type=int, default=40)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rays", type=int, default=750)
    parser.add_argument("--points", type=int, default=128)
    parser.add_argument("--views-a-step", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    torch.manual_seed(0)
    step, picture = prepare(
        options.mesh,
        options.views,
        options.size,
        options.rays,
        options.points,
        options.views_a_step,
        options.hidden,
    )
    losses = [step() for _ in range(options.steps)]
    few = max(1, len(losses) // 5)
    first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
    with torch.no_grad():
        shape = list(picture().shape)
    print(f"from {first:.5f} to {last:.5f}, pictures {shape}")


if __name__ == "__main__":
    main()
