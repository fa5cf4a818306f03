"""unrender import: estimate camera poses of photos or a video."""

import dataclasses
import shutil
from pathlib import Path
from typing import Annotated

import torch
import tyro

from unrender._wording import counted
from unrender.cli.arguments import Flag, Folder
from unrender.cli.confine import confinable
from unrender.data.colmap import cloud_from_model
from unrender.data.frames import split_frames
from unrender.data.llff import list_images_below
from unrender.data.panoramas import FACES, is_panorama_scene, split_panoramas
from unrender.data.save_transforms import save_transforms
from unrender.errors import InputError
from unrender.io.clouds import save_cloud
from unrender.io.file_names import safe_file_names
from unrender.io.files import atomic_write, read_bytes, reading
from unrender.io.images import HEIF_SUFFIXES, IMAGE_SUFFIXES, open_image
from unrender.io.video_frames import VIDEO_SUFFIXES, save_sharpest_frames
from unrender.runs.folder import start_run, write_json
from unrender.runs.progress import run_steps
from unrender.tasks.scene.register_photos import (
    RegisterPhotos,
    RegisterPhotosStep,
    Registration,
    register_photos,
)

UNREAD_SUFFIXES = (
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
    ".orf",
    ".rw2",
    ".avif",
    ".jxl",
    ".gif",
    ".psd",
)
"""Suffixes of photos that are counted, but not used."""


@confinable
def command(
    photos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS|VIDEO")],
    /,
    reconstruction: RegisterPhotos = RegisterPhotos(),
    video_frames: int = 100,
    copy: Flag = False,
    output: Folder = None,
) -> int:
    """Estimate the camera poses of photos or of a video with COLMAP and write a scene (transforms.json).

    Photos in subfolders are used too; those in HEIC are converted. Needs pycolmap: pip install 'unrender[photos]'.
    A scene of equirectangular panoramas (transforms.json) is split into perspective views; its poses are kept.

    Example: unrender import holiday/ --output scene

    Args:
        photos: Folder of photos, or a video, or a scene of panoramas.
        reconstruction: Structure from motion.
        video_frames: Number of frames to extract from a video: the sharpest of each of as many equal intervals.
        copy: Copy the photos into the scene instead of referring to their location.
        output: Output folder, the scene. Default: runs/import/NAME-TIME.
    """
    if is_panorama_scene(photos):
        return _import_panoramas(photos, output)
    is_video = photos.suffix.lower() in VIDEO_SUFFIXES
    images = [] if is_video else _photos_in(photos)
    settings = {"photos": photos, "config": reconstruction, "video_frames": video_frames, "copy": copy}
    folder = start_run("import", photos.stem if is_video else photos.resolve().name, output, settings)
    copy = copy or any(image.suffix.lower() in HEIF_SUFFIXES for image in images)  # COLMAP does not read them
    if is_video or copy:
        (folder / "images").mkdir(exist_ok=True)
    if is_video:
        images = save_sharpest_frames(photos, folder / "images", video_frames)
        reconstruction = dataclasses.replace(reconstruction, in_order=True)
        print(f"extracted {counted(len(images), 'frame')} from the video")
    elif copy:
        names = safe_file_names([image.relative_to(photos).as_posix() for image in images])
        images = [_copy(image, folder / "images" / name) for image, name in zip(images, names, strict=True)]
    last = run_steps(register_photos(images, folder, reconstruction), _describe)[-1]
    if last.stage != "final":
        print("stopped before the first photo was registered")
        return 1
    if last.result is None:
        write_json(folder / "metrics.json", {"num_photos": len(images), "num_registered": 0})
        print("no photo could be registered: too few matches; take more photos that overlap by two thirds")
        return 1
    _write(last.result, folder)
    return 0


def _import_panoramas(scene: Path, output: Path | None) -> int:
    """Write a scene of perspective views."""
    folder = start_run("import", scene.resolve().name, output, {"photos": scene})
    (folder / "images").mkdir(exist_ok=True)
    views = [frame for frames in split_panoramas(scene, folder / "images") for frame in frames]
    has_splits = any(frame.split != "train" for frame in views)
    save_transforms(views if has_splits else split_frames(views), folder / "transforms.json")
    num_panoramas = len(views) // len(FACES)
    write_json(folder / "metrics.json", {"num_photos": num_panoramas, "num_views": len(views)})
    print(f"split {num_panoramas} panoramas into {len(views)} perspective views")
    print(folder / "transforms.json")
    return 0


def _photos_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: give a folder of photos, or a video ({', '.join(VIDEO_SUFFIXES)})")
    found = list_images_below(folder)
    below = sum(image.parent != folder for image in found)
    if below:
        print(f"{below} of {len(found)} photos are in subfolders")
    unread = sorted(path.suffix for path in folder.rglob("*") if path.suffix.lower() in UNREAD_SUFFIXES)
    if unread:
        suffixes = ", ".join(dict.fromkeys(unread))
        print(
            f"skipped {counted(len(unread), 'file')} in formats that are not read ({suffixes}); save as JPEG"
        )
    if len(found) < 2:
        raise InputError(
            f"{folder}: found {counted(len(found), 'photo')} ({', '.join(IMAGE_SUFFIXES)}), at least 2 are needed"
        )
    return found


def _copy(photo: Path, target: Path) -> Path:
    """Copy a photo; one from an iPhone (HEIC) is converted to JPEG, upright, with its EXIF data."""
    if photo.suffix.lower() not in HEIF_SUFFIXES:
        return Path(shutil.copy(photo, target))
    data = read_bytes(photo)
    with reading(photo):
        image = open_image(data)
    target = target.with_name(f"{target.name}.jpg")
    with atomic_write(target) as file:
        image.convert("RGB").save(file, "JPEG", quality=95, exif=image.getexif())
    return target


def _write(result: Registration, folder: Path) -> None:
    """Write the scene and print a summary."""
    cloud = cloud_from_model(result.model)
    if cloud is not None:
        save_cloud(cloud.to(torch.float32), folder / "points.ply")
    points = None if cloud is None else "points.ply"
    save_transforms(split_frames(result.frames), folder / "transforms.json", points=points)
    write_json(
        folder / "metrics.json",
        {
            "num_photos": result.num_photos,
            "num_registered": len(result.frames),
            "registered_fraction": result.registered_fraction,
            "reprojection_error": result.reprojection_error,
            "num_points": result.num_points,
        },
    )
    print(
        f"registered {len(result.frames)} of {counted(result.num_photos, 'photo')}, "
        f"{counted(result.num_points, 'point')}; "
        f"mean reprojection error {result.reprojection_error:.2f} pixels"
    )
    if result.advice:
        print(f"note: {result.advice}")
    print(folder / "transforms.json")


def _describe(step: RegisterPhotosStep) -> str:
    stages = {"features": "extracting features", "pairs": "matching features"}
    return stages.get(step.stage, f"registered {step.index} of {counted(step.last_index, 'photo')}")
