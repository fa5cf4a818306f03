"""Blender scenes: transforms_train.json, transforms_val.json, transforms_test.json (NeRF-synthetic)."""

import dataclasses
import os
from pathlib import Path
from typing import get_args

from unrender.data.frames import Frame, ParsedScene, Split
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
    for split in get_args(Split):
        file = path / f"transforms_{split}.json"
        if not file.is_file():
            continue
        content = read_transforms(file)
        with reading(file):
            for values in content["frames"]:
                found = make_frame({**content, **values}, path, {}, notes)
                if isinstance(found, Frame):
                    name = Path(os.path.relpath(found.image_path, path)).as_posix()
                    frames.append(dataclasses.replace(found, name=name, split=split))
                else:
                    missing.append(found)
    depths = {f.name: depth for f in frames if (depth := _depth_image(f.image_path))}
    if depths and inverted_depth_range is None:
        notes[
            f"{len(depths)} depth images are ignored: their range is unknown; "
            "give `inverted_depth_range`, which is 8 for NeRF-synthetic"
        ] = None
    elif inverted_depth_range is not None:
        files = {n: DepthFile(depth, inverted_depth_range, "distance", True) for n, depth in depths.items()}
        frames = [dataclasses.replace(f, depth_file=files.get(f.name, f.depth_file)) for f in frames]
    return ParsedScene(path.resolve().name, path, frames, True, missing=missing, notes=list(notes))


def _depth_image(file: Path) -> Path | None:
    """Return the depth image of an image, named with Blender's frame number: r_0_depth_0000.png."""
    return next(iter(sorted(file.parent.glob(f"{file.stem}_depth_[0-9][0-9][0-9][0-9].png"))), None)
