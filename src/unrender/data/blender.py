"""Blender scenes: transforms_train.json, transforms_val.json, transforms_test.json (NeRF-synthetic)."""

import dataclasses
import os
from pathlib import Path
from typing import get_args

from unrender.data.frames import Frame, ParsedScene, Split
from unrender.data.listed_files import find_images
from unrender.data.nerfstudio import make_frame, read_transforms
from unrender.io.depth import DepthFile
from unrender.io.files import MissingFileError, reading


def recognizes(path: Path) -> bool:
    """Return whether one of the three files exists."""
    return path.is_dir() and any((path / f"transforms_{split}.json").is_file() for split in get_args(Split))


def read(path: Path, inverted_depth_range: float | None) -> ParsedScene:
    """Read those of the three files that exist; each has the format of transforms.json."""
    if not recognizes(path):
        raise MissingFileError(
            f"{path}: no transforms_train.json, transforms_val.json or transforms_test.json"
        )
    frames: list[Frame] = []
    missing: list[str] = []
    notes: dict[str, None] = {}
    files: dict[Split, Path] = {split: path / f"transforms_{split}.json" for split in get_args(Split)}
    contents = {split: read_transforms(file) for split, file in files.items() if file.is_file()}
    listed = [values["file_path"] for content in contents.values() for values in content["frames"]]
    with reading(path):
        images = find_images(path, listed, notes)
    for split, content in contents.items():
        with reading(files[split]):
            for values in content["frames"]:
                image = images[values["file_path"]]
                if image is None:
                    missing.append(values["file_path"])
                    continue
                frame = make_frame({**content, **values}, image, path, {}, notes)
                name = Path(os.path.relpath(image, path)).as_posix()
                frames.append(dataclasses.replace(frame, name=name, split=split))
    depths = {f.name: depth for f in frames if (depth := _depth_image(f.image_path))}
    if depths and inverted_depth_range is None:
        notes[
            f"{len(depths)} depth images are ignored: their range is unknown; "
            "give `inverted_depth_range`, which is 8 for NeRF-synthetic"
        ] = None
    elif inverted_depth_range is not None:
        known = {
            n: DepthFile(depth, inverted_depth_range, "distance", inverted=True)
            for n, depth in depths.items()
        }
        frames = [dataclasses.replace(f, depth_file=known.get(f.name, f.depth_file)) for f in frames]
    return ParsedScene(path.resolve().name, path, frames, True, missing=missing, notes=list(notes))


def _depth_image(file: Path) -> Path | None:
    """Return the depth image of an image, named with Blender's frame number: r_0_depth_0000.png."""
    return next(iter(sorted(file.parent.glob(f"{file.stem}_depth_[0-9][0-9][0-9][0-9].png"))), None)
