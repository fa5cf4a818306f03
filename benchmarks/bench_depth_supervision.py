"""Measure what depth supervision does to `fit_volume` and `fit_nerf`, on ten generated scenes with known depth.

    python benchmarks/bench_depth_supervision.py --weights 0 0.02

Depth is exact at the centers of the pixels, or noisy: 1 % normal noise, and every tenth value off by up to half of it.
Printed for each weight of the depth loss: the PSNR of the test views, with one ray per pixel and with nine (images are
antialiased, a field with sharp silhouettes is not), the mean opacity where they are empty ("dust"), and the mean
relative error of the median depth where they are fully covered.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from timing import machine

from unrender import (
    Camera,
    FitNerf,
    FitVolume,
    Mesh,
    Scene,
    demo_object,
    fit_nerf,
    fit_volume,
    ico_sphere,
    join_meshes,
    load_scene,
    measure_depth,
    psnr,
    render_depth,
    render_mesh,
    save_image,
    subdivide,
    torus,
)
from unrender.data.frames import Frame
from unrender.data.save_transforms import save_transforms
from unrender.fields.trainable import TrainableField
from unrender.geometry.shapes import cube
from unrender.io.depth import DepthFile
from unrender.render.mesh import downsample

SIZE, NUM_TEST = 64, 4
SCALE = 1e-3
"""World units per unit of the depth images: millimeters."""


class Shape(NamedTuple):
    """What stands in a scene, and where its cameras are."""

    mesh: Callable[[], Mesh]
    num_train: int = 20
    distance: float = 3.2
    fov_degrees: float = 40.0
    is_opaque: bool = False
    """Whether images have no alpha: then the background is white, without depth."""


class Row(NamedTuple):
    """What one training reached."""

    psnr: float
    fine_psnr: float
    dust: float
    depth: float


def painted(mesh: Mesh, frequency: float = 5.0) -> Mesh:
    """Color the vertices of a mesh in smooth stripes."""
    phase = mesh.vertices * frequency + torch.tensor([0.0, 2.0, 4.0])
    return mesh.replace(vertex_colors=0.5 + 0.4 * torch.sin(phase + phase.roll(1, -1)))


def placed(mesh: Mesh, scale: Sequence[float], offset: Sequence[float]) -> Mesh:
    """Scale and move a mesh."""
    return mesh.replace(vertices=mesh.vertices * torch.tensor(scale) + torch.tensor(offset))


def fine_cube(level: int = 3) -> Mesh:
    """Return a cube of half extent 1, in small faces."""
    mesh = cube()
    mesh = mesh.replace(vertices=mesh.vertices / mesh.vertices.abs().max())
    for _ in range(level):
        mesh = subdivide(mesh)
    return mesh


def bars() -> Mesh:
    """Return two layers of thin bars, one seen through the other."""
    offsets = [-0.6, -0.2, 0.2, 0.6]
    upright = [placed(fine_cube(2), (0.05, 0.7, 0.05), (x, 0, 0.3)) for x in offsets]
    across = [placed(fine_cube(2), (0.7, 0.05, 0.05), (0, y, -0.3)) for y in offsets]
    return painted(join_meshes(upright + across))


def balls() -> Mesh:
    """Return spheres of several sizes, many behind others."""
    draw = np.random.default_rng(0)
    return painted(
        join_meshes(
            [
                placed(ico_sphere(2), (r,) * 3, draw.uniform(-0.6, 0.6, 3).tolist())
                for r in draw.uniform(0.08, 0.3, 20)
            ]
        )
    )


def linked() -> Mesh:
    """Return two linked rings."""
    ring = placed(torus(1.0, 0.25), (0.5, 0.5, 0.5), (-0.25, 0, 0))
    other = ring.replace(vertices=ring.vertices[:, [0, 2, 1]] * torch.tensor([-1.0, 1, 1]))
    return painted(join_meshes([ring, other]))


def table() -> Mesh:
    """Return objects on a slab."""
    slab = placed(fine_cube(4), (0.9, 0.05, 0.9), (0, -0.4, 0))
    ball, box = (
        placed(ico_sphere(3), (0.3,) * 3, (-0.3, -0.05, 0)),
        placed(fine_cube(), (0.2,) * 3, (0.4, -0.15, 0.2)),
    )
    return painted(join_meshes([slab, ball, box]))


def room() -> Mesh:
    """Return a room around the cameras, with a ball and a box in it."""
    walls = placed(fine_cube(5), (3.0, 2.0, 3.0), (0, 0, 0))
    ball, box = (
        placed(ico_sphere(3), (0.5,) * 3, (0, 0, 0)),
        placed(fine_cube(), (0.3,) * 3, (0.8, -0.3, 0.4)),
    )
    return painted(join_meshes([walls, ball, box]), 2.0)


SHAPES = {
    "elephant": Shape(demo_object),
    "elephant, 8 views": Shape(demo_object, num_train=8),
    "torus": Shape(lambda: painted(torus(0.7, 0.28))),
    "torus of one color": Shape(lambda: torus(0.7, 0.28)),
    "linked rings": Shape(linked),
    "cube": Shape(lambda: painted(placed(fine_cube(), (0.55,) * 3, (0, 0, 0)))),
    "bars": Shape(bars),
    "balls": Shape(balls),
    "table, no alpha": Shape(table, is_opaque=True),
    "room": Shape(room, num_train=30, distance=1.9, fov_degrees=60.0, is_opaque=True),
}
"""The scenes, by name."""


def save_scene(shape: Shape, folder: Path) -> Scene:
    """Render a scene and write it."""
    (folder / "images").mkdir(parents=True)
    mesh, frames = shape.mesh(), []
    for split, count in (("train", shape.num_train), ("test", NUM_TEST)):
        for index in range(count):
            camera, name = _camera(shape, index, count, split == "test"), f"{split}_{index:02d}"
            image = render_mesh(
                mesh, camera, background=(1.0, 1.0, 1.0) if shape.is_opaque else None, supersampling=4
            )
            if not shape.is_opaque:
                alpha = image[..., 3:]
                image = torch.cat([image[..., :3] / alpha.clamp(min=1e-6), alpha], -1)
            path, depth = folder / "images" / f"{name}.png", folder / f"{name}.npy"
            save_image(image.clamp(0, 1), path)
            np.save(depth, (render_depth(mesh, camera) / SCALE).numpy())
            frames.append(Frame(name, camera, path, split, depth_file=DepthFile(depth, SCALE)))
    save_transforms(frames, folder / "transforms.json")
    return load_scene(folder)


def _camera(shape: Shape, index: int, count: int, is_test: bool) -> Camera:
    """Return a camera of a golden spiral; test cameras are between those of training."""
    height = 0.8 - 1.1 * (index + 0.5) / count
    angle = (index + 0.5 * is_test) * math.pi * (3 - math.sqrt(5))
    radius = math.sqrt(1 - height * height)
    eye = [shape.distance * x for x in (radius * math.cos(angle), height, radius * math.sin(angle))]
    return Camera.look_at(eye, fov_degrees=shape.fov_degrees, height=SIZE, width=SIZE)


def add_noise(scene: Scene) -> None:
    """Disturb the depth images of a scene."""
    draw = np.random.default_rng(1)
    for frame in scene.frames:
        assert frame.depth_file is not None
        depth = np.load(frame.depth_file.path)
        factor = 1 + 0.01 * draw.standard_normal(depth.shape)
        wrong = draw.random(depth.shape) < 0.1
        factor = np.where(wrong, draw.uniform(0.5, 1.5, depth.shape), factor)
        np.save(frame.depth_file.path, (depth * factor).astype(np.float32))


def trained(task: str, scene: Scene, weight: float | None) -> Row:
    """Train and measure."""
    if task == "fit_volume":
        config = FitVolume(resolution=64, steps=300, rays=4096, degree=1, depth_loss_weight=weight)
        *_, last = fit_volume(scene, config)
    else:
        *_, last = fit_nerf(scene, FitNerf(steps=200, samples=16384, table_log2=14, depth_loss_weight=weight))
    with torch.no_grad():
        found = [_measured(last.result, frame) for frame in scene.split("test")]
    return Row(*(statistics.fmean(values) for values in zip(*found, strict=True)))


def _measured(field: TrainableField, frame: Frame) -> Row:
    view, white = frame.load(), torch.ones(3)
    assert view.depth is not None
    alpha = torch.ones_like(view.depth) if view.alpha is None else view.alpha
    target = torch.lerp(white.expand_as(view.image), view.image, alpha[..., None])
    rendered = field.render(frame.camera, white)
    fine = field.render(frame.camera.resize(3 * SIZE, 3 * SIZE), white).color
    depth, covered = measure_depth(field, frame.camera).median_z, (alpha == 1) & (view.depth > 0)
    dust = rendered.opacity[view.depth + alpha == 0]
    return Row(
        psnr(rendered.color, target),
        psnr(downsample(fine, 3), target),
        float(dust.mean()) if len(dust) else 0.0,
        float(((depth - view.depth).abs() / view.depth)[covered].mean()),
    )


def rows(
    names: Sequence[str], task: str, weights: Sequence[float], is_noisy: bool
) -> Iterator[tuple[str, list[Row]]]:
    """Yield the measurements of each scene, one for each weight."""
    for name in names:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            scene = save_scene(SHAPES[name], Path(folder) / "scene")
            truth = scene.split("test")
            exact = [np.load(frame.depth_file.path) for frame in truth]
            if is_noisy:
                add_noise(scene)
            for frame, depth in zip(truth, exact, strict=True):
                np.save(frame.depth_file.path, depth)
            yield name, [trained(task, scene, weight) for weight in weights]


def main() -> None:
    """Print a table for each task and kind of depth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.02])
    parser.add_argument(
        "--tasks", nargs="+", choices=["fit_volume", "fit_nerf"], default=["fit_volume", "fit_nerf"]
    )
    parser.add_argument("--depth", nargs="+", choices=["exact", "noisy"], default=["exact", "noisy"])
    parser.add_argument("--scenes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    options = parser.parse_args()
    print(machine())
    for task in options.tasks:
        for kind in options.depth:
            print(
                f"{task}, {kind} depth, weights {options.weights}: PSNR, with 9 rays, dust %, depth error %"
            )
            changes = []
            for name, found in rows(options.scenes, task, options.weights, kind == "noisy"):
                changes.append([(r.psnr - found[0].psnr, r.fine_psnr - found[0].fine_psnr) for r in found])
                cells = [
                    f"{r.psnr:5.2f} {r.fine_psnr:5.2f} {100 * r.dust:5.2f} {100 * r.depth:5.2f}"
                    for r in found
                ]
                print(f"{name:20s} | {' | '.join(cells)}", flush=True)
            for index, rays in enumerate(("1 ray", "9 rays")):
                columns = zip(*[[each[index] for each in row] for row in changes], strict=True)
                cells = [f"{min(c):+.2f} … {max(c):+.2f}, mean {statistics.fmean(c):+.2f}" for c in columns]
                print(f"{'change, ' + rays:20s} | {' | '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
