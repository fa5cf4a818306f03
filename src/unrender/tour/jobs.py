"""The jobs of the tour: commands, run on what was generated, and how far their results are from the truth."""

import contextlib
import dataclasses
import io
import json
import math
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrender.data.photos import load_photo
from unrender.data.scenes import Scene
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.rotations import rotation_angle
from unrender.io import load_cloud, load_mesh
from unrender.reports.evaluation import evenly
from unrender.runs.folder import as_options, changes
from unrender.runs.saved_run import load_run
from unrender.tasks.mesh.measure_mesh import measure_mesh
from unrender.tasks.nerf.config import FitNerf
from unrender.tasks.pose.find_pose import FindPose
from unrender.tasks.volume.fit_volume import FitVolume
from unrender.tour import images as draw
from unrender.tour import text as words
from unrender.tour.report import Curve, Frames, Job, Ran, Slider

FOV_DEGREES = 45.0
"""Of the photo in which a pose is looked for."""
SCAN, ONE_SIDE, TRUTH, PHOTO, SCENE = map(
    Path, ("scan.ply", "one-side.ply", "truth.ply", "photo.png", "photos")
)
FIELD = Path("radiance-field")
DEPTH_ERROR = 0.02
"""Share of the depth that has the brightest color."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything in the tour is."""

    points: int = 20_000
    """Of the scan."""
    noise: float = 0.002
    """Standard deviation of the scanner's error, in diagonals of the object's box."""
    photo_height: int = 480
    """Pixels of the photo in which a pose is looked for; a third more across."""
    pose: FindPose = FindPose()
    pixels: int = 256
    """Of the photos' sides."""
    num_train: int = 40
    num_test: int = 6
    """Photos to learn from, and held out."""
    volume: FitVolume = FitVolume(resolution=128, steps=500, rays=16384, depth=0.0)
    nerf: FitNerf = FitNerf(steps=200, depth=0.0)
    """Neither learns from the depth that the scene has: it is there to measure what is found without it."""
    depth_views: int = 30
    depth_pixels: int = 160
    """Photos where depth is measured for points and meshes, and the pixels of its sides."""
    spacing: float = 0.02
    """Between the points made from depths, in units of the world; the object is 2 wide."""
    voxel_size: float = 0.015
    """Of the mesh fused from depths."""
    turntable: tuple[int, int] = (20, 320)
    """Pictures once around a mesh or a cloud, and their pixels a side."""
    film: tuple[int, int] = (16, 256)
    """The same of fields, which take longer."""


class Stage(NamedTuple):
    """Where the tour takes place, and what is true there."""

    folder: Path
    sizes: Sizes
    truth: Mesh
    camera: Camera
    """Of the photo in which a pose is looked for."""
    scene: Scene
    run_command: Callable[[str, Sequence[str]], object]
    """Of the command line: a command's name and its arguments."""

    @property
    def diagonal(self) -> float:
        """Size of the object."""
        return float((self.truth.vertices.amax(0) - self.truth.vertices.amin(0)).norm())

    @property
    def around(self) -> list[Camera]:
        """From where shapes are shown."""
        return draw.cameras_around(self.truth, *self.sizes.turntable)

    @property
    def film(self) -> tuple[str, ...]:
        """How `unrender render` shows what was learned."""
        num_frames, side = self.sizes.film
        return "--path", "orbit", "--views", str(num_frames), "--size", str(side)

    def run(self, name: str, *rest: str | Path) -> Ran:
        """Run a command of the command line, quietly; paths lie in the folder."""
        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            self.run_command(
                name, [str(self.folder / word) if isinstance(word, Path) else word for word in rest]
            )
        return Ran(shlex.join(["unrender", name, *map(str, rest)]), time.perf_counter() - begin)


def mesh_from_scan(stage: Stage) -> Job:
    """Turn a noisy scan into a mesh."""
    folder = stage.folder
    ran = stage.run("fit-mesh", SCAN, "--reference", TRUTH, "--output", Path("mesh"))
    metrics = _metrics(folder / "mesh")
    steps, squared = _curve(folder / "mesh", "chamfer (squared diagonals)")
    distances = [100 * math.sqrt(value) for value in squared]
    return Job(
        words.mesh(),
        given=f"a scan: {stage.sizes.points:,} points, each off by {_percent(stage.sizes.noise)} of the size",
        outcome=f"{_percent(metrics['mesh_to_reference_mean'] / stage.diagonal)} of the size from the true surface",
        pictures=_mesh_pictures(stage),
        curve=Curve("distance between points and mesh", "% of the size", steps, distances, logarithmic=True),
        figures=[
            *_mesh_figures("the mesh", metrics, stage),
            ("watertight", "yes" if metrics["watertight"] else "no"),
            ("handles; the object has one", str(metrics["genus"])),
            ("faces", f"{metrics['num_faces']:,}"),
        ],
        ran=[ran],
        folders=["mesh"],
    )


def _mesh_pictures(stage: Stage) -> list[Slider | Frames]:
    scan, mesh = load_cloud(stage.folder / SCAN), load_mesh(stage.folder / "mesh/mesh.ply")
    around, clay = stage.around, draw.clay(mesh)
    truth = ("truth", draw.clay(stage.truth))
    return [
        draw.compared_shapes("the scan, and the mesh", ("scan", scan), ("mesh", clay), around),
        draw.compared_shapes("the object that was scanned, and the mesh", truth, ("mesh", clay), around),
        draw.turned("the mesh, once around", clay, around),
    ]


def pose_from_picture(stage: Stage) -> Job:
    """Find where the camera of a photo stood, and how a part of the object lies that was scanned."""
    folder, names = stage.folder, ("pose-in-photo", "pose-in-scan")
    fov, how = ("--fov-degrees", f"{FOV_DEGREES:g}"), as_options(changes(stage.sizes.pose))
    ran = [
        stage.run("find-pose", TRUTH, PHOTO, *fov, *how, "--output", Path(names[0])),
        stage.run("find-pose", TRUTH, ONE_SIDE, *how, "--output", Path(names[1])),
    ]
    poses = [_json(folder / name / "pose.json") for name in names]
    found = [torch.tensor(pose["camera_from_object"], dtype=torch.float64) for pose in poses]
    off = [_pose_error(pose, stage) for pose in found]
    mesh, scan = stage.truth.to(torch.float32), load_cloud(folder / ONE_SIDE)
    photo = load_photo(folder / PHOTO, fov_degrees=FOV_DEGREES).to(torch.float32)
    curve = _curve(folder / names[0], "cost of the best pose")
    return Job(
        words.pose(FOV_DEGREES, _spelled(changes(stage.sizes.pose))),
        given="a mesh and one photo of it; then a scan of one side instead of the photo",
        outcome=f"{off[0][0]:.2f}° off in the photo, {off[1][0]:.2f}° in the scan",
        pictures=[
            draw.pose_in_photo(mesh, photo, found[0]),
            draw.outlines(mesh, photo, found[0]),
            draw.pose_in_scan(mesh, scan, found[1], stage.around),
        ],
        curve=Curve(
            "cost of the best pose in the photo; with finer pictures, there is more to explain",
            "",
            *curve,
            logarithmic=True,
        ),
        figures=[
            figure
            for where, (degrees, shift), pose in zip(("photo", "scan"), off, poses, strict=True)
            for figure in (
                (f"{where}: turned away from the truth", f"{degrees:.2f}°"),
                (f"{where}: shifted, of the distance to the camera", _percent(shift)),
                (f"{where}: what the command says of it", str(pose["verdict"])),
            )
        ],
        ran=ran,
        folders=names,
    )


def _pose_error(pose: Tensor, stage: Stage) -> tuple[float, float]:
    """Return how far a pose is from the truth: in degrees, and the object's middle, as a share of its distance."""
    truth = stage.camera.camera_from_world.double()
    low, high = stage.truth.vertices.double().aminmax(dim=0)
    middle = torch.cat([(low + high) / 2, torch.ones(1, dtype=torch.float64)])
    angle = rotation_angle(pose[:3, :3].contiguous(), truth[:3, :3].contiguous())
    there = (truth @ middle)[:3]
    return math.degrees(float(angle)), float(((pose @ middle)[:3] - there).norm() / there.norm())


def volume_from_photos(stage: Stage) -> Job:
    """Fit voxels to photos, and look at them from all around."""
    folder, config = stage.folder, changes(stage.sizes.volume)
    ran = [
        stage.run("fit-volume", SCENE, *as_options(config), "--no-film", "--output", Path("volume")),
        stage.run("render", Path("volume"), *stage.film, "--output", Path("volume-views")),
    ]
    metrics = _metrics(folder / "volume")
    learned_from = evenly(stage.scene.split("train"), stage.sizes.film[0])
    return Job(
        words.volume(_spelled(config)),
        given=f"{stage.sizes.num_train} photos, {stage.sizes.pixels} pixels a side, and where their cameras stood",
        outcome=f"{metrics['psnr']:.1f} dB on photos that were held out",
        pictures=[
            draw.photos(learned_from),
            *_held_out(stage, folder / "volume" / "held-out", 1),
            draw.film("new views of the voxels, once around", _views(folder / "volume-views")),
        ],
        curve=_psnr_curve(folder / "volume", "mean squared error of colors"),
        figures=[
            *_photo_figures(metrics, stage),
            ("voxels that are left", f"{metrics['num_voxels']:,}"),
            ("seconds of learning", f"{metrics['seconds']:.0f}"),
        ],
        ran=ran,
        folders=["volume", "volume-views"],
    )


def field_from_photos(stage: Stage) -> Job:
    """Learn a radiance field from photos, look at it from all around, and measure it."""
    folder, config = stage.folder, changes(stage.sizes.nerf)
    brief = ("--no-film", "--views", "1")  # measured below
    ran = [
        stage.run("fit-nerf", SCENE, *as_options(config), *brief, "--output", FIELD),
        stage.run("render", FIELD, *stage.film, "--output", Path("new-views")),
        stage.run("eval", FIELD, "--output", Path("held-out")),
    ]
    learned, metrics = _metrics(folder / FIELD), _metrics(folder / "held-out")
    return Job(
        words.field(_spelled(config)),
        given="the same photos",
        outcome=f"{metrics['psnr']:.1f} dB on photos that were held out",
        pictures=[
            *_held_out(stage, folder / "held-out" / "views", 2),
            draw.film("new views of the radiance field, once around", _views(folder / "new-views")),
        ],
        curve=_psnr_curve(folder / FIELD, "mean squared error of rays"),
        figures=[
            *_photo_figures(metrics, stage),
            ("numbers that were learned", f"{learned['num_parameters']:,}"),
            ("seconds of learning", f"{learned['seconds']:.0f}"),
        ],
        ran=ran,
        folders=[str(FIELD), "new-views", "held-out"],
    )


def shape_from_depth(stage: Stage) -> Job:
    """Measure depth in the radiance field; make points of it, and meshes."""
    folder, sizes = stage.folder, stage.sizes
    views = ("--views", str(sizes.depth_views), "--size", str(sizes.depth_pixels))
    spacing, voxel = (("--spacing", f"{sizes.spacing:g}"), ("--voxel-size", f"{sizes.voxel_size:g}"))
    ran = [
        stage.run("depth", FIELD, "--path", "training", *views, "--output", Path("depth")),
        stage.run("export", Path("depth"), *spacing, "--output", Path("points")),
        stage.run("export", Path("depth"), "--to", "mesh", *voxel, "--output", Path("fused")),
        stage.run("fit-mesh", Path("points/points.ply"), "--reference", TRUTH, "--output", Path("fitted")),
    ]
    depth, fitted = _metrics(folder / "held-out"), _metrics(folder / "fitted")
    points, mesh = load_cloud(folder / "points/points.ply"), load_mesh(folder / "fused/mesh.ply")
    fused = measure_mesh(mesh, points.points, reference=stage.truth)
    median = depth["depth/median/abs_rel"]
    return Job(
        words.depth(sizes.spacing, sizes.voxel_size),
        given="the radiance field, which learned from colors alone",
        outcome=f"depth {_percent(median)} off; the mesh made of it {_percent(_there(fused, stage))} of the size",
        pictures=_depth_pictures(stage),
        curve=None,
        figures=[
            ("mean error of the median depth (abs-rel)", _percent(median)),
            ("the same of the first surface", _percent(depth["depth/first_surface/abs_rel"])),
            ("the same of the expected depth", _percent(depth["depth/expected/abs_rel"])),
            ("share of the true surface that is seen", _percent(depth["depth/median/valid_fraction"])),
            ("points on which views agree", f"{len(points.points):,}"),
            *_mesh_figures("the mesh fused from depths", fused, stage),
            *_mesh_figures("the mesh fitted to the points", fitted, stage),
        ],
        ran=ran,
        folders=["depth", "points", "fused", "fitted"],
    )


def _depth_pictures(stage: Stage) -> list[Slider | Frames]:
    folder, around = stage.folder, stage.around
    field = load_run(folder / FIELD).field
    points, fused = load_cloud(folder / "points/points.ply"), load_mesh(folder / "fused/mesh.ply")
    truth = ("truth", draw.clay(stage.truth))
    return [
        *draw.compared_depth(field, stage.scene.split("test")[0], DEPTH_ERROR),
        draw.turned("points on which depths agree", points, around),
        draw.turned_colors("the mesh fused from depths, in the colors of the field", fused, around),
        draw.compared_shapes(
            "the true object, and the mesh fused from depths", truth, ("fused", draw.clay(fused)), around
        ),
        draw.compared_shapes(
            "the true object, and the mesh fitted to the points",
            truth,
            ("fitted", draw.clay(load_mesh(folder / "fitted/mesh.ply"))),
            around,
        ),
    ]


def _held_out(stage: Stage, rendered: Path, count: int) -> list[Slider]:
    frames = evenly(stage.scene.split("test"), count)
    return [draw.compared_photo(frame, rendered / f"{Path(frame.name).stem}.png") for frame in frames]


def _views(folder: Path) -> list[Path]:
    return sorted(folder.glob("view_*.png"))


def _there(metrics: dict[str, Any], stage: Stage) -> float:
    return float(metrics["mesh_to_reference_mean"]) / stage.diagonal


def _mesh_figures(what: str, metrics: dict[str, Any], stage: Stage) -> list[tuple[str, str]]:
    back = float(metrics["reference_to_mesh_mean"]) / stage.diagonal
    return [
        (f"from {what} to the true surface, mean", _percent(_there(metrics, stage))),
        (f"from the true surface to {what}, mean", _percent(back)),
    ]


def _photo_figures(metrics: dict[str, Any], stage: Stage) -> list[tuple[str, str]]:
    return [
        (f"PSNR of {stage.sizes.num_test} photos that were held out", f"{metrics['psnr']:.2f} dB"),
        ("SSIM of the same", f"{metrics['ssim']:.3f}"),
    ]


def _psnr_curve(folder: Path, name: str) -> Curve:
    steps, errors = _curve(folder, name)
    values = [-10 * math.log10(error) for error in errors]
    return Curve("PSNR of the pixels that are learned from", "dB", steps, values)


def _curve(folder: Path, name: str) -> tuple[list[float], list[float]]:
    curve = _json(folder / "curves.json")[name]
    return curve["step"], curve["value"]


def _metrics(folder: Path) -> dict[str, Any]:
    return _json(folder / "metrics.json")


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def _spelled(given: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"
