"""unrender find-pose: where an object stands in a photo or a cloud."""

import dataclasses
import json
import logging
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from unrender._version import __version__
from unrender.data.photos import Photo, load_photo
from unrender.errors import FileFormatError, InputError
from unrender.geometry.camera import Camera, transform
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io import load_cloud, load_mesh, load_textured_mesh, save_mesh
from unrender.io.files import MissingFileError, read_bytes, reading, write_whole
from unrender.io.images import IMAGE_SUFFIXES
from unrender.render.texture import Texture
from unrender.reports import figures
from unrender.reports import pose_images as pose_pictures
from unrender.reports.html import Picture, Section, write_report
from unrender.runs.folder import as_options, changes, open_run_folder, write_curves, write_json
from unrender.runs.progress import take_all
from unrender.tasks.pose.find_pose import FREE_TURN, FindPose, FindPoseStep, PoseEstimate, find_pose

log = logging.getLogger("unrender")
NUM_FRAMES = 24
"""Pictures of the way to the pose, at most."""
NUM_VIEWS = 8
"""Pictures once around, for clouds."""
PHOTO_SIZE = 720
CLOSE_UP_SIZE = 360
CONVENTION = "4 × 4, mesh units; camera frame +x right, +y down, +z forward; in clouds, the cloud's frame"


@dataclasses.dataclass(frozen=True)
class PhotoFile:
    """How to read the photo."""

    intrinsics: tuple[float, float, float, float] | None = None
    """Focal lengths and principal point in pixels of the upright photo: fx fy cx cy, the first pixel's centre being
    (0.5, 0.5). By default from --fov-degrees or EXIF."""
    fov_degrees: float | None = None
    """Field of view from top to bottom."""
    mask: Path | None = None
    """An image, bright where the object is. By default the photo's alpha, or what differs from a plain background."""
    depth: Path | None = None
    """A depth image of the same size (png, tif, npy)."""
    depth_scale: float | None = None
    """Units of the mesh per unit of the depth image. By default whole numbers are millimetres and become metres."""


def command(
    mesh: Annotated[Path, tyro.conf.Positional],
    seen: Annotated[Path, tyro.conf.Positional],
    /,
    config: FindPose = FindPose(),
    photo: PhotoFile = PhotoFile(),
    guess: Path | None = None,
    output: Path | None = None,
) -> int:
    """Find where an object stands in a photo, or in a point cloud that shows a part of it. No first guess is needed.

    Example: unrender find-pose cup.obj photo.jpg --mask mask.png --fov-degrees 45

    Args:
        mesh: The object (obj with its texture, ply, glb, stl, off).
        seen: The photo (png, jpg, tif, webp, bmp), or the cloud (ply, pcd, xyz, npy, npz).
        config: How to search.
        photo: How to read the photo.
        guess: A pose.json of an earlier run, or 4 x 4 numbers (txt, npy): poses near it are tried instead of all.
        output: Folder for the results. By default runs/find-pose/NAME-TIME.
    """
    shape, texture = _load_mesh(mesh, config.use_color)
    scene = load_photo(seen, **_read_options(photo)) if _is_photo(seen) else _load_cloud(seen, photo)
    start = None if guess is None else _load_guess(guess)
    begin = time.perf_counter()
    search = find_pose(shape, scene, config, texture=texture, guess=start)
    folder = open_run_folder("find-pose", seen.stem, output)
    inputs = {"mesh": mesh, "seen": seen, "config": config, "photo": photo, "guess": guess}
    write_json(folder / "config.json", {"unrender": __version__, "task": "find-pose"} | inputs)
    steps = take_all(search, _words)
    seconds = time.perf_counter() - begin
    estimate = steps[-1].result
    write_json(folder / "pose.json", _pose(estimate, scene, seconds))
    metrics = _metrics(estimate, steps, seconds)
    write_json(folder / "metrics.json", metrics)
    write_curves(folder, _series(steps))
    if isinstance(scene, Photo):
        shown = _photo_pictures(shape.to(torch.float32), texture, scene, steps, folder)
    else:
        save_mesh(_placed(shape, estimate.camera_from_object), folder / "mesh_in_cloud.ply")
        shown = _cloud_pictures(shape, scene, steps)
    how = _how(mesh, seen, config, photo, guess)
    _report(folder / "report.html", f"Pose of {mesh.name} in {seen.name}", steps, metrics, shown, how)
    _print_summary(estimate, seconds)
    print(folder / "pose.json")
    print(folder / "report.html")
    return 1 if estimate.verdict == "failed" else 0


def _load_mesh(path: Path, use_color: bool) -> tuple[Mesh, Texture | None]:
    if not use_color:
        return load_mesh(path), None
    try:
        return load_textured_mesh(path)
    except MissingFileError as error:
        if not path.is_file():
            raise
        raise MissingFileError(f"{error}; or compare shapes alone: --no-use-color") from error


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _read_options(photo: PhotoFile) -> dict[str, Any]:
    return {field.name: getattr(photo, field.name) for field in dataclasses.fields(photo)}


def _load_cloud(path: Path, photo: PhotoFile) -> PointCloud:
    given = changes(photo)
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InputError(
            f"{path}: a cloud, for which {options} mean nothing; photos are {', '.join(IMAGE_SUFFIXES)}"
        )
    return load_cloud(path)


def _load_guess(path: Path) -> Tensor:
    """Read a pose from json (`camera_from_object`, or 4 × 4 numbers), npy or text."""
    data = read_bytes(path)
    with reading(path):
        if path.suffix.lower() == ".npy":
            from unrender.io.arrays import array_from_npy

            values = array_from_npy(data)
        elif path.suffix.lower() == ".json":
            content = json.loads(data)
            rows = content.get("camera_from_object") if isinstance(content, dict) else content
            values = np.array(rows, object)
        else:
            values = np.array([line.split() for line in data.decode().splitlines() if line.strip()], object)
        if values.shape != (4, 4):
            raise FileFormatError("a guess is `camera_from_object`, 4 × 4 numbers; there are none here")
        return torch.from_numpy(values.astype(np.float64))


def _words(step: FindPoseStep) -> str:
    return f"{step.stage:10s} step {step.index:3d}  cost {step.cost:.3g}"


def _pose(estimate: PoseEstimate, scene: Photo | PointCloud, seconds: float) -> dict[str, Any]:
    name = "iou" if isinstance(scene, Photo) else "inlier_share"
    found = zip(estimate.candidates, estimate.scores.tolist(), estimate.agreements.tolist(), strict=True)
    return {
        "camera_from_object": estimate.camera_from_object.tolist(),
        "convention": CONVENTION,
        "verdict": estimate.verdict,
        name: estimate.agreement,
        "candidates": [
            {"camera_from_object": pose.tolist(), "score": score, name: agreement}
            for pose, score, agreement in found
        ],
        "rotation_std_degrees": estimate.rotation_std_degrees,
        "translation_std": estimate.translation_std,
        "seconds": seconds,
    }


def _metrics(estimate: PoseEstimate, steps: list[FindPoseStep], seconds: float) -> dict[str, Any]:
    return {
        "verdict": estimate.verdict,
        "agreement": estimate.agreement,
        "cost": steps[-1].cost,
        "num_candidates": len(estimate.candidates),
        "rotation_std_degrees": estimate.rotation_std_degrees,
        "translation_std": estimate.translation_std,
        "steps": steps[-1].index,
        "seconds": seconds,
    }


def _placed(mesh: Mesh, pose: Tensor) -> Mesh:
    return mesh.replace(vertices=transform(pose, mesh.vertices.double()))


def _photo_pictures(
    mesh: Mesh, texture: Texture | None, photo: Photo, steps: list[FindPoseStep], folder: Path
) -> list[Section]:
    estimate = steps[-1].result
    texture = None if texture is None else texture.to(torch.float32)
    photo = photo.to(torch.float32)
    view, near = pose_pictures.whole(photo, PHOTO_SIZE), pose_pictures.close_up(photo, CLOSE_UP_SIZE)
    best = figures.png(pose_pictures.overlay(view, mesh, texture, estimate.camera_from_object))
    with write_whole(folder / "overlay.png") as file:
        file.write(best)
    result = Section(
        "What came out",
        _verdict(estimate),
        [
            Picture("the photo", [figures.png(figures.to_bytes(view.image))]),
            Picture("the object where it was found", [best]),
            Picture(
                "the same, closer",
                [figures.png(pose_pictures.overlay(near, mesh, texture, estimate.camera_from_object))],
            ),
            Picture(
                "outlines: mask blue, object orange",
                [figures.png(pose_pictures.contours(near, mesh, estimate.camera_from_object))],
            ),
            Picture(
                "the way there: play it",
                [figures.png(pose_pictures.contours(near, mesh, pose)) for pose in _way(steps)],
                plays=True,
            ),
        ],
    )
    others = [
        Picture(
            f"score {score:.2f}, overlap {agreement:.3f}",
            [figures.png(pose_pictures.overlay(near, mesh, texture, pose))],
        )
        for pose, score, agreement in zip(
            estimate.candidates, estimate.scores.tolist(), estimate.agreements.tolist(), strict=True
        )
    ]
    text = "Poses that explain the photo about as well, the best first."
    return [result, *([Section("What else it could be", text, others)] if len(others) > 1 else [])]


def _cloud_pictures(mesh: Mesh, cloud: PointCloud, steps: list[FindPoseStep]) -> list[Section]:
    """Turn the mesh among the points; everything is moved to the middle of the mesh, where float32 is fine enough."""
    estimate = steps[-1].result
    found = _placed(mesh, estimate.camera_from_object)
    low, high = found.vertices.aminmax(dim=0)
    middle, size = (low + high) / 2, float((high - low).norm())

    def local(points: Tensor) -> Tensor:
        return ((points.double() - middle) / size).float()

    points = cloud.replace(
        points=local(cloud.points[cloud.points.isfinite().all(-1)]), colors=None, normals=None
    )
    found = found.replace(vertices=local(found.vertices))
    around = _from_the_seen_side(found.vertices, points.points)
    moves = [mesh.replace(vertices=local(_placed(mesh, pose).vertices)) for pose in _way(steps)]
    turntable = [figures.png(pose_pictures.mesh_in_cloud(found, points, camera)) for camera in around]
    film = [figures.png(pose_pictures.mesh_in_cloud(shape, points, around[0])) for shape in moves]
    return [
        Section(
            "What came out",
            _verdict(estimate),
            [
                Picture(
                    f"the cloud, {len(points.points):,} points",
                    [figures.png(figures.show(points, c)) for c in around],
                ),
                Picture("the mesh where it was found", turntable),
                Picture("the way there: play it", film, plays=True),
            ],
        )
    ]


def _way(steps: list[FindPoseStep]) -> list[Tensor]:
    """Choose poses on the way, and the last one."""
    return [step.result.camera_from_object for step in [*steps[:: 1 + len(steps) // NUM_FRAMES], steps[-1]]]


def _from_the_seen_side(vertices: Tensor, points: Tensor) -> list[Camera]:
    """Go once around the object, beginning where most points are in front of it."""
    around = [figures.view_from(30 + 360 * i / NUM_VIEWS, vertices) for i in range(NUM_VIEWS)]
    side = points.mean(0) - vertices.mean(0)
    first = max(range(NUM_VIEWS), key=lambda i: float(around[i].position @ side))
    return around[first:] + around[:first]


def _report(
    path: Path,
    title: str,
    steps: list[FindPoseStep],
    metrics: dict[str, Any],
    shown: list[Section],
    how: list[str],
) -> None:
    matrix = steps[-1].result.camera_from_object.tolist()
    pose = {f"row {i + 1}": "  ".join(f"{x:.6g}" for x in row) for i, row in enumerate(matrix)}
    marks = {step.stage: step.index + 1 for step in reversed(steps)}
    write_report(
        path,
        title,
        [
            *shown,
            Section("The pose, camera from object", CONVENTION + ".", figures=pose),
            Section("Figures", figures=metrics),
            Section(
                "How it went",
                "Costs are compared within a stage: finer pictures hold more to explain.",
                svg=figures.curves(_series(steps), marks),
            ),
            Section("Do it again", code=how),
        ],
    )


def _series(steps: list[FindPoseStep]) -> dict[str, list[float]]:
    return {"cost of the best pose": [step.cost for step in steps]}


def _verdict(estimate: PoseEstimate) -> str:
    spread = f"{estimate.rotation_std_degrees:.2g}° and {estimate.translation_std:.2g} units (one standard deviation)"
    if estimate.verdict == "failed":
        return (
            f"Failed: the best pose explains too little ({100 * estimate.agreement:.0f} % agreement). Check that the "
            "mesh is of this object, that the mask shows it alone, and the intrinsics."
        )
    if estimate.verdict == "ambiguous" and len(estimate.candidates) > 1:
        return (
            f"Ambiguous: {len(estimate.candidates)} poses explain this about as well as each other; the object may be "
            f"symmetric, or seen too poorly. The best is known to {spread}."
        )
    if estimate.verdict == "ambiguous" and estimate.rotation_std_degrees > FREE_TURN:
        return f"Ambiguous: the object can turn without looking different. The pose is known to {spread}."
    if estimate.verdict == "ambiguous":
        return (
            f"Ambiguous: the best pose explains the outline to {100 * estimate.agreement:.0f} % only; it may be "
            "another, or something is in front of the object, or the mesh differs from it."
        )
    agreement = f"{100 * estimate.agreement:.1f} % agreement"
    return f"Converged: {agreement}. If what was given is right, the pose is known to {spread}."


def _how(mesh: Path, seen: Path, config: FindPose, photo: PhotoFile, guess: Path | None) -> list[str]:
    """Write the command and the lines of Python that do the same once more."""
    line = ["unrender", "find-pose", str(mesh), str(seen), *as_options(changes(config) | changes(photo))]
    line += [] if guess is None else ["--guess", str(guess)]
    given = {name: str(value) if isinstance(value, Path) else value for name, value in changes(photo).items()}
    options = "".join(f", {name}={value!r}" for name, value in given.items())
    load = (
        f"unrender.load_photo({str(seen)!r}{options})"
        if _is_photo(seen)
        else f"unrender.load_cloud({str(seen)!r})"
    )
    settings = ", ".join(f"{name}={value!r}" for name, value in changes(config).items())
    near = (
        "" if guess is None else f", guess=torch.tensor({_load_guess(guess).tolist()}, dtype=torch.float64)"
    )
    read_mesh = f"mesh, texture = unrender.load_textured_mesh({str(mesh)!r})"
    if not config.use_color:
        read_mesh = f"mesh, texture = unrender.load_mesh({str(mesh)!r}), None"
    python = [
        *(["import torch", ""] if guess is not None else []),
        "import unrender",
        "",
        read_mesh,
        f"seen = {load}",
        f"config = unrender.FindPose({settings})",
        f"for step in unrender.find_pose(mesh, seen, config, texture=texture{near}):",
        "    print(step.stage, step.cost)",
        "print(step.result.verdict, step.result.camera_from_object)",
    ]
    return [shlex.join(line), "\n".join(python)]


def _print_summary(estimate: PoseEstimate, seconds: float) -> None:
    print(_verdict(estimate))
    print("camera_from_object:")
    for row in estimate.camera_from_object.tolist():
        print("  " + "".join(f"{x:14.6g}" for x in row))
    print(f"{seconds:.1f} seconds")
