"""unrender demo: every job on generated data, and one report."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from unrender.cli import main
from unrender.cli.doctor import processor
from unrender.data.demo_scene import save_demo_scene
from unrender.data.photos import Photo, load_photo
from unrender.geometry.camera import Camera, transform
from unrender.geometry.demo_object import demo_object
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.sample import sample_points_from_mesh
from unrender.io import save_cloud, save_image, save_mesh
from unrender.render.lights import AmbientLight, DirectionalLight
from unrender.render.mesh import render_mesh
from unrender.runs.folder import open_run_folder
from unrender.tasks.depth.measure_depth import measure_depth
from unrender.tasks.mesh.fit_mesh import FitMesh, fit_mesh
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.nerf.fit_nerf import fit_nerf
from unrender.tasks.pose.find_pose import FindPose, find_pose
from unrender.tasks.volume.fit_volume import FitVolume, fit_volume
from unrender.tour import images as draw
from unrender.tour import jobs as tour_jobs
from unrender.tour.jobs import FOV_DEGREES, ONE_SIDE, PHOTO, SCAN, SCENE, TRUTH, Sizes, Stage
from unrender.tour.report import Job, Tour, write_tour

JOBS = (
    tour_jobs.mesh_from_scan,
    tour_jobs.pose_from_picture,
    tour_jobs.volume_from_photos,
    tour_jobs.field_from_photos,
    tour_jobs.shape_from_depth,
)
SIZES = Sizes()
log = logging.getLogger("unrender")


def command(output: Path | None = None) -> None:
    """Do all five jobs on a generated object, whose truth is known, and write one report: about three minutes.

    A scan becomes a mesh; a photo tells where its camera stood; photos become a volume, and a radiance field; its depth
    becomes points and a mesh.

    Args:
        output: Folder for the results. By default runs/demo/TIME.
    """
    begin = time.perf_counter()
    folder = open_run_folder("demo", "tour", output)
    print(f"The tour: five jobs on a generated object. Results go to {folder}", flush=True)
    with _quietly():
        with _told("getting ready; the first time on a machine, kernels are compiled"):
            _get_ready()
        with _told("scanning and photographing the object"):
            stage = _set_stage(folder, SIZES)
        photo = draw.photo(load_photo(folder / PHOTO, fov_degrees=FOV_DEGREES))
        machine = f"{torch.get_num_threads()} threads of {processor()}"
        jobs, report = [], folder / "report.html"
        for job in JOBS:  # the report has all that is done, should a later job fail
            jobs.append(_do(job, stage))
            write_tour(Tour(jobs, photo, time.perf_counter() - begin, machine), report)
    print(f"done in {time.perf_counter() - begin:.0f} s; open the report in a browser:")
    print(report)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    print(what, end=" … ", flush=True)
    begin = time.perf_counter()
    yield
    print(f"{time.perf_counter() - begin:.0f} s", flush=True)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Let what is used say what is wrong, and nothing else."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _do(work: Callable[[Stage], Job], stage: Stage) -> Job:
    """Do a job and say in a line what came out, rather than all that its commands say."""
    job = work(stage)
    title = job.words.title.replace("→", "to")  # not every terminal has arrows
    print(f"{title} … {job.seconds:.0f} s: {job.outcome}", flush=True)
    return job


def _set_stage(folder: Path, sizes: Sizes) -> Stage:
    """Write the object, a scan, a photo, a scan of one side, and photos from all around."""
    truth = demo_object()
    scan = _scan(truth, sizes)
    height, width = sizes.photo_height, sizes.photo_height * 4 // 3
    eye, target = [-1.9, 1.4, 2.6], [0.1, 0.0, 0.2]
    camera = Camera.look_at(eye, target, fov_degrees=FOV_DEGREES, height=height, width=width)
    save_mesh(truth, folder / TRUTH)
    save_cloud(scan, folder / SCAN)
    save_cloud(PointCloud(_seen(scan, camera)), folder / ONE_SIDE)
    save_image(_photograph(truth.to(torch.float32), camera), folder / PHOTO)
    scene = save_demo_scene(
        folder / SCENE, size=sizes.pixels, num_train=sizes.num_train, num_test=sizes.num_test
    )
    return Stage(folder, sizes, truth, camera, scene, main.run_command)


def _scan(mesh: Mesh, sizes: Sizes) -> PointCloud:
    generator = torch.Generator().manual_seed(0)
    samples = sample_points_from_mesh(mesh, sizes.points, generator=generator)
    diagonal = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    noise = torch.randn(samples.points.shape, generator=generator) * sizes.noise * diagonal
    return PointCloud(samples.points + noise.to(samples.points.dtype))


def _photograph(mesh: Mesh, camera: Camera) -> Tensor:
    """Show the object in the sun, with nothing around it."""
    sun = (AmbientLight(0.3), DirectionalLight(torch.tensor([-0.6, 0.6, 0.5]), 0.7))
    photo = render_mesh(mesh, camera, lights=sun, background=None, supersampling=2)
    color = photo[..., :3] / photo[..., 3:].clamp(min=1e-3)
    return torch.cat([color, photo[..., 3:]], -1).clamp(0, 1)


def _seen(scan: PointCloud, camera: Camera) -> Tensor:
    """Keep the half of the points that is nearer to the camera, in its frame."""
    points = transform(camera.camera_from_world, scan.points.to(torch.float32))
    return points[points[:, 2] < points[:, 2].median()]


def _get_ready() -> None:
    """Do all jobs once on next to nothing, so that no kernel is compiled in the time that a job is given."""
    truth = demo_object(48)
    scan = _scan(truth, Sizes(points=500))
    camera = Camera.look_at([0.0, 1.0, 3.0], fov_degrees=FOV_DEGREES, height=48, width=48)
    photo = _photograph(truth, camera)
    seen = Photo(photo[..., :3], photo[..., 3], camera.replace(camera_from_world=torch.eye(4)))
    search = FindPose(num_views=20, num_starts=2, resolution=32)
    list(fit_mesh(scan, FitMesh(steps=2)))
    list(find_pose(truth, seen, search))
    list(find_pose(truth, PointCloud(_seen(scan, camera)), search))
    with tempfile.TemporaryDirectory(prefix="unrender-") as folder:
        scene = save_demo_scene(folder, size=24, num_train=4, num_test=1)
        *_, voxels = fit_volume(scene, FitVolume(resolution=16, steps=6, rays=256))
        *_, field = fit_nerf(scene, FitNerf(steps=2, samples=1024, table_log2=10))
        for learned in (voxels.result, field.result):
            measure_depth(learned, scene.frames[0].camera)
            learned.render(scene.frames[0].camera)
