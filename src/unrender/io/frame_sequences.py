"""Frames of a video file or of a folder of images, one at a time; frames that cannot be used are skipped."""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrender.errors import FileFormatError, InputError
from unrender.io.files import MissingFileError, open_file, reading
from unrender.io.formats import known_suffix
from unrender.io.images import IMAGE_SUFFIXES, is_hidden, load_image
from unrender.io.video_frames import VIDEO_SUFFIXES, upright

MAX_ASPECT_CHANGE = 0.02
"""Frames have the same aspect ratio if its logarithm differs by less."""
MAX_BAD_PACKETS = 100
"""Consecutive packets of a video that cannot be decoded, after which it is given up."""
log = logging.getLogger("unrender")


class SequenceFrame(NamedTuple):
    """A frame of a video or a folder."""

    number: int
    """Position in the sequence; skipped frames count."""
    seconds: float
    """Time stamp in a video; in a folder, the index divided by the frame rate."""
    name: str
    """Name of the image file; empty in a video."""
    image: Tensor
    """[height, width, 3], 8-bit RGB, upright."""


def list_frames(folder: Path) -> list[Path]:
    """List the images of a folder in the order of their names; InputError if there are none."""
    if not folder.exists():
        raise MissingFileError(f"{folder}: no such file or folder")
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p.name)]
    if not files:
        raise InputError(f"{folder}: no images; expected files such as {', '.join(IMAGE_SUFFIXES)}")
    return sorted(files, key=lambda path: (len(path.stem) if path.stem.isdigit() else 0, path.name))


def have_same_aspect(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether images of two shapes [height, width, ...] have the same aspect ratio."""
    return abs(math.log(shape[1] / shape[0] * other[0] / other[1])) <= MAX_ASPECT_CHANGE


def read_frames(
    path: Path, frames_per_second: float = 30.0, *, quiet: bool = False
) -> Iterator[SequenceFrame]:
    """Read the frames of a video, or of a folder of images, which has the given frame rate.

    Time stamps of a video are its own, so its frame rate may vary. The rotation in the header of a video and the EXIF
    orientation of images are applied. Frames that cannot be decoded, or have another aspect ratio than the first one,
    are skipped, with a warning unless `quiet`.
    Raises FileFormatError if no frame can be decoded.
    """
    level = logging.DEBUG if quiet else logging.WARNING
    frames = _read_folder(path, frames_per_second, level) if path.is_dir() else _read_video(path, level)
    first, num_skipped = None, 0
    for frame in frames:
        first = first or frame.image.shape
        if have_same_aspect(frame.image.shape, first):
            yield frame
            continue
        num_skipped += 1
        if num_skipped == 1:
            (height, width), (rows, columns) = frame.image.shape[:2], first[:2]
            message = "frame %d skipped: it has %d × %d pixels, another aspect ratio than the first, %d × %d"
            log.log(level, message, frame.number, width, height, columns, rows)
    if first is None:
        raise FileFormatError(f"{path}: no frame could be decoded")
    if num_skipped > 1:
        log.log(level, "%s: %d frames of another aspect ratio skipped", path, num_skipped)


def _read_folder(folder: Path, frames_per_second: float, level: int) -> Iterator[SequenceFrame]:
    for index, path in enumerate(list_frames(folder)):
        try:
            image = load_image(path)[..., :3]
        except FileFormatError as error:
            log.log(level, "frame %d skipped: %s", index, error)
            continue
        yield SequenceFrame(index, index / frames_per_second, path.name, (image * 255).round().byte())


def _read_video(path: Path, level: int) -> Iterator[SequenceFrame]:
    import av

    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder; give a video or a folder of images")
    known_suffix(path, VIDEO_SUFFIXES)
    with open_file(path) as file, reading(path), av.open(file, "r") as container:
        if not container.streams.video:
            raise FileFormatError("the file has no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        index, num_bad = -1, 0
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
                num_bad = 0
            except av.error.FFmpegError as error:
                index, num_bad = index + 1, num_bad + 1
                message = "%s: frame %d skipped: it cannot be decoded (%s)"
                log.log(level, message, path, index, error.strerror)
                if num_bad > MAX_BAD_PACKETS:
                    return
                continue
            for frame in frames:
                index += 1
                assert isinstance(frame, av.VideoFrame)
                pixels = upright(frame.to_ndarray(format="rgb24"), frame.rotation)
                seconds = float(frame.time) if frame.time is not None else index / 30
                yield SequenceFrame(index, seconds, "", torch.from_numpy(np.ascontiguousarray(pixels)))


def count_frames(path: Path) -> int:
    """Return the number of frames, or -1 if a video does not store it."""
    if path.is_dir():
        return len(list_frames(path))
    import av

    with open_file(path) as file, reading(path), av.open(file, "r") as container:
        return int(container.streams.video[0].frames) or -1 if container.streams.video else -1
