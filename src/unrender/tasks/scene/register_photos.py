"""Where photos were taken: poses, lenses and points by COLMAP's structure from motion, on the CPU."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal

from unrender.data.colmap import frames_of_model
from unrender.data.colmap_model import ColmapModel, read_model
from unrender.data.frames import Frame
from unrender.errors import InputError

WAIT = 0.5
"""Seconds between looks at how far the work is."""
Stage = Literal["features", "pairs", "poses", "final"]
LOW_REGISTERED_FRACTION = 0.6
LARGE_ERROR = 1.5
"""Pixels."""


@dataclasses.dataclass(frozen=True)
class RegisterPhotos:
    """Structure from motion."""

    one_camera: bool = True
    """All photos are from one camera with one focal length: estimate common intrinsics."""
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
    """Photos whose cameras were found."""

    frames: tuple[Frame, ...]
    num_photos: int
    reprojection_error: float
    """Mean distance, in pixels, between where points are seen and where they should be."""
    num_points: int
    model: ColmapModel

    @property
    def registered_fraction(self) -> float:
        """Fraction of photos whose camera was found."""
        return len(self.frames) / self.num_photos

    @property
    def advice(self) -> str | None:
        """What to do if too little was found."""
        if self.registered_fraction < LOW_REGISTERED_FRACTION:
            return (
                f"only {len(self.frames)} of {self.num_photos} photos could be placed: take more, with two thirds of "
                "each picture also in the next one, moving sideways rather than turning on the spot, of something "
                "with texture, sharp and in even light"
            )
        if self.reprojection_error > LARGE_ERROR:
            return (
                f"the mean reprojection error of {self.reprojection_error:.2f} pixels is large: if the photos are of "
                "several cameras or zooms, say --no-one-camera; for a wide lens, --lens OPENCV"
            )
        return None


@dataclasses.dataclass(frozen=True)
class RegisterPhotosStep:
    """How far it is."""

    stage: Stage
    index: int
    """Photos placed so far: 0 until features and pairs are found."""
    last_index: int
    result: Registration | None = None
    """In the last step, unless no photo could be placed."""


def register_photos(
    photos: Sequence[Path], folder: Path, config: RegisterPhotos = RegisterPhotos()
) -> Iterator[RegisterPhotosStep]:
    """Find the cameras of photos of one thing or place; the world's scale and orientation are arbitrary.

    SIFT features, matched between photos, then incremental mapping (Schönberger and Frahm 2016). `folder`, which is
    there, takes the database and the model, `sparse/0`. Needs pycolmap: `pip install 'unrender[photos]'`.
    """
    pycolmap = _pycolmap()
    if len(photos) < 2 or len({photo.parent for photo in photos}) != 1:
        raise InputError(f"register_photos: needs two photos or more, of one folder; got {len(photos)}")
    pictures, names = photos[0].parent, sorted(photo.name for photo in photos)
    database, sparse = folder / "features.db", folder / "sparse"
    database.unlink(missing_ok=True)
    sparse.mkdir(exist_ok=True)
    pycolmap.set_random_seed(config.seed)

    num, stop = len(names), pycolmap.CancellationToken()
    placed: list[int] = []
    match = pycolmap.match_sequential if config.in_order else pycolmap.match_exhaustive
    options = pycolmap.IncrementalPipelineOptions(random_seed=config.seed, min_model_size=2)
    stages: dict[Stage, Callable[[], object]] = {
        "features": _extraction(pycolmap, database, pictures, names, config, stop),
        "pairs": lambda: match(database, device=pycolmap.Device.cpu, cancellation_token=stop),
        "poses": lambda: pycolmap.incremental_mapping(
            database,
            pictures,
            sparse,
            options,
            next_image_callback=lambda: placed.append(1),
            cancellation_token=stop,
        ),
    }
    for stage, work in stages.items():
        for _ in _waiting(work, stop):
            yield RegisterPhotosStep(stage, min(len(placed), num), num)
    result = _best(pycolmap, sparse, pictures, num)
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


def _extraction(
    pycolmap: Any, database: Path, pictures: Path, names: list[str], config: RegisterPhotos, stop: Any
) -> Callable[[], object]:
    options = pycolmap.FeatureExtractionOptions(max_image_size=config.max_size)
    options.sift.max_num_features = config.max_features
    mode = pycolmap.CameraMode.SINGLE if config.one_camera else pycolmap.CameraMode.PER_IMAGE
    return lambda: pycolmap.extract_features(
        database,
        pictures,
        names,
        mode,
        pycolmap.ImageReaderOptions(camera_model=config.lens),
        options,
        pycolmap.Device.cpu,
        stop,
    )


def _waiting(work: Callable[[], object], stop: Any) -> Iterator[None]:
    """Do the work in a thread, and yield now and then; stop it if nobody waits for it any more."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            while not future.done():
                yield
                wait([future], WAIT)
        finally:
            if not future.done():
                stop.cancel()
    future.result()


def _best(pycolmap: Any, sparse: Path, pictures: Path, num_photos: int) -> Registration | None:
    """Read the model with most photos."""
    models = [path for path in sorted(sparse.iterdir()) if (path / "images.bin").is_file()]
    if not models:
        return None
    reconstructions = {path: pycolmap.Reconstruction(path) for path in models}
    best = max(models, key=lambda path: int(reconstructions[path].num_reg_images()))
    model = read_model(best)
    found = frames_of_model(model, pictures, {})
    return Registration(
        tuple(sorted((frame for frame in found if isinstance(frame, Frame)), key=lambda frame: frame.name)),
        num_photos,
        float(reconstructions[best].compute_mean_reprojection_error()),
        len(model.points.ids),
        model,
    )
