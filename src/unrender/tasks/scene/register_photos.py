"""Camera poses, intrinsics and points of photos, by COLMAP's structure from motion on the CPU."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal

from unrender.data.colmap import frames_from_model
from unrender.data.colmap_model import ColmapModel, read_model
from unrender.data.frames import Frame, frame_to_local
from unrender.errors import InputError
from unrender.geometry.world_origin import ZERO
from unrender.io.images import image_size, oriented_image_size

log = logging.getLogger("unrender")
POLL_INTERVAL = 0.5
"""Seconds between two progress updates."""
Stage = Literal["features", "pairs", "poses", "final"]
LOW_REGISTERED_FRACTION = 0.6
LARGE_REPROJECTION_ERROR = 1.5
"""Pixels."""


@dataclasses.dataclass(frozen=True)
class RegisterPhotos:
    """Structure from motion."""

    one_camera: bool = True
    """All photos are from one camera with one focal length: estimate common intrinsics, for each image size if there
    are several."""
    lens: Literal["SIMPLE_PINHOLE", "SIMPLE_RADIAL", "OPENCV", "OPENCV_FISHEYE"] = "SIMPLE_RADIAL"
    """Camera model of COLMAP."""
    max_size: int = 1600
    """Longer side in pixels to which images are downscaled for feature extraction, at least 100."""
    max_features: int = 4096
    """Maximum number of features per photo, at least 100."""
    in_order: bool = False
    """The photos are a sequence, such as a video: match neighboring photos instead of all pairs."""
    seed: int = 0
    """Seed of the random number generator."""

    def __post_init__(self) -> None:
        if self.max_size < 100 or self.max_features < 100:
            raise InputError("RegisterPhotos: `max_size` and `max_features` should be at least 100")


@dataclasses.dataclass(frozen=True)
class Registration:
    """Registered photos, and quality metrics of the reconstruction."""

    frames: tuple[Frame, ...]
    num_photos: int
    reprojection_error: float
    """Mean reprojection error, in pixels."""
    num_points: int
    model: ColmapModel

    @property
    def registered_fraction(self) -> float:
        """Fraction of photos that were registered."""
        return len(self.frames) / self.num_photos

    @property
    def advice(self) -> str | None:
        """How to improve a poor reconstruction; None for a good one."""
        if self.registered_fraction < LOW_REGISTERED_FRACTION:
            return (
                f"only {len(self.frames)} of {self.num_photos} photos could be registered: take more that overlap "
                "by two thirds, sharp and evenly lit, of textured surfaces; move sideways instead of turning in place"
            )
        if self.reprojection_error > LARGE_REPROJECTION_ERROR:
            return (
                f"the mean reprojection error of {self.reprojection_error:.2f} pixels is large: use --no-one-camera if "
                "the photos are from several cameras or zooms, --lens OPENCV for a wide-angle lens"
            )
        return None


@dataclasses.dataclass(frozen=True)
class RegisterPhotosStep:
    """Progress of `register_photos`."""

    stage: Stage
    index: int
    """Number of registered photos: 0 during feature extraction and matching."""
    last_index: int
    result: Registration | None = None
    """Set in the last step, unless no photo could be registered."""


def register_photos(
    photos: Sequence[Path], folder: Path, config: RegisterPhotos = RegisterPhotos()
) -> Iterator[RegisterPhotosStep]:
    """Estimate the cameras of photos of one static scene; the scale and orientation of the world are arbitrary.

    SIFT features, matched between photos, then incremental mapping (Schönberger and Frahm 2016). The model is
    written to `sparse/0` in `folder`, which must exist. Needs pycolmap: `pip install 'unrender[photos]'`.
    """
    pycolmap = _pycolmap()
    if len(photos) < 2:
        raise InputError(f"register_photos: needs at least two photos, got {len(photos)}")
    image_folder = Path(os.path.commonpath([photo.parent.absolute() for photo in photos]))
    names = sorted(photo.absolute().relative_to(image_folder).as_posix() for photo in photos)
    database, sparse = folder / "features.db", folder / "sparse"
    database.unlink(missing_ok=True)
    sparse.mkdir(exist_ok=True)
    pycolmap.set_random_seed(config.seed)

    num, stop = len(names), pycolmap.CancellationToken()
    registered: list[int] = []
    match = pycolmap.match_sequential if config.in_order else pycolmap.match_exhaustive
    options = pycolmap.IncrementalPipelineOptions(random_seed=config.seed, min_model_size=2)
    stages: dict[Stage, Callable[[], object]] = {
        "features": _extract_features(pycolmap, database, image_folder, names, config, stop),
        "pairs": lambda: match(database, device=pycolmap.Device.cpu, cancellation_token=stop),
        "poses": lambda: pycolmap.incremental_mapping(
            database,
            image_folder,
            sparse,
            options,
            next_image_callback=lambda: registered.append(1),
            cancellation_token=stop,
        ),
    }
    for stage, work in stages.items():
        for _ in _poll(work, stop):
            yield RegisterPhotosStep(stage, min(len(registered), num), num)
    result = _largest_reconstruction(pycolmap, sparse, image_folder, num)
    database.unlink()
    yield RegisterPhotosStep("final", num, num, result)


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise InputError(
            "register_photos: needs pycolmap, which is not installed; run: pip install 'unrender[photos]'"
        ) from error
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value
    return pycolmap


def _extract_features(
    pycolmap: Any, database: Path, image_folder: Path, names: list[str], config: RegisterPhotos, stop: Any
) -> Callable[[], object]:
    options = pycolmap.FeatureExtractionOptions(max_image_size=config.max_size)
    options.sift.max_num_features = config.max_features
    mode = pycolmap.CameraMode.SINGLE if config.one_camera else pycolmap.CameraMode.PER_IMAGE
    reader = pycolmap.ImageReaderOptions(camera_model=config.lens)
    groups = _by_size(image_folder, names) if config.one_camera else [names]

    def extract() -> None:
        for group in groups:
            pycolmap.extract_features(
                database, image_folder, group, mode, reader, options, pycolmap.Device.cpu, stop
            )

    return extract


def _by_size(image_folder: Path, names: Sequence[str]) -> list[list[str]]:
    """Group photos of the same size and orientation: one camera has one image size."""
    groups: dict[tuple[tuple[int, int], tuple[int, int]], list[str]] = {}
    for name in names:
        size = image_size(image_folder / name), oriented_image_size(image_folder / name)
        groups.setdefault(size, []).append(name)
    if len(groups) > 1:
        log.warning("the photos have %d sizes or orientations; estimating a camera for each", len(groups))
    return list(groups.values())


def _poll(work: Callable[[], object], stop: Any) -> Iterator[None]:
    """Run the work in a thread and yield while it runs; cancel it if the generator is closed."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            while not future.done():
                yield
                wait([future], POLL_INTERVAL)
        finally:
            if not future.done():
                stop.cancel()
    future.result()


def _largest_reconstruction(
    pycolmap: Any, sparse: Path, image_folder: Path, num_photos: int
) -> Registration | None:
    """Read the model with the most photos."""
    models = [path for path in sorted(sparse.iterdir()) if (path / "images.bin").is_file()]
    if not models:
        return None
    reconstructions = {path: pycolmap.Reconstruction(path) for path in models}
    best = max(models, key=lambda path: int(reconstructions[path].num_reg_images()))
    model = read_model(best)
    found = [
        frame_to_local(frame, ZERO)
        for frame in frames_from_model(model, image_folder, {})
        if isinstance(frame, Frame)
    ]
    return Registration(
        tuple(sorted(found, key=lambda frame: frame.name)),
        num_photos,
        float(reconstructions[best].compute_mean_reprojection_error()),
        len(model.points.ids),
        model,
    )
