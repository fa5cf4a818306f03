"""Time the rasterizer, soft silhouettes and soft Phong shading, and a brute-force rasterizer for comparison.

    python benchmarks/bench_rasterize.py --meshes ../shared/data/meshes

Without meshes, spheres with as many faces are used. "mm" is one float32 matrix product 2048³ of the same run.
"""

import argparse
import resource
from collections.abc import Callable
from pathlib import Path

import torch
from timing import machine, record, timed

from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.shapes import ico_sphere
from unrender.io import load_mesh
from unrender.kernels.rasterize import reference
from unrender.render.blend import blend_softmax
from unrender.render.fragments import rasterize
from unrender.render.lights import AmbientLight, Material, PointLight
from unrender.render.mesh import render_silhouette
from unrender.render.shade import phong

KEYS = {
    "rasterize cow 256², 1 layer": "rasterize/cow",
    "rasterize armadillo 256², 1 layer": "rasterize/armadillo 256",
    "rasterize armadillo 1024², 1 layer": "rasterize/armadillo 1024",
    "silhouette cow 256², forward": "silhouette/forward",
    "silhouette cow 256², forward + backward": "silhouette/backward",
    "soft Phong cow 256², 8 layers, forward + backward": "phong/backward",
}
"""Rows of docs/performance.json, with --meshes."""
BLUR = 3.88  # pixels: PyTorch3D's 9.2e-4 NDC² at 256²


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--meshes", type=Path, help="folder with cow/cow.obj and armadillo.obj")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    print(machine())
    cow = find_mesh(arguments.meshes, "cow/cow.obj", subdivisions=4)
    armadillo = find_mesh(arguments.meshes, "armadillo.obj", subdivisions=6)
    report_memory(armadillo)
    rows: list[tuple[str, Callable[[], object], float | None]] = [
        ("rasterize cow 256², 1 layer", lambda: rasterize(cow, view(cow, 256)), 0.07),
        (
            "rasterize cow 256², 50 layers, soft",
            lambda: rasterize(cow, view(cow, 256), layers=50, blur=BLUR),
            None,
        ),
        ("rasterize armadillo 256², 1 layer", lambda: rasterize(armadillo, view(armadillo, 256)), 0.25),
        ("rasterize armadillo 1024², 1 layer", lambda: rasterize(armadillo, view(armadillo, 1024)), 0.5),
        ("silhouette cow 256², forward", lambda: render_silhouette(cow, view(cow, 256), blur=BLUR), 0.12),
        ("silhouette cow 256², forward + backward", lambda: silhouette(cow, 256), 0.3),
        ("silhouette armadillo 1024², forward + backward", lambda: silhouette(armadillo, 1024), None),
        ("soft Phong cow 256², 8 layers, forward + backward", lambda: soft_phong(cow), 0.7),
    ]
    print(f"{'':52}{'ms':>9}{'mm':>8}{'target':>7}")
    for name, work, target in rows:
        milliseconds, products = timed(work, arguments.repeats)
        print(f"{name:52}{milliseconds:9.1f}{products:8.3f}{target or '':>7}")
        if arguments.meshes is not None and name in KEYS:
            record(KEYS[name], f"{products:.3f} mm")
    compare_with_brute_force(cow)


def find_mesh(folder: Path | None, name: str, *, subdivisions: int) -> Mesh:
    if folder is not None:
        return load_mesh(folder / name)
    return ico_sphere(subdivisions)


def view(mesh: Mesh, size: int) -> Camera:
    low, high = mesh.vertices.detach().amin(0), mesh.vertices.detach().amax(0)
    center, diagonal = (low + high) / 2, (high - low).norm()
    eye = center + diagonal * torch.tensor([0.5, 0.5, -1.0])
    return Camera.look_at(eye, center, fov_degrees=60, height=size, width=size)


def silhouette(mesh: Mesh, size: int) -> None:
    vertices = mesh.vertices.clone().requires_grad_()
    render_silhouette(mesh.replace(vertices=vertices), view(mesh, size), blur=BLUR).sum().backward()


def soft_phong(mesh: Mesh) -> None:
    mesh = mesh.replace(vertices=mesh.vertices.clone().requires_grad_())
    camera, lights = view(mesh, 256), [AmbientLight(0.5), PointLight(torch.tensor([2.0, 2.0, -2.0]))]
    fragments = rasterize(mesh, camera, layers=8, blur=BLUR)
    colors = phong(mesh, fragments, camera, lights, Material(diffuse=0.3, specular=0.2))
    blend_softmax(colors, fragments, blur=BLUR).sum().backward()


def compare_with_brute_force(mesh: Mesh) -> None:
    """Time the reference, which tests every face at every pixel, on a smaller image."""
    camera, size = view(mesh, 32), (32, 32)
    points = camera.project_homogeneous(mesh.vertices)
    fast, _ = timed(lambda: rasterize(mesh, camera), 5)
    slow, _ = timed(lambda: reference.forward(points, mesh.faces, *size, 1, 0.0, 1e-3, False), 1)
    print(f"brute force, cow 32²: {slow:.0f} ms, {slow / fast:.0f} × slower")


def report_memory(mesh: Mesh) -> None:
    """Print how much one silhouette raises the peak memory of the process."""
    silhouette(ico_sphere(1), 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    silhouette(mesh, 1024)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"silhouette armadillo 1024², forward + backward: {(after - before) / 1024:.0f} MiB of additional peak memory"
    )


if __name__ == "__main__":
    main()
