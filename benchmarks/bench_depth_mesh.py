"""Measure the distance between meshes of a trained field and the points of a scene's ground-truth depth maps.

python benchmarks/bench_depth_mesh.py ../shared/data/chair field.safetensors --inverted-depth-range 8

One mesh is TSDF-fused from depth maps of training views, one is a level set of the density, both with default settings.
True points are fully covered pixels of test views. 8-bit depth images are quantized, in NeRF-synthetic to 0.031 units,
which alone causes errors of up to 0.016 along the ray, 0.008 on average. `--images` renders each mesh from three sides.
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
"""Approximate number of samples on the surface, and of ground-truth points."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("field", type=Path, help="file written by save_field or by a run")
    parser.add_argument("--inverted-depth-range", type=float)
    parser.add_argument("--views", type=int, default=100, help="number of training views, evenly spaced")
    parser.add_argument("--size", type=int, default=400, help="of the views, in pixels")
    parser.add_argument("--images", type=Path, help="output folder")
    options = parser.parse_args()
    print(machine())
    field = load_field(options.field)
    scene = load_scene(options.scene, inverted_depth_range=options.inverted_depth_range)
    truth = true_points(scene)
    begin = time.process_time()
    views = depth_views(field, scene, options.views, options.size)
    print(f"{len(views)} views of {options.size} pixels: {time.process_time() - begin:.0f} s of CPU time")
    for name, make in (("depth", lambda: fuse_depths(views)), ("density", lambda: extract_surface(field))):
        begin = time.process_time()
        mesh = make()
        print(f"{name}: {len(mesh.faces):,} faces in {time.process_time() - begin:.0f} s of CPU time")
        report(mesh, truth)
        if options.images is not None:
            options.images.mkdir(exist_ok=True)
            save_image(three_sides(mesh), options.images / f"{name}.png")


def depth_views(field, scene: Scene, count: int, size: int) -> list[DepthView]:
    cameras = [frame.camera.resize(size, size) for frame in scene.split("train")]
    views = []
    for camera in (cameras[i * len(cameras) // count] for i in range(min(count, len(cameras)))):
        depth, black = measure_depth(field, camera), torch.zeros(3)
        rendered = field.render(camera, black)
        color = (rendered.color / rendered.opacity.clamp(min=1e-3)[..., None]).clamp(0, 1)
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
    for label, values in (("true points to mesh", from_truth), ("mesh to true points", from_mesh)):
        ordered = values.sort().values
        print(
            f"  {label}: mean {ordered.mean():.4f}, median {statistics.median(ordered.tolist()):.4f}, "
            f"95 % within {ordered[int(0.95 * len(ordered))]:.4f}"
        )


def three_sides(mesh: Mesh) -> torch.Tensor:
    center = (mesh.vertices.amin(0) + mesh.vertices.amax(0)) / 2
    far = 1.4 * float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    eyes = torch.tensor([[1.0, 0.3, 0.4], [-0.6, 0.9, 0.3], [-0.3, -1.0, 0.9]])
    cameras = [
        Camera.look_at(
            center + far * eye / eye.norm(),
            center,
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
