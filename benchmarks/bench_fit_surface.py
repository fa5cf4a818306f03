"""Measure meshes that `fit_surface` makes of a trained field: PSNR of test views, distance to true depth, seconds.

python benchmarks/bench_fit_surface.py ../shared/data/chair field.safetensors --minutes 8 --inverted-depth-range 8
python benchmarks/bench_fit_surface.py --simplify

True points are those of the depth images of test views. 8-bit depth images are quantized, in NeRF-synthetic to 0.031
units, which alone puts them 0.008 from the surface along the ray, on average. `--output` keeps the mesh.
`--simplify` times the simplification of a million faces to 50,000.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from timing import machine

from unrender import (
    DepthView,
    FitSurface,
    Mesh,
    Scene,
    closest_on_mesh,
    fit_surface,
    load_field,
    load_scene,
    simplify_quadric,
    subdivide,
    torus,
)
from unrender.geometry.uv_atlas import unwrap
from unrender.io.textured_meshes import save_textured_mesh
from unrender.kernels.nearest import index_points
from unrender.tasks.depth.view_consistency import unproject_view
from unrender.tasks.surface.bake_texture import bake_texture
from unrender.tasks.surface.measure_surface import compare_views, measure_shape
from unrender.tasks.surface.photo_views import load_photo_views

POINT_STRIDE = 4
"""Every so many pixels along each axis of a depth image give a true point."""
MAX_VIEWS = 25


def main() -> None:
    """Fit a surface, or simplify one, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scene", type=Path, nargs="?")
    parser.add_argument("field", type=Path, nargs="?", help="file written by save_field or by a run")
    parser.add_argument("--inverted-depth-range", type=float)
    parser.add_argument("--minutes", type=float, default=5.0, help="of depth, surface and refinement")
    parser.add_argument("--faces", type=int, default=50_000)
    parser.add_argument("--texture-size", type=int, default=2048)
    parser.add_argument("--output", type=Path, help="folder for mesh.glb")
    parser.add_argument("--simplify", action="store_true")
    options = parser.parse_args()
    print(machine())
    if options.simplify:
        measure_simplification()
    if options.scene is not None and options.field is not None:
        with tempfile.TemporaryDirectory() as folder:
            measure(options, options.output or Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Fit a surface with vertex colors, then compute its texture, and compare both with test views."""
    scene = load_scene(options.scene, inverted_depth_range=options.inverted_depth_range)
    field, begin, stage = load_field(options.field), time.perf_counter(), ""
    for step in fit_surface(scene, field, FitSurface(faces=options.faces, minutes=options.minutes)):
        if step.stage != stage:
            stage = step.stage
            print(f"{time.perf_counter() - begin:6.0f} s  {stage}", flush=True)
    mesh = step.result
    print(f"{time.perf_counter() - begin:6.0f} s  {step.num_steps} steps; {'; '.join(step.notes)}")
    print(*(f"{name} {value}" for name, value in measure_shape(mesh).items()), sep=", ")
    report("vertex colors", scene, mesh)
    begin = time.perf_counter()
    atlas = unwrap(mesh, texture_size=options.texture_size)
    print(f"{time.perf_counter() - begin:6.0f} s  unwrapped")
    views = load_photo_views(scene.split("train"), 800)
    texture = bake_texture(mesh, atlas, views).texture
    print(f"{time.perf_counter() - begin:6.0f} s  texture")
    report("texture", scene, mesh, texture)
    path = folder / "mesh.glb"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_textured_mesh(mesh, texture, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def report(name: str, scene: Scene, mesh: Mesh, texture=None) -> None:
    """Print PSNR and SSIM of test views, and the distance of true points from the mesh."""
    frames = scene.split("test")[:MAX_VIEWS]
    views = list(compare_views(mesh, frames, texture))
    for metric in ("psnr", "ssim"):
        values = [view.metrics[metric] for view in views if metric in view.metrics]
        if values:
            print(f"{name}: {metric} {sum(values) / len(values):.4g} on {len(values)} test views")
    points = [true_points(frame) for frame in frames if frame.depth_file is not None]
    if points and texture is None:
        truth = index_points(torch.cat(points))
        distance = closest_on_mesh(truth, mesh.vertices, mesh.faces).squared_distances.sqrt()
        print(f"true points to mesh: mean {distance.mean():.5f}, median {distance.median():.5f} units")


def true_points(frame) -> torch.Tensor:
    """Return points of a depth image in world coordinates."""
    depth = frame.load_depth()
    sparse = torch.zeros_like(depth)
    sparse[::POINT_STRIDE, ::POINT_STRIDE] = depth[::POINT_STRIDE, ::POINT_STRIDE]
    return unproject_view(DepthView(frame.camera, sparse))[0]


def measure_simplification() -> None:
    """Print the time to simplify a million faces to 50,000."""
    mesh = torus(1.0, 0.4, 128, 64)
    while len(mesh.faces) < 1_000_000:
        mesh = subdivide(mesh)
    begin = time.perf_counter()
    found = simplify_quadric(mesh, 50_000)
    seconds = time.perf_counter() - begin
    print(f"{len(mesh.faces):,} faces to {len(found.faces):,}: {seconds:.1f} s")


if __name__ == "__main__":
    main()
