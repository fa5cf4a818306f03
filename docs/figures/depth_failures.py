"""Compute the tables and images of "Where depth from a radiance field fails" in docs/depth.md.

python docs/figures/depth_failures.py

Fits small volumes to generated scenes with known depth. Prints the tables, and writes the images next to this file.
"""

import dataclasses
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import unrender
from unrender.io.depth import MILLIMETERS, DepthFile
from unrender.io.depth_preview import colorize_depth

HERE = Path(__file__).parent
SETTINGS = unrender.FitVolume(resolution=64, steps=250, rays=4096, degree=1, depth_loss_weight=0.0)
HEIGHT, WIDTH, NUM_TRAIN = 72, 96, 20
WALL = (1.0, 0.7)
"""Half extents; the wall lies at z = 0 and is viewed from z < 0."""
SHEET_Z, SHEET, SHEET_ALPHA = -0.6, (0.6, 0.45), 0.5
WRONG = 0.05
"""Relative error above which a depth counts as wrong."""


def main() -> None:
    """Compute all."""
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        few_views(Path(folder) / "object")
        plain_wall(Path(folder) / "wall")
        glass(Path(folder) / "glass")
    print(f"{time.process_time() - begin:.0f} s of CPU time")


def fit(scene: unrender.Scene) -> unrender.SparseVoxels:
    """Fit a volume to the training images."""
    *_, last = unrender.fit_volume(scene, SETTINGS)
    return last.result


def few_views(folder: Path) -> None:
    """Fit an object to 3, 5, 10 and 20 images, and count floaters in front of it."""
    whole = unrender.save_demo_scene(folder, size=WIDTH, num_train=NUM_TRAIN, num_test=6)
    tests, shown = whole.split("test"), []
    print(
        "views | mean relative error of the median | off by more than 5 % | confidence above 0.9, of these wrong"
    )
    for count in (3, 5, 10, 20):
        train = whole.split("train")
        chosen = tuple(train[i * len(train) // count] for i in range(count))
        field = fit(dataclasses.replace(whole, frames=chosen + tests))
        errors, confident, floaters = [], [], []
        for frame in tests:
            found, truth = unrender.measure_depth(field, frame.camera), frame.load()
            valid = (truth.depth > 0) & (truth.alpha == 1) & found.valid
            error = (found.median_z / truth.depth - 1)[valid]
            errors.append(error)
            confident.append(found.confidence[valid] > 0.9)
            floaters.append((found.first_surface_z / truth.depth - 1)[valid] < -WRONG)
        error, sharp, near = torch.cat(errors), torch.cat(confident), torch.cat(floaters)
        wrong = error.abs() > WRONG
        print(
            f"{count} | {percent(error.abs().mean())} | {percent(wrong.float().mean())} | "
            f"{percent(sharp.float().mean())}, {percent(wrong[sharp].float().mean())} | first surface more than "
            f"5 % too near: {percent(near.float().mean())}"
        )
        frame = tests[1]
        shown.append((frame, unrender.measure_depth(field, frame.camera)))
    truth = shown[0][0].load().depth
    images = [depth_colors(truth, truth)] + [depth_colors(d.median_z * d.valid, truth) for _, d in shown]
    save(images, "few_views")


def plain_wall(folder: Path) -> None:
    """Fit a wall, half of which has no texture."""
    scene = save_scene(folder, lambda rays: shade(rays, plain=True, sheet=False))
    field, left, right, confidence = fit(scene), [], [], []
    for frame in scene.split("test"):
        found, truth = unrender.measure_depth(field, frame.camera), frame.load().depth
        x = wall_points(frame.camera, truth)[..., 0]
        inner = found.valid & (truth > 0) & (x.abs() > 0.15) & (x.abs() < 0.85)
        error = (found.median_z / truth - 1).abs()
        left.append(error[inner & (x < 0)])
        right.append(error[inner & (x > 0)])
        confidence.append(found.confidence[inner & (x > 0)])
    for name, errors in (("textured", torch.cat(left)), ("plain", torch.cat(right))):
        print(
            f"{name}: mean relative error {percent(errors.mean())}, {percent((errors > WRONG).float().mean())} wrong"
        )
    sharp = torch.cat(confidence) > 0.9
    wrong = (torch.cat(right) > WRONG)[sharp].float().mean() if bool(sharp.any()) else torch.tensor(math.nan)
    print(f"plain, confidence above 0.9: {percent(sharp.float().mean())}, of these wrong {percent(wrong)}")
    frame = scene.split("test")[0]
    found, view = unrender.measure_depth(field, frame.camera), frame.load()
    wrong = ((found.median_z / view.depth - 1).abs() / WRONG).nan_to_num(0, 0, 0).clamp(0, 1)
    shown = [
        on_white(view.image, view.alpha),
        depth_colors(found.median_z * found.valid, view.depth),
        colorize_depth(wrong, view.depth > 0, 0.0, 1.0, "magma"),
    ]
    save(shown, "plain_wall")


def glass(folder: Path) -> None:
    """Fit a wall behind a sheet that absorbs half of the light."""
    scene = save_scene(folder, lambda rays: shade(rays, plain=False, sheet=True))
    field = fit(scene)
    errors: dict[str, list[Tensor]] = {name: [] for name in ("expected", "median", "first surface", "layers")}
    both = []
    for frame in scene.split("test"):
        camera = frame.camera
        found, layers = unrender.measure_depth(field, camera), unrender.depth_layers(field, camera)
        wall, front = frame.load().depth, sheet_depth(camera)
        through = (front > 0) & (wall > 0) & inner_sheet(camera)
        cosines = unrender.rays_of(camera).directions @ camera.camera_from_world[2, :3]
        z = torch.where(layers.valid, layers.distance * cosines, torch.inf)
        nearest_wall = ((z / wall - 1).abs()).amin(0)
        nearest_sheet = ((z / front - 1).abs()).amin(0)
        both.append(((nearest_wall < WRONG) & (nearest_sheet < WRONG))[through])
        for name, depth in (
            ("expected", found.expected_z),
            ("median", found.median_z),
            ("first surface", found.first_surface_z),
        ):
            errors[name].append(
                torch.stack([(depth / front - 1).abs(), (depth / wall - 1).abs()])[:, through] < WRONG
            )
    for name in ("expected", "median", "first surface"):
        on_sheet, on_wall = torch.cat(errors[name], 1).float().mean(1)
        print(f"{name}: on the sheet {percent(on_sheet)}, on the wall {percent(on_wall)}")
    print(f"layers: both found {percent(torch.cat(both).float().mean())}")
    frame = scene.split("test")[0]
    found, layers = unrender.measure_depth(field, frame.camera), unrender.depth_layers(field, frame.camera)
    truth, view = frame.load().depth, frame.load()
    cosines = unrender.rays_of(frame.camera).directions @ frame.camera.camera_from_world[2, :3]
    last = (layers.distance * cosines).amax(0)
    kinds = [found.expected_z, found.median_z, found.first_surface_z, last]
    bounds = torch.stack(
        [torch.where(truth > 0, truth, truth[truth > 0].max()), sheet_or(truth, frame.camera)]
    )
    colors = [depth_colors(z * (found.opacity > 0.5), bounds) for z in kinds]
    save([on_white(view.image, view.alpha), *colors], "glass")


def save_scene(folder: Path, shade) -> unrender.Scene:
    """Render a wall from cameras on an arc in front of it."""
    folder.mkdir()
    frames = []
    for i in range(NUM_TRAIN + 4):
        split = "test" if i % 6 == 3 else "train"
        angle, height = 1.1 * (i / (NUM_TRAIN + 3) - 0.5), 0.7 * math.sin(2.4 * i)
        eye = [3 * math.sin(angle), height, -3 * math.cos(angle)]
        camera = unrender.Camera.look_at(eye, fov_degrees=36.0, height=HEIGHT, width=WIDTH)
        colors, depth = supersampled(camera, shade)
        image, depth_path = folder / f"{i:02d}.png", folder / f"{i:02d}.npy"
        unrender.save_image(colors.clamp(0, 1), image)
        np.save(depth_path, (depth / MILLIMETERS).numpy())
        frames.append(
            unrender.Frame(f"{i:02d}", camera, image, split, depth_file=DepthFile(depth_path, MILLIMETERS))
        )
    unrender.save_transforms(frames, folder / "transforms.json")
    return unrender.load_scene(folder)


def supersampled(camera: unrender.Camera, shade) -> tuple[Tensor, Tensor]:
    """Return the mean color of 9 samples per pixel, with alpha, and the depth of the wall at the pixel center."""
    fine = unrender.rays_of(camera.resize(3 * camera.height, 3 * camera.width))
    rgba = shade(fine).movedim(-1, 0)
    mean = torch.nn.functional.avg_pool2d(rgba, 3).movedim(0, -1)
    colors = torch.cat([mean[..., :3] / mean[..., 3:].clamp(min=1e-6), mean[..., 3:]], -1)
    points, t = intersect(unrender.rays_of(camera), 0.0)
    cosines = unrender.rays_of(camera).directions @ camera.camera_from_world[2, :3]
    return colors, torch.where(within(points, WALL), t * cosines, 0)


def shade(rays: unrender.Rays, *, plain: bool, sheet: bool) -> Tensor:
    """Return premultiplied color and alpha of what rays hit: a wall, optionally behind a sheet."""
    points, _ = intersect(rays, 0.0)
    x, y = points[..., 0], points[..., 1]
    pattern = torch.stack([waves(x, y, k) for k in range(3)], -1)
    if plain:
        pattern = torch.where((x > 0)[..., None], torch.tensor([0.75, 0.7, 0.6]), pattern)
    alpha = within(points, WALL).float()[..., None]
    color = pattern * alpha
    if not sheet:
        return torch.cat([color, alpha], -1)
    front, _ = intersect(rays, SHEET_Z)
    u, v = front[..., 0], front[..., 1]
    tint = torch.stack([0.3 + 0 * u, 0.5 + 0.3 * (9 * u).sin() * (11 * v).cos(), 0.9 + 0 * u], -1)
    sheet_alpha = SHEET_ALPHA * within(front, SHEET).float()[..., None]
    return torch.cat(
        [tint * sheet_alpha + color * (1 - sheet_alpha), sheet_alpha + alpha * (1 - sheet_alpha)], -1
    )


def waves(x: Tensor, y: Tensor, k: int) -> Tensor:
    """Return an irregular pattern in [0, 1]."""
    return (
        0.5 + 0.25 * (13 * x + (5 + k) * y.cos() * x).sin() + 0.25 * ((17 - k) * y + 6 * (3 * x).sin()).sin()
    )


def intersect(rays: unrender.Rays, z: float) -> tuple[Tensor, Tensor]:
    """Return the intersections of rays with a plane, and their distances."""
    t = (z - rays.origins[..., 2]) / rays.directions[..., 2]
    return rays.origins + t[..., None] * rays.directions, t


def within(points: Tensor, half: tuple[float, float]) -> Tensor:
    """Return which points lie in a centered rectangle."""
    return (points[..., 0].abs() < half[0]) & (points[..., 1].abs() < half[1])


def wall_points(camera: unrender.Camera, depth: Tensor) -> Tensor:
    """Return the points of the wall at all pixels, in the world."""
    points, _ = intersect(unrender.rays_of(camera), 0.0)
    return points


def sheet_depth(camera: unrender.Camera) -> Tensor:
    """Return z of the sheet, 0 outside of it."""
    rays = unrender.rays_of(camera)
    points, t = intersect(rays, SHEET_Z)
    return torch.where(within(points, SHEET), t * (rays.directions @ camera.camera_from_world[2, :3]), 0)


def inner_sheet(camera: unrender.Camera) -> Tensor:
    """Return which pixels show the sheet, but not its border."""
    points, _ = intersect(unrender.rays_of(camera), SHEET_Z)
    return within(points, (SHEET[0] - 0.1, SHEET[1] - 0.1))


def sheet_or(depth: Tensor, camera: unrender.Camera) -> Tensor:
    """Return z of the sheet, and of the wall elsewhere."""
    front = sheet_depth(camera)
    return torch.where(front > 0, front, depth)


def on_white(image: Tensor, alpha: Tensor | None) -> Tensor:
    """Composite an image on white."""
    return image if alpha is None else torch.lerp(torch.ones_like(image), image, alpha[..., None])


def depth_colors(depth: Tensor, truth: Tensor) -> Tensor:
    """Apply a colormap between the nearest and the farthest true depth."""
    some = truth[truth > 0]
    return colorize_depth(depth, depth > 0, 0.95 * float(some.min()), 1.05 * float(some.max()), "viridis")


def save(images: list[Tensor], name: str) -> None:
    """Save images side by side, enlarged by 2."""
    image = torch.cat([torch.nn.functional.pad(p, (0, 0, 0, 2), value=1.0) for p in images], 1)
    twice = image.repeat_interleave(2, 0).repeat_interleave(2, 1)
    unrender.save_image(twice.clamp(0, 1), HERE / f"depth_{name}.png")


def percent(fraction: Tensor) -> str:
    """Format a fraction."""
    return f"{100 * float(fraction):.1f} %"


if __name__ == "__main__":
    main()
