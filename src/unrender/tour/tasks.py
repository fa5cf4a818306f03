"""The tasks of the tour: commands on generated input, and the errors of their results."""

import contextlib
import io
import json
import math
import shlex
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrender.data.frames import evenly_spaced
from unrender.data.photos import load_photo
from unrender.geometry.camera import Camera
from unrender.geometry.rotations import rotation_angle
from unrender.io import load_cloud, load_mesh
from unrender.runs.options import as_arguments, changed_options
from unrender.runs.saved_run import load_run
from unrender.tasks.mesh.measure_mesh import measure_mesh
from unrender.tour import images, text
from unrender.tour.generate import FOV_DEGREES, ONE_SIDE, PHOTO, SCAN, SCENE, TRUTH, TourInput
from unrender.tour.report import Command, Comparison, Curve, TaskResult, Turntable

FIELD = Path("radiance-field")
MAX_DEPTH_ERROR = 0.02
"""Relative depth error of the brightest color."""


def _run(tour: TourInput, name: str, *arguments: str | Path) -> Command:
    """Run a command of the command line without output; paths are relative to the folder of the tour."""
    start = time.perf_counter()
    if tour.device != "auto":
        arguments = (*arguments, "--device", tour.device)
    line = [str(tour.folder / word) if isinstance(word, Path) else word for word in arguments]
    with contextlib.redirect_stdout(io.StringIO()):
        tour.run_command(name, line)
    return Command(shlex.join(["unrender", name, *map(str, arguments)]), time.perf_counter() - start)


def _cameras(tour: TourInput) -> list[Camera]:
    """Return the turntable of the object."""
    return images.cameras_around(tour.truth, *tour.sizes.turntable)


def _video_options(tour: TourInput) -> tuple[str, ...]:
    num_frames, size = tour.sizes.video
    return "--path", "orbit", "--views", str(num_frames), "--size", str(size)


def mesh_from_scan(tour: TourInput) -> TaskResult:
    """Fit a mesh to a noisy scan."""
    folder = tour.folder
    command = _run(tour, "fit-mesh", SCAN, "--reference", TRUTH, "--output", Path("mesh"))
    metrics = _metrics(folder / "mesh")
    steps, squared = _curve(folder / "mesh", "chamfer (squared diagonals)")
    distances = [100 * math.sqrt(value) for value in squared]
    return TaskResult(
        text.mesh(),
        input=f"a scan of {tour.sizes.points:,} points with noise of {_percent(tour.sizes.noise)} of the size",
        outcome=f"{_percent(_mean_distance(metrics, tour))} of the size from the true surface",
        figures=_mesh_figures(tour),
        curve=Curve("distance between points and mesh", "% of the size", steps, distances, logarithmic=True),
        metrics=[
            *_mesh_metrics("mesh", metrics, tour),
            ("watertight", "yes" if metrics["watertight"] else "no"),
            ("genus (ground truth: 1)", str(metrics["genus"])),
            ("faces", f"{metrics['num_faces']:,}"),
        ],
        commands=[command],
        folders=["mesh"],
    )


def _mesh_figures(tour: TourInput) -> list[Comparison | Turntable]:
    scan, mesh = load_cloud(tour.folder / SCAN), load_mesh(tour.folder / "mesh/mesh.ply")
    cameras, plain = _cameras(tour), images.without_color(mesh)
    truth = ("ground truth", images.without_color(tour.truth))
    return [
        images.compared_shapes("scan and mesh", ("scan", scan), ("mesh", plain), cameras),
        images.compared_shapes("ground truth and mesh", truth, ("mesh", plain), cameras),
        images.turntable("mesh, turntable", plain, cameras),
    ]


def pose_from_image(tour: TourInput) -> TaskResult:
    """Estimate the pose of the object in a photo, and in a scan of one side."""
    folder, names = tour.folder, ("pose-in-photo", "pose-in-scan")
    fov = ("--fov-degrees", f"{FOV_DEGREES:g}")
    search = as_arguments(changed_options(tour.sizes.pose))
    commands = [
        _run(tour, "find-pose", TRUTH, PHOTO, *fov, *search, "--output", Path(names[0])),
        _run(tour, "find-pose", TRUTH, ONE_SIDE, *search, "--output", Path(names[1])),
    ]
    poses = [_json(folder / name / "pose.json") for name in names]
    found = [torch.tensor(pose["camera_from_object"], dtype=torch.float64) for pose in poses]
    errors = [_pose_error(pose, tour) for pose in found]
    mesh, scan = tour.truth.to(torch.float32), load_cloud(folder / ONE_SIDE)
    photo = load_photo(folder / PHOTO, fov_degrees=FOV_DEGREES).to(torch.float32)
    title = "cost of the best pose in the photo; it rises with the image resolution"
    return TaskResult(
        text.pose(FOV_DEGREES, tour.sizes.pose),
        input="a mesh and one photo of it; then a scan of one side instead of the photo",
        outcome=f"rotation error {errors[0][0]:.2f}° in the photo, {errors[1][0]:.2f}° in the scan",
        figures=[
            images.pose_in_photo(mesh, photo, found[0]),
            images.contours(mesh, photo, found[0]),
            images.pose_in_scan(mesh, scan, found[1], _cameras(tour)),
        ],
        curve=Curve(title, "", *_curve(folder / names[0], "cost of the best pose"), logarithmic=True),
        metrics=[
            metric
            for source, (degrees, shift), pose in zip(("photo", "scan"), errors, poses, strict=True)
            for metric in (
                (f"{source}: rotation error", f"{degrees:.2f}°"),
                (f"{source}: translation error, relative to the camera distance", _percent(shift)),
                (f"{source}: status", str(pose["status"])),
            )
        ],
        commands=commands,
        folders=names,
    )


def _pose_error(pose: Tensor, tour: TourInput) -> tuple[float, float]:
    """Return the rotation error in degrees, and that of the object's center relative to its distance."""
    truth = tour.camera.camera_from_world.double()
    low, high = tour.truth.vertices.double().aminmax(dim=0)
    center = torch.cat([(low + high) / 2, torch.ones(1, dtype=torch.float64)])
    angle = rotation_angle(pose[:3, :3].contiguous(), truth[:3, :3].contiguous())
    expected = (truth @ center)[:3]
    return math.degrees(float(angle)), float(((pose @ center)[:3] - expected).norm() / expected.norm())


def volume_from_images(tour: TourInput) -> TaskResult:
    """Fit a voxel volume to images and render a turntable."""
    folder, options = tour.folder, as_arguments(changed_options(tour.sizes.volume))
    commands = [
        _run(tour, "fit-volume", SCENE, *options, "--no-video", "--output", Path("volume")),
        _run(tour, "render", Path("volume"), *_video_options(tour), "--output", Path("volume-views")),
    ]
    metrics = _metrics(folder / "volume")
    training = evenly_spaced(tour.scene.split("train"), tour.sizes.video[0])
    size = f"{tour.sizes.pixels} × {tour.sizes.pixels}"
    return TaskResult(
        text.volume(tour.sizes.volume),
        input=f"{tour.sizes.num_train} images of {size} pixels with known cameras",
        outcome=f"PSNR {metrics['psnr']:.1f} dB on test views",
        figures=[
            images.training_images(training),
            *_test_views(tour, folder / "volume" / "test-views", 1),
            images.video("volume, turntable", _views(folder / "volume-views")),
        ],
        curve=_psnr_curve(folder / "volume"),
        metrics=[
            *_image_metrics(metrics, tour),
            ("voxels", f"{metrics['num_voxels']:,}"),
            ("training time", f"{metrics['seconds']:.0f} s"),
        ],
        commands=commands,
        folders=["volume", "volume-views"],
    )


def field_from_images(tour: TourInput) -> TaskResult:
    """Train a radiance field on images, render a turntable and evaluate it."""
    folder, options = tour.folder, as_arguments(changed_options(tour.sizes.nerf))
    brief = ("--no-video", "--views", "1")  # evaluated below
    commands = [
        _run(tour, "fit-nerf", SCENE, *options, *brief, "--output", FIELD),
        _run(tour, "render", FIELD, *_video_options(tour), "--output", Path("new-views")),
        _run(tour, "eval", FIELD, "--output", Path("evaluation")),
    ]
    training, metrics = _metrics(folder / FIELD), _metrics(folder / "evaluation")
    return TaskResult(
        text.field(tour.sizes.nerf),
        input="the same images",
        outcome=f"PSNR {metrics['psnr']:.1f} dB on test views",
        figures=[
            *_test_views(tour, folder / "evaluation" / "views", 2),
            images.video("radiance field, turntable", _views(folder / "new-views")),
        ],
        curve=_psnr_curve(folder / FIELD),
        metrics=[
            *_image_metrics(metrics, tour),
            ("parameters", f"{training['num_parameters']:,}"),
            ("training time", f"{training['seconds']:.0f} s"),
        ],
        commands=commands,
        folders=[str(FIELD), "new-views", "evaluation"],
    )


def shape_from_depth(tour: TourInput) -> TaskResult:
    """Measure depth in the radiance field and extract a point cloud and meshes."""
    folder, sizes = tour.folder, tour.sizes
    views = ("--views", str(sizes.depth_views), "--size", str(sizes.depth_pixels))
    spacing, voxel = (("--spacing", f"{sizes.spacing:g}"), ("--voxel-size", f"{sizes.voxel_size:g}"))
    commands = [
        _run(tour, "depth", FIELD, "--path", "train", *views, "--output", Path("depth")),
        _run(tour, "export", Path("depth"), *spacing, "--output", Path("points")),
        _run(tour, "export", Path("depth"), "--to", "mesh", *voxel, "--output", Path("fused")),
        _run(tour, "fit-mesh", Path("points/points.ply"), "--reference", TRUTH, "--output", Path("fitted")),
    ]
    depth, fitted = _metrics(folder / "evaluation"), _metrics(folder / "fitted")
    points, mesh = load_cloud(folder / "points/points.ply"), load_mesh(folder / "fused/mesh.ply")
    fused = measure_mesh(mesh, points.points, reference=tour.truth)
    median = depth["depth/median/abs_rel"]
    return TaskResult(
        text.depth(FIELD, sizes.spacing, sizes.voxel_size),
        input="the radiance field, trained on colors only",
        outcome=f"depth error {_percent(median)}; fused mesh {_percent(_mean_distance(fused, tour))} of the size off",
        figures=_depth_figures(tour),
        curve=None,
        metrics=[
            ("abs-rel error of the median depth", _percent(median)),
            ("abs-rel error of the first-surface depth", _percent(depth["depth/first_surface/abs_rel"])),
            ("abs-rel error of the expected depth", _percent(depth["depth/expected/abs_rel"])),
            ("true surface with valid depth", _percent(depth["depth/median/valid_fraction"])),
            ("multi-view consistent points", f"{len(points.points):,}"),
            *_mesh_metrics("fused mesh", fused, tour),
            *_mesh_metrics("fitted mesh", fitted, tour),
        ],
        commands=commands,
        folders=["depth", "points", "fused", "fitted"],
    )


TASKS = (mesh_from_scan, pose_from_image, volume_from_images, field_from_images, shape_from_depth)


def _depth_figures(tour: TourInput) -> list[Comparison | Turntable]:
    folder, cameras = tour.folder, _cameras(tour)
    field = load_run(folder / FIELD).field
    points, fused = load_cloud(folder / "points/points.ply"), load_mesh(folder / "fused/mesh.ply")
    truth = ("ground truth", images.without_color(tour.truth))
    meshes = {"fused": fused, "fitted": load_mesh(folder / "fitted/mesh.ply")}
    return [
        *images.compared_depth(field, tour.scene.split("test")[0], MAX_DEPTH_ERROR),
        images.turntable("multi-view consistent points", points, cameras),
        images.color_turntable("mesh fused from depth maps, vertex colors", fused, cameras),
        *[
            images.compared_shapes(
                f"ground truth and {name} mesh", truth, (name, images.without_color(mesh)), cameras
            )
            for name, mesh in meshes.items()
        ],
    ]


def _test_views(tour: TourInput, rendered: Path, count: int) -> list[Comparison]:
    frames = evenly_spaced(tour.scene.split("test"), count)
    return [images.compared_photo(frame, rendered / f"{Path(frame.name).stem}.png") for frame in frames]


def _views(folder: Path) -> list[Path]:
    return sorted(folder.glob("view_*.png"))


def _mean_distance(metrics: dict[str, Any], tour: TourInput) -> float:
    """Return the mean distance of a mesh to the ground truth, relative to the size of the object."""
    return float(metrics["mesh_to_reference_mean"]) / tour.diagonal


def _mesh_metrics(name: str, metrics: dict[str, Any], tour: TourInput) -> list[tuple[str, str]]:
    reverse = float(metrics["reference_to_mesh_mean"]) / tour.diagonal
    return [
        (f"mean distance, {name} to true surface", _percent(_mean_distance(metrics, tour))),
        (f"mean distance, true surface to {name}", _percent(reverse)),
    ]


def _image_metrics(metrics: dict[str, Any], tour: TourInput) -> list[tuple[str, str]]:
    return [
        (f"PSNR of {tour.sizes.num_test} test views", f"{metrics['psnr']:.2f} dB"),
        ("SSIM", f"{metrics['ssim']:.3f}"),
    ]


def _psnr_curve(folder: Path) -> Curve:
    steps, errors = _curve(folder, "training MSE")
    return Curve("training PSNR", "dB", steps, [-10 * math.log10(error) for error in errors])


def _curve(folder: Path, name: str) -> tuple[list[float], list[float]]:
    curve = _json(folder / "curves.json")[name]
    return curve["step"], curve["value"]


def _metrics(folder: Path) -> dict[str, Any]:
    return _json(folder / "metrics.json")


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g} %" if fraction < 0.1 else f"{100 * fraction:.1f} %"
