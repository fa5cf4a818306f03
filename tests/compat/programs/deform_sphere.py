"""Deform a sphere until points drawn from it lie where those of a cloud do, and it stays smooth."""

import argparse

import torch
from pytorch3d.io import load_ply, save_obj
from pytorch3d.loss import (
    chamfer_distance,
    mesh_edge_loss,
    mesh_laplacian_smoothing,
    mesh_normal_consistency,
)
from pytorch3d.ops import sample_points_from_meshes
from pytorch3d.utils import ico_sphere


def prepare(cloud=None, level=4, samples=5000):
    points = load_ply(cloud)[0] if cloud else made_up_cloud()
    points = points - points.mean(0)
    target = (points / points.abs().max())[None]
    source = ico_sphere(level)
    offsets = torch.zeros_like(source.verts_packed(), requires_grad=True)
    optimizer = torch.optim.SGD([offsets], lr=1.0, momentum=0.9)

    def step():
        optimizer.zero_grad()
        mesh = source.offset_verts(offsets)
        drawn = sample_points_from_meshes(mesh, samples)
        distance, _ = chamfer_distance(target, drawn)
        loss = distance + mesh_edge_loss(mesh) + 0.01 * mesh_normal_consistency(mesh)
        loss = loss + 0.1 * mesh_laplacian_smoothing(mesh, method="uniform")
        loss.backward()
        optimizer.step()
        return float(distance)

    return step, lambda: source.offset_verts(offsets.detach())


def made_up_cloud():
    points = ico_sphere(2).verts_packed()
    return points * torch.tensor([1.0, 0.5, 0.25])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cloud")
    parser.add_argument("--output")
    parser.add_argument("--level", type=int, default=4)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    torch.manual_seed(0)
    step, result = prepare(options.cloud, options.level, options.samples)
    distances = [step() for _ in range(options.steps)]
    few = max(1, len(distances) // 5)
    first, last = sum(distances[:few]) / few, sum(distances[-few:]) / few
    print(f"from {first:.5f} to {last:.5f}")
    if options.output:
        verts, faces = result().get_mesh_verts_faces(0)
        save_obj(options.output, verts, faces)


if __name__ == "__main__":
    main()
