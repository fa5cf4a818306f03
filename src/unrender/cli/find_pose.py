"""unrender find-pose: the pose of an object in a photo or a point cloud."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import tyro

from unrender.cli.arguments import Device, File, Folder
from unrender.cli.confine import confinable
from unrender.data.photos import Photo, load_photo
from unrender.devices import resolve_device
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.geometry.world_origin import choose_origin, to_local
from unrender.io import load_mesh, load_textured_mesh, save_mesh
from unrender.io.clouds import CLOUD_KINDS, load_cloud_and_columns
from unrender.io.files import MissingFileError
from unrender.io.images import IMAGE_SUFFIXES
from unrender.io.poses import load_pose
from unrender.render.texture import Texture
from unrender.reports import pose_report
from unrender.reports.html import Section
from unrender.reports.pose_report import CONVENTION
from unrender.reports.reproduce import Name, call, command_line, construct, python_code, reproduce
from unrender.runs.batch import ERROR, file_beside, input_files, print_batch, refuse_workers, run_batch
from unrender.runs.folder import METRICS, start_run, write_curves, write_json
from unrender.runs.options import changed_options
from unrender.runs.progress import run_inner_steps, run_steps
from unrender.tasks.pose.find_pose import FindPose, FindPoseStep, PoseEstimate, find_pose
from unrender.workers import current_workers

TASK = "find-pose"


@dataclasses.dataclass(frozen=True)
class PhotoFile:
    """Photo: intrinsics, mask and depth."""

    intrinsics: tuple[float, float, float, float] | None = None
    """Focal lengths and principal point of the upright photo in pixels: fx fy cx cy; the first pixel is at (0.5, 0.5).
    Default: from --fov-degrees or EXIF."""
    fov_degrees: float | None = None
    """Vertical field of view in degrees."""
    mask: Path | None = None
    """Mask image, bright on the object. Default: the alpha channel, or segmentation against a plain background.
    Of a folder of photos: also a folder of masks with the same names."""
    mask_id: int | None = None
    """Value of the object in a mask with one value per object: gray value, palette index, or red + 256 green + 65536
    blue."""
    ignore: Path | None = None
    """Mask image, bright where it is unknown what the object covers, such as at an object in front of it."""
    box: tuple[float, float, float, float] | None = None
    """Instead of --mask: box around the visible part of the object in pixels, such as that of a detector."""
    depth: Path | None = None
    """Depth image of the same aspect ratio (png, tif, npy).
    Of a folder of photos: also a folder of depth images with the same names."""
    depth_scale: float | None = None
    """Mesh units per unit of the depth image. Default: integers are millimeters, converted to meters."""


@confinable
def command(
    mesh: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MESH")],
    observation: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO|CLOUD")],
    /,
    search: FindPose = FindPose(),
    photo: PhotoFile = PhotoFile(),
    guess: File = None,
    output: Folder = None,
    device: Device = "auto",
) -> int:
    """Estimate the pose of an object in a photo, or in a point cloud of a part of it; no initial guess is needed.

    Of a folder, each photo or point cloud has its own results, and summary.csv has a row for each.

    Example: unrender find-pose cup.obj photo.jpg --mask mask.png --fov-degrees 45

    Args:
        mesh: Mesh of the object (obj with texture, ply, glb, stl, off).
        observation: Photo (png, jpg, tif, webp, bmp, heic) or point cloud (ply, pcd, xyz, npy, npz), or a folder of
            either.
        search: How the pose is searched for.
        photo: For a photo as input: intrinsics, mask and depth.
        guess: pose.json of a previous run, or a 4 x 4 matrix (txt, npy): refine this pose instead of searching.
        output: Output folder. Default: runs/find-pose/NAME-TIME.
        device: Device: cpu, cuda or cuda:N. auto: the first NVIDIA GPU if NVIDIA Warp is installed, else cpu.
    """
    target = resolve_device(device)
    shape, texture = _load_mesh(mesh, search.use_color)
    initial = None if guess is None else load_pose(guess)
    estimation = _Estimation(mesh, shape, texture, search, photo, guess, initial, target)
    if observation.is_dir():
        return _estimate_all(estimation, observation, output)
    refuse_workers(observation, current_workers())
    start = time.perf_counter()
    observed, columns = _load_observation(observation, photo)
    searching = estimation.search(observed)
    settings = estimation.settings(observation) | {"columns": columns}
    folder = start_run(TASK, observation.stem, output, settings)
    steps = [step.to("cpu") for step in run_steps(searching, _describe)]
    seconds = time.perf_counter() - start
    estimation.write(steps, observation, observed, folder, seconds)
    estimate = steps[-1].result
    if columns:
        print(f"columns: {columns}")
    _print_summary(estimate, seconds, folder)
    return 1 if estimate.status == "failed" else 0


def _estimate_all(estimation: "_Estimation", observations: Path, output: Path | None) -> int:
    """Estimate a pose in each photo of a folder; in each point cloud if it has no photos. Return the exit status."""
    files = input_files(observations, IMAGE_SUFFIXES, *CLOUD_KINDS)
    if not files:
        raise InputError(f"{observations}: no photos ({', '.join(IMAGE_SUFFIXES)}) and no point clouds")
    workers = current_workers()
    folder = start_run(TASK, observations.resolve().name, output, estimation.settings(observations), workers)
    results = run_batch(estimation, files, folder, workers)
    if not workers.is_first:
        return 0
    failures = ("failed", ERROR)
    print_batch(results, files, failures, folder)
    return 1 if any(result.status in failures for result in results) else 0


@dataclasses.dataclass(frozen=True)
class _Estimation:
    """The object to find, and how: a task for any number of observations."""

    mesh: Path
    shape: Mesh
    texture: Texture | None
    config: FindPose
    photo: PhotoFile
    guess: Path | None
    initial: torch.Tensor | None
    """The pose that `guess` holds."""
    device: torch.device
    name: ClassVar[str] = TASK
    columns: ClassVar[tuple[str, ...]] = (
        "status",
        "agreement",
        "num_candidates",
        "rotation_std_degrees",
        "translation_std",
    )

    def settings(self, observation: Path) -> dict[str, Any]:
        """Return the settings of a run, for its config.json."""
        photo = self.photo if observation.is_dir() else self._photo_of(observation)
        settings = {"mesh": self.mesh, "observation": observation, "config": self.config, "photo": photo}
        return settings | {"guess": self.guess, "device": str(self.device)}

    def _photo_of(self, observation: Path) -> PhotoFile:
        """Return the intrinsics of a photo with its own mask and depth, where those are in folders."""
        mask, depth = file_beside(self.photo.mask, observation), file_beside(self.photo.depth, observation)
        return dataclasses.replace(self.photo, mask=mask, depth=depth)

    def run(self, observation: Path, folder: Path) -> None:
        """Estimate the pose in an observation, and write the results to a folder."""
        start = time.perf_counter()
        observed, _ = _load_observation(observation, self._photo_of(observation))
        steps = [step.to("cpu") for step in run_inner_steps(self.search(observed))]
        self.write(steps, observation, observed, folder, time.perf_counter() - start)

    def search(self, observed: Photo | PointCloud) -> Iterator[FindPoseStep]:
        """Search for the pose."""
        return find_pose(
            self.shape.to(self.device),
            observed.to(self.device),
            self.config,
            texture=None if self.texture is None else self.texture.to(self.device),
            guess=None if self.initial is None else self.initial.to(self.device),
        )

    def write(
        self,
        steps: Sequence[FindPoseStep],
        observation: Path,
        observed: Photo | PointCloud,
        folder: Path,
        seconds: float,
    ) -> None:
        """Write the results of a search."""
        estimate = steps[-1].result
        write_json(folder / "pose.json", _pose(estimate, observed, seconds))
        metrics = _metrics(estimate, steps, seconds)
        write_json(folder / METRICS, metrics)
        write_curves(folder, pose_report.series(steps))
        results = _save_results(self.shape, self.texture, observed, steps, folder)
        title = f"Pose of {self.mesh.name} in {observation.name}"
        how = _reproduce(self.mesh, observation, self.config, self._photo_of(observation), self.guess)
        pose_report.write_pose_report(folder / "report.html", title, steps, metrics, [*results, how])


def _save_results(
    shape: Mesh,
    texture: Texture | None,
    observed: Photo | PointCloud,
    steps: Sequence[FindPoseStep],
    folder: Path,
) -> list[Section]:
    """Save what shows the pose beside the observation, and return its sections of the report."""
    if isinstance(observed, Photo):
        local, steps = _relative_to_origin(shape, steps)
        return pose_report.photo_results(local, texture, observed, steps, folder)
    save_mesh(
        pose_report.transformed(shape, steps[-1].result.camera_from_object), folder / "mesh_in_cloud.ply"
    )
    return pose_report.cloud_results(shape, observed, steps)


def _relative_to_origin(shape: Mesh, steps: Sequence[FindPoseStep]) -> tuple[Mesh, list[FindPoseStep]]:
    """Return a mesh in float32, moved to the origin if its coordinates are large, and the steps with poses of it."""
    origin = choose_origin(shape.vertices)
    local = shape.to(torch.float32).replace(vertices=to_local(shape.vertices, origin))
    centers = [step.placement.center - step.placement.center.new_tensor(origin) for step in steps]
    return local, [
        dataclasses.replace(step, placement=step.placement._replace(center=center))
        for step, center in zip(steps, centers, strict=True)
    ]


def _load_mesh(path: Path, use_color: bool) -> tuple[Mesh, Texture | None]:
    if not use_color:
        return load_mesh(path), None
    try:
        return load_textured_mesh(path)
    except MissingFileError as error:
        if not path.is_file():
            raise
        raise MissingFileError(f"{error}; or compare shapes without color: --no-use-color") from error


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _load_observation(path: Path, photo: PhotoFile) -> tuple[Photo | PointCloud, str]:
    """Load a photo or points; the second result says which columns of a table were used for what."""
    given = changed_options(photo)
    if _is_photo(path):
        return load_photo(path, **given), ""
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InputError(
            f"{path}: {options} does not apply to a point cloud; photos are {', '.join(IMAGE_SUFFIXES)}"
        )
    return load_cloud_and_columns(path)


def _describe(step: FindPoseStep) -> str:
    return f"{step.stage:10s} step {step.index:3d}  cost {step.cost:.3g}"


def _pose(estimate: PoseEstimate, observed: Photo | PointCloud, seconds: float) -> dict[str, Any]:
    name = "iou" if isinstance(observed, Photo) else "inlier_fraction"
    candidates = zip(estimate.candidates, estimate.scores.tolist(), estimate.agreements.tolist(), strict=True)
    return {
        "camera_from_object": estimate.camera_from_object.tolist(),
        "convention": CONVENTION,
        "status": estimate.status,
        "verdict": estimate.status,  # its name in earlier versions
        "message": estimate.message,
        name: estimate.agreement,
        "candidates": [
            {"camera_from_object": pose.tolist(), "score": score, name: agreement}
            for pose, score, agreement in candidates
        ],
        "rotation_std_degrees": estimate.rotation_std_degrees,
        "translation_std": estimate.translation_std,
        "seconds": seconds,
    }


def _metrics(estimate: PoseEstimate, steps: Sequence[FindPoseStep], seconds: float) -> dict[str, Any]:
    return {
        "status": estimate.status,
        "agreement": estimate.agreement,
        "cost": steps[-1].cost,
        "num_candidates": len(estimate.candidates),
        "rotation_std_degrees": estimate.rotation_std_degrees,
        "translation_std": estimate.translation_std,
        "steps": steps[-1].index,
        "seconds": seconds,
    }


def _reproduce(
    mesh: Path, observation: Path, config: FindPose, photo: PhotoFile, guess: Path | None
) -> Section:
    options = changed_options(config, photo) | {"guess": guess}
    load = "unrender.load_photo" if _is_photo(observation) else "unrender.load_cloud"
    read_mesh = call("unrender.load_textured_mesh", mesh)
    if not config.use_color:
        read_mesh = Name(f"{call('unrender.load_mesh', mesh)}, None")
    keywords: dict[str, Any] = {"texture": Name("texture")}
    if guess is not None:
        keywords["guess"] = load_pose(guess)
    inputs = [Name("mesh"), Name("observation"), Name("config")]
    code = python_code(
        f"mesh, texture = {read_mesh}",
        f"observation = {call(load, observation, keywords=changed_options(photo))}",
        f"config = {construct(config)}",
        f"for step in {call('unrender.find_pose', *inputs, keywords=keywords)}:",
        "    print(step.stage, step.cost)",
        "print(step.result.status, step.result.camera_from_object)",
    )
    return reproduce(command_line("find-pose", [mesh, observation], options), code)


def _print_summary(estimate: PoseEstimate, seconds: float, folder: Path) -> None:
    print(pose_report.summary(estimate))
    print("camera_from_object:")
    for row in estimate.camera_from_object.tolist():
        print("  " + "".join(f"{x:14.6g}" for x in row))
    print(f"{seconds:.1f} seconds")
    print(folder / "pose.json")
    print(folder / "report.html")
