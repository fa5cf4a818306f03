"""unrender track-pose: the poses of known objects in the frames of a video."""

import dataclasses
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from unrender.cli.arguments import Flag, Folder
from unrender.cli.confine import confinable
from unrender.data.object_masks import load_object_mask
from unrender.data.photos import focal_and_center
from unrender.errors import FileFormatError, InputError
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.io import load_mesh, load_textured_mesh
from unrender.io.depth import read_depth
from unrender.io.files import MissingFileError, reading
from unrender.io.frame_sequences import SequenceFrame, count_frames, read_frames
from unrender.io.images import resample_nearest
from unrender.io.poses import load_pose
from unrender.io.trajectories import PoseRecord, write_bop_csv, write_pose_lines, write_tum_trajectory
from unrender.io.video import save_video
from unrender.reports import track_report
from unrender.reports.reproduce import Name, call, command_line, construct, python_code, reproduce
from unrender.runs.folder import start_run, write_curves, write_json
from unrender.runs.options import changed_options
from unrender.runs.progress import run_steps
from unrender.tasks.pose.track_pose import PoseTracker, TrackedObject, TrackPose, TrackPoseStep

DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".exr", ".pfm")
MAX_RATE = 240.0
DEFAULTS = TrackPose()
log = logging.getLogger("unrender")


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """Video: intrinsics and depth."""

    intrinsics: tuple[float, float, float, float] | None = None
    """Focal lengths and principal point of the upright frames in pixels: fx fy cx cy; the first pixel is at (0.5, 0.5).
    """
    fov_degrees: float | None = None
    """Instead of --intrinsics: vertical field of view in degrees."""
    frames_per_second: float = 30.0
    """Frame rate of a folder of images."""
    depth: Path | None = None
    """Folder of depth images (png, tif, npy, exr, pfm), one for each frame, in the order of their names."""
    depth_scale: float | None = None
    """Mesh units per unit of the depth images. Default: integers are millimeters, converted to meters."""


@dataclasses.dataclass(frozen=True)
class FirstFrame:
    """The object in the first frame: --guess, --mask or both."""

    guess: Path | None = None
    """Approximate pose in the first frame: pose.json of find-pose, or a 4 x 4 matrix (txt, npy)."""
    mask: Path | None = None
    """Mask image of the object in the first frame: find-pose estimates the initial pose, near --guess if given."""
    other_meshes: tuple[Path, ...] = ()
    """Meshes of further objects to track in the same video."""
    other_guesses: tuple[Path, ...] = ()
    """Approximate poses of the further objects in the first frame, in the same order."""


@confinable
def command(
    mesh: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MESH")],
    video: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO|FOLDER")],
    /,
    tracking: TrackPose = DEFAULTS,
    first: FirstFrame = FirstFrame(),
    source: VideoFile = VideoFile(),
    tum: Flag = False,
    overlay: Flag = True,
    output: Folder = None,
) -> int:
    """Track the pose of a known object through a video or a folder of images, optionally with depth.

    Example: unrender track-pose cup.obj video.mp4 --guess pose.json --fov-degrees 45

    Args:
        mesh: Mesh of the object (obj with texture, ply, glb, stl, off).
        video: Video (mp4, mov, m4v, avi, mkv, webm) or folder of images.
        tracking: How the object is tracked.
        first: Where the object is in the first frame.
        source: Intrinsics and depth of the video.
        tum: Write the trajectory of the camera relative to the object in the format of TUM.
        overlay: Write a video with the contour of the object.
        output: Output folder. Default: runs/track-pose/NAME-TIME.
    """
    opening = next(frames := _read(video, source))
    camera = _camera(video, opening, source)
    objects, depths = _objects(mesh, first, camera, tracking), _depth_files(source.depth, video)
    tracker = PoseTracker(objects, camera, tracking)
    start, seen = time.perf_counter(), list[SequenceFrame]()
    frames = itertools.chain([opening], frames)
    tracked = _track(tracker, frames, depths, source, seen, count_frames(video) - 1)
    initial = next(tracked)  # raises if there is no initial pose: before there is a folder
    folder = start_run("track-pose", video.stem, output, _settings(mesh, video, tracking, first, source))
    steps = run_steps(itertools.chain([initial], tracked), _describe)
    metrics = _metrics(steps, time.perf_counter() - start)
    _save(folder, steps, seen, metrics, tum=tum)
    if overlay:
        again = _read(video, source, quiet=True)
        drawn = track_report.overlays(again, steps, _meshes(objects), camera)
        save_video(drawn, folder / "overlay.mp4", frames_per_second=_rate(seen))
    shown = _shown(_read(video, source, quiet=True), steps, objects, camera)
    how, title = _reproduce(mesh, video, tracking, first, source), f"{mesh.name} in {video.name}"
    track_report.write_track_report(folder / "report.html", title, steps, shown, metrics, how)
    _print_summary(objects, steps, folder)
    return 1 if metrics["tracked"] == 0 else 0


def _settings(
    mesh: Path, video: Path, tracking: TrackPose, first: FirstFrame, source: VideoFile
) -> dict[str, Any]:
    return {"mesh": mesh, "video": video, "config": tracking, "first": first, "source": source}


def _print_summary(objects: Sequence[TrackedObject], steps: Sequence[TrackPoseStep], folder: Path) -> None:
    for k, item in enumerate(objects):
        print(f"{item.name}: {track_report.summary(steps, k)}")
    print(folder / "poses.jsonl")
    print(folder / "report.html")


def _save(
    folder: Path,
    steps: Sequence[TrackPoseStep],
    seen: Sequence[SequenceFrame],
    metrics: dict[str, Any],
    *,
    tum: bool,
) -> None:
    """Save poses, metrics and curves."""
    records = _records(steps, seen)
    write_json(folder / "metrics.json", metrics)
    write_curves(folder, track_report.series(steps))
    write_pose_lines(folder / "poses.jsonl", records)
    write_bop_csv(folder / "poses_bop.csv", records, metrics["seconds"] / len(steps))
    if tum:
        write_tum_trajectory(folder / "trajectory.txt", records)


def _track(
    tracker: PoseTracker,
    frames: Iterator[SequenceFrame],
    depths: Sequence[Path] | None,
    source: VideoFile,
    seen: list[SequenceFrame],
    last: int,
) -> Iterator[TrackPoseStep]:
    """Track frame by frame, and keep what identifies each frame."""
    for number, frame in enumerate(frames):
        depth = None
        if depths is not None and frame.number < len(depths):
            depth = _read_depth(depths[frame.number], source, tracker.camera, is_first=number == 0)
        seen.append(frame._replace(image=torch.empty(0)))
        yield TrackPoseStep(number, max(last, number), tracker.step(frame.image, depth))


def _read_depth(path: Path, source: VideoFile, camera: Camera, *, is_first: bool) -> torch.Tensor | None:
    """Read a depth image in the size of the frames; None, with a warning, if it cannot be used, except in the first."""
    try:
        depth = read_depth(path, source.depth_scale)
        with reading(path):
            shape = (camera.height, camera.width)
            return torch.from_numpy(resample_nearest(depth, shape, "the depth image", "the frame"))
    except FileFormatError as error:
        if is_first:
            raise
        log.warning("depth ignored: %s", error)
        return None


def _read(video: Path, source: VideoFile, *, quiet: bool = False) -> Iterator[SequenceFrame]:
    if not 0 < source.frames_per_second <= MAX_RATE:
        raise InputError(
            f"--frames-per-second {source.frames_per_second}: must lie between 0 and {MAX_RATE:g}"
        )
    return read_frames(video, source.frames_per_second, quiet=quiet)


def _camera(video: Path, frame: SequenceFrame, source: VideoFile) -> Camera:
    height, width = frame.image.shape[:2]
    focal, center = focal_and_center(str(video), (height, width), source.intrinsics, source.fov_degrees, None)
    return Camera(torch.tensor(focal), torch.tensor(center), torch.eye(4), height, width)


def _objects(mesh: Path, first: FirstFrame, camera: Camera, tracking: TrackPose) -> list[TrackedObject]:
    if first.guess is None and first.mask is None:
        raise InputError(
            "the pose in the first frame is unknown; give --guess (for example pose.json of "
            "`unrender find-pose` for the first frame), or --mask, the object in the first frame"
        )
    if len(first.other_meshes) != len(first.other_guesses):
        raise InputError(
            f"{len(first.other_meshes)} --other-meshes but {len(first.other_guesses)} --other-guesses; "
            "give one guess for each mesh"
        )
    shape = (camera.height, camera.width)
    mask = None if first.mask is None else torch.from_numpy(load_object_mask(first.mask, shape))
    guess = None if first.guess is None else load_pose(first.guess)
    objects = [TrackedObject(*_load(mesh, tracking), guess, mask, mesh.stem)]
    for path, pose in zip(first.other_meshes, first.other_guesses, strict=True):
        objects.append(TrackedObject(*_load(path, tracking), load_pose(pose), None, path.stem))
    return objects


def _load(path: Path, tracking: TrackPose) -> tuple[Mesh, Any]:
    return load_textured_mesh(path) if tracking.use_texture else (load_mesh(path), None)


def _depth_files(folder: Path | None, video: Path) -> list[Path] | None:
    if folder is None:
        return None
    if not folder.is_dir():
        raise MissingFileError(f"--depth {folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in DEPTH_SUFFIXES)
    count = count_frames(video)
    if not files or (count > 0 and len(files) != count):
        raise InputError(
            f"--depth {folder}: {len(files)} depth images for {count} frames; give one for each frame, as "
            f"{', '.join(DEPTH_SUFFIXES)}"
        )
    return files


def _records(steps: Sequence[TrackPoseStep], seen: Sequence[SequenceFrame]) -> list[PoseRecord]:
    return [
        PoseRecord(
            frame.number,
            frame.seconds,
            frame.name,
            k + 1,
            pose.camera_from_object,
            pose.status,
            pose.confidence,
        )
        for step, frame in zip(steps, seen, strict=False)
        for k, pose in enumerate(step.poses)
    ]


def _metrics(steps: Sequence[TrackPoseStep], seconds: float) -> dict[str, Any]:
    statuses = [step.poses[0].status for step in steps]
    return {
        "frames": len(steps),
        "tracked": statuses.count("tracked"),
        "uncertain": statuses.count("uncertain"),
        "lost": statuses.count("lost"),
        "mean_confidence": sum(step.poses[0].confidence for step in steps) / len(steps),
        "frames_per_second": len(steps) / seconds,
        "seconds": seconds,
    }


def _rate(seen: Sequence[SequenceFrame]) -> float:
    """Return the mean frame rate."""
    duration = seen[-1].seconds - seen[0].seconds
    return min(max((len(seen) - 1) / duration, 1.0), MAX_RATE) if duration > 0 else 30.0


def _meshes(objects: Sequence[TrackedObject]) -> list[Mesh]:
    return [item.mesh.to(torch.float32) for item in objects]


def _shown(
    frames: Iterator[SequenceFrame],
    steps: Sequence[TrackPoseStep],
    objects: Sequence[TrackedObject],
    camera: Camera,
) -> list[torch.Tensor]:
    """Draw some frames for the report."""
    period = 1 + len(steps) // track_report.MAX_FIGURES
    return [
        track_report.draw_poses(frame.image, _meshes(objects), camera, step.poses)
        for frame, step in itertools.islice(zip(frames, steps, strict=False), 0, None, period)
    ]


def _describe(step: TrackPoseStep) -> str:
    pose = step.poses[0]
    return f"frame {step.index:5d}  {pose.status:9s} confidence {pose.confidence:.2f}"


def _reproduce(mesh: Path, video: Path, config: TrackPose, first: FirstFrame, source: VideoFile) -> Any:
    code = python_code(
        f"mesh, texture = {call('unrender.load_textured_mesh', mesh)}",
        f"tracked = {call('unrender.TrackedObject', Name('mesh'), Name('texture'), keywords={'guess': Name('pose')})}",
        f"config = {construct(config)}",
        "for step in unrender.track_pose([tracked], frames, camera, config):",
        "    print(step.index, step.poses[0].status, step.poses[0].camera_from_object)",
    )
    return reproduce(command_line("track-pose", [mesh, video], changed_options(config, first, source)), code)
