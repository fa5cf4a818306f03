"""unrender import: photos or a video to a scene."""

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated

import tyro

from unrender._version import __version__
from unrender.data.colmap import cloud_of_model
from unrender.data.frames import hold_out
from unrender.data.llff import pictures_in
from unrender.data.save_transforms import save_transforms
from unrender.errors import InputError
from unrender.io.clouds import save_cloud
from unrender.io.images import IMAGE_SUFFIXES
from unrender.io.video_frames import VIDEO_SUFFIXES, save_sharpest_frames
from unrender.runs.folder import open_run_folder, write_json
from unrender.runs.progress import take_all
from unrender.tasks.scene.register_photos import (
    RegisterPhotos,
    RegisterPhotosStep,
    Registration,
    register_photos,
)


def command(
    photos: Annotated[Path, tyro.conf.Positional],
    /,
    config: RegisterPhotos = RegisterPhotos(),
    video_frames: int = 100,
    copy: bool = False,
    output: Path | None = None,
) -> int:
    """Find where photos (a folder) or the pictures of a video were taken, and write a scene: transforms.json.

    Needs pycolmap: pip install 'unrender[photos]'. Example: unrender import holiday/ --output scene

    Args:
        photos: A folder of photos, or a video.
        config: How to find the cameras.
        video_frames: Pictures to take from a video, the sharpest of as many stretches.
        copy: Copy the photos into the scene's folder, rather than refer to where they are.
        output: The scene's folder. By default runs/import/NAME-TIME.
    """
    is_video = photos.suffix.lower() in VIDEO_SUFFIXES
    given = [] if is_video else _photos_in(photos)
    folder = open_run_folder("import", photos.stem if is_video else photos.resolve().name, output)
    write_json(
        folder / "config.json",
        {
            "unrender": __version__,
            "task": "import",
            "photos": photos,
            "config": config,
            "video_frames": video_frames,
            "copy": copy,
        },
    )
    if is_video or copy:
        (folder / "images").mkdir(exist_ok=True)
    if is_video:
        given = save_sharpest_frames(photos, folder / "images", video_frames)
        config = dataclasses.replace(config, in_order=True)
        print(f"took {len(given)} pictures from the video")
    elif copy:
        given = [Path(shutil.copy(photo, folder / "images")) for photo in given]
    last = take_all(register_photos(given, folder, config), _words)[-1]
    if last.stage != "final":
        print("stopped: no photo was placed yet")
        return 1
    if last.result is None:
        write_json(folder / "metrics.json", {"num_photos": len(given), "num_registered": 0})
        print(
            "no photo could be placed: they show too little in common; take more, each with two thirds of the last"
        )
        return 1
    _write(last.result, folder)
    return 0


def _photos_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: a folder of photos is expected, or a video ({', '.join(VIDEO_SUFFIXES)})"
        )
    found = pictures_in(folder)
    if len(found) < 2:
        raise InputError(
            f"{folder}: {len(found)} photos ({', '.join(IMAGE_SUFFIXES)}) are in this folder; two or more are needed"
        )
    return found


def _write(result: Registration, folder: Path) -> None:
    """Write the scene, and say how good it is."""
    cloud = cloud_of_model(result.model)
    if cloud is not None:
        save_cloud(cloud, folder / "points.ply")
    points = None if cloud is None else "points.ply"
    save_transforms(hold_out(result.frames), folder / "transforms.json", points=points)
    write_json(
        folder / "metrics.json",
        {
            "num_photos": result.num_photos,
            "num_registered": len(result.frames),
            "registered_share": result.share,
            "reprojection_error": result.reprojection_error,
            "num_points": result.num_points,
        },
    )
    print(
        f"placed {len(result.frames)} of {result.num_photos} photos, with {result.num_points:,} points; "
        f"mean reprojection error {result.reprojection_error:.2f} pixels"
    )
    if result.advice:
        print(f"note: {result.advice}")
    print(folder / "transforms.json")


def _words(step: RegisterPhotosStep) -> str:
    words = {"features": "looking for features", "pairs": "comparing photos"}
    return words.get(step.stage, f"placed {step.index} of {step.last_index} photos")
