"""unrender demo: all tasks on generated data, and one report."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from unrender.cli import main
from unrender.cli.arguments import Device, Folder
from unrender.cli.doctor import processor
from unrender.data.demo_scene import save_demo_scene
from unrender.data.photos import Photo, load_photo
from unrender.devices import resolve_device
from unrender.geometry.camera import Camera
from unrender.geometry.demo_object import demo_object
from unrender.geometry.points import PointCloud
from unrender.io.confinement import confinable_writes
from unrender.runs.folder import start_run
from unrender.runs.interruption import handled_signals
from unrender.tasks.depth.measure_depth import measure_depth
from unrender.tasks.mesh.fit_mesh import FitMesh, fit_mesh
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.nerf.fit_nerf import fit_nerf
from unrender.tasks.pose.find_pose import FindPose, find_pose
from unrender.tasks.volume.config import FitVolume
from unrender.tasks.volume.fit_volume import fit_volume
from unrender.tour import generate, images
from unrender.tour.generate import FOV_DEGREES, PHOTO, TourInput, TourSizes
from unrender.tour.report import TaskResult, Tour, write_tour
from unrender.tour.tasks import TASKS

SIZES = TourSizes()
log = logging.getLogger("unrender")


def command(output: Folder = None, device: Device = "auto") -> None:
    """Run all five tasks on a generated object with known ground truth and write one report; takes about 3 minutes.

    The tasks: fit a mesh to a scan, estimate the pose of an object in a photo and in a scan, fit a volume to images,
    train a radiance field on images, and extract depth, a point cloud and meshes from the field.

    Args:
        output: Output folder. Default: runs/demo/TIME.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    target = resolve_device(device)
    start = time.perf_counter()
    folder = start_run("demo", "tour", output, {})
    print(f"Running five tasks on a generated object; results: {folder}", flush=True)
    with _warnings_only():
        with _timed("compiling kernels (first run only)"):
            _compile_kernels(target)
        with _timed("generating scans and photos"):
            generated = generate.generate_input(folder, SIZES, _run_command, device)
        photo = images.photo(load_photo(folder / PHOTO, fov_degrees=FOV_DEGREES))
        machine = f"{torch.get_num_threads()} threads of {processor()}"
        if target.type == "cuda":
            machine = f"{torch.cuda.get_device_name(target)}, {machine}"
        results, report = [], folder / "report.html"
        for task in TASKS:  # the report lists all finished tasks, even if a later one fails
            results.append(_run(task, generated))
            write_tour(Tour(results, photo, time.perf_counter() - start, machine), report)
    print(f"finished in {time.perf_counter() - start:.0f} s; open the report in a browser:")
    print(report)


def _run_command(name: str, arguments: Sequence[str]) -> int | None:
    """Run a command of the demo; if it is stopped, the demo stops too."""
    status = main.run_command(name, arguments)
    with handled_signals() as interruption:
        if interruption.is_incomplete:
            raise KeyboardInterrupt
    return status


@contextlib.contextmanager
def _timed(activity: str) -> Iterator[None]:
    """Print an activity and how long it took."""
    print(activity, end=" … ", flush=True)
    start = time.perf_counter()
    yield
    print(f"{time.perf_counter() - start:.0f} s", flush=True)


@contextlib.contextmanager
def _warnings_only() -> Iterator[None]:
    """Silence log messages below warnings."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _run(task: Callable[[TourInput], TaskResult], generated: TourInput) -> TaskResult:
    """Run a task and print its main result in one line."""
    result = task(generated)
    title = result.description.title.replace("→", "to")  # some terminals have no arrows
    print(f"{title} … {result.seconds:.0f} s: {result.outcome}", flush=True)
    return result


def _compile_kernels(device: torch.device) -> None:
    """Run all tasks once on tiny inputs, so that compilation does not count towards their times."""
    name = str(device)
    truth = demo_object(48)
    scan = generate.scan_mesh(truth, 500, SIZES.noise)
    camera = Camera.look_at([0.0, 1.0, 3.0], fov_degrees=FOV_DEGREES, height=48, width=48)
    rgba = generate.photograph(truth, camera)
    photo = Photo(rgba[..., :3], rgba[..., 3], camera.replace(camera_from_world=torch.eye(4)))
    search = FindPose(num_views=20, num_starts=2, resolution=32)
    half = PointCloud(generate.front_half(scan, camera))
    list(fit_mesh(scan.to(device), FitMesh(steps=2)))
    for observed in (photo, half):
        list(find_pose(truth.to(device), observed.to(device), search))
    with tempfile.TemporaryDirectory(prefix="unrender-") as folder, confinable_writes():
        scene = save_demo_scene(folder, size=24, num_train=4, num_test=1)
        *_, voxels = fit_volume(scene, FitVolume(resolution=16, steps=6, rays=256, device=name))
        *_, field = fit_nerf(scene, FitNerf(steps=2, samples=1024, table_log2=10, device=name))
        for trained in (voxels.result, field.result):
            measure_depth(trained, scene.frames[0].camera.to(device))
            trained.render(scene.frames[0].camera)
