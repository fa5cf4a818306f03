"""Measure how far meshes of a learned field are from the points that a scene's true depth maps show.

python benchmarks/bench_depth_mesh.py ../shared/data/chair field.safetensors --inverted-depth-range 8

One mesh is fused from the depths of training views, one lies where the density reaches a level, both with default
settings. True points are pixels of held-out views that are wholly covered. Depth pictures of 8 bits have steps, of
0.031 units in NeRF-synthetic, which alone makes an error of up to 0.016 along the ray, 0.008 on average.
`--pictures` writes each mesh from three sides.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from timing import machine

from unrender import (
    Camera,
    DepthView,
    Mesh,
    Scene,
    closest_on_mesh,
    extract_surface,
    fuse_depths,
    load_field,
    load_scene,
    measure_depth,
    nearest,
    render_mesh,
    sample_points_from_mesh,
    save_image,
)

POINTS = 200_000
"""On the surface, and of the truth that they are compared to, about."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("field", type=Path, help="what save_field, or a run, wrote")
    parser.add_argument("--inverted-depth-range", type=float)
    parser.add_argument("--views", type=int, default=100, help="training views, evenly chosen")
    parser.add_argument("--size", type=int, default=400, help="of their pictures, in pixels")
    parser.add_argument("--pictures", type=Path, help="a folder")
    options = parser.parse_args()
    print(machine())
    field = load_field(options.field)
    scene = load_scene(options.scene, inverted_depth_range=options.inverted_depth_range)
    truth = true_points(scene)
    begin = time.process_time()
    views = depth_views(field, scene, options.views, options.size)
    print(
        f"{len(views)} views of {options.size} pixels: {time.process_time() - begin:.0f} s of the processor"
    )
    for name, make in (("depth", lambda: fuse_depths(views)), ("density", lambda: extract_surface(field))):
        begin = time.process_time()
        mesh = make()
        print(f"{name}: {len(mesh.faces):,} faces in {time.process_time() - begin:.0f} s of the processor")
        report(mesh, truth)
        if options.pictures is not None:
            options.pictures.mkdir(exist_ok=True)
            save_image(three_sides(mesh), options.pictures / f"{name}.png")


def depth_views(field, scene: Scene, count: int, size: int) -> list[DepthView]:
    cameras = [frame.camera.resize(size, size) for frame in scene.split("train")]
    views = []
    for camera in (cameras[i * len(cameras) // count] for i in range(min(count, len(cameras)))):
        depth, black = measure_depth(field, camera), torch.zeros(3)
        seen = field.render(camera, black)
        color = (seen.color / seen.opacity.clamp(min=1e-3)[..., None]).clamp(0, 1)
        views.append(DepthView(camera, torch.where(depth.valid, depth.median_z, 0), color))
    return views


def true_points(scene: Scene) -> torch.Tensor:
    points = []
    for frame in scene.split("test"):
        view, camera = frame.load(), frame.camera
        whole = (view.depth > 0) & (True if view.alpha is None else view.alpha == 1)
        y, x = (whole.nonzero() + 0.5).unbind(-1)
        points.append(camera.unproject(torch.stack([x, y, view.depth[whole]], -1)))
    found = torch.cat(points)
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]


def report(mesh: Mesh, truth: torch.Tensor) -> None:
    from_truth = closest_on_mesh(truth[:POINTS], mesh.vertices, mesh.faces).squared_distances.sqrt()
    samples = sample_points_from_mesh(mesh, POINTS // 4, generator=torch.Generator().manual_seed(0)).points
    from_mesh = nearest(samples, truth[: 10 * POINTS]).distances[:, 0].sqrt()
    for words, values in (("true points to the mesh", from_truth), ("the mesh to true points", from_mesh)):
        part = values.sort().values
        print(
            f"  {words}: mean {part.mean():.4f}, median {statistics.median(part.tolist()):.4f}, "
            f"95 % within {part[int(0.95 * len(part))]:.4f}"
        )


def three_sides(mesh: Mesh) -> torch.Tensor:
    middle = (mesh.vertices.amin(0) + mesh.vertices.amax(0)) / 2
    far = 1.4 * float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    eyes = torch.tensor([[1.0, 0.3, 0.4], [-0.6, 0.9, 0.3], [-0.3, -1.0, 0.9]])
    cameras = [
        Camera.look_at(
            middle + far * eye / eye.norm(),
            middle,
            torch.tensor([0.0, 0.0, 1.0]),
            fov_degrees=42,
            height=400,
            width=400,
        )
        for eye in eyes
    ]
    return torch.cat(
        [render_mesh(mesh, camera, supersampling=2).clamp(0, 1)[..., :3] for camera in cameras], 1
    )


if __name__ == "__main__":
    main()
