"""Extraction of sharp frames from videos."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unrender.errors import FileFormatError, InputError
from unrender.io.files import FilePath, atomic_write, open_file, reading
from unrender.io.geometry_data import Floats

log = logging.getLogger("unrender")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
JPEG_QUALITY = 95
SHARPNESS_WIDTH = 320
"""Width in pixels to which frames are subsampled to measure their sharpness."""


def save_sharpest_frames(video: FilePath, folder: FilePath, count: int) -> list[Path]:
    """Divide a video into `count` segments of equal length, and save the sharpest frame of each as jpg, upright.

    Sharpness is the variance of the Laplacian (Pech-Pacheco et al. 2000). All frames are saved if a video has fewer
    than `count`.
    """
    if count < 1:
        raise InputError(f"save_sharpest_frames: `count` should be at least 1, got {count}")
    target = Path(folder)
    saved: list[Path] = []
    with open_file(video) as file, reading(video):
        num_frames = _count_frames(file)
        file.seek(0)
        best: tuple[float, bytes] | None = None
        segment = 0
        for number, frame in enumerate(_decodable_frames(file, video)):
            current = min(int(number / max(num_frames, 1) * count), count - 1)
            if current != segment and best is not None:
                saved.append(_save(best[1], target, len(saved)))
                best = None
            segment = current
            sharpness = _sharpness(frame.reformat(format="gray").to_ndarray())
            if best is None or sharpness > best[0]:
                best = (sharpness, _jpeg(upright(frame.to_ndarray(format="rgb24"), frame.rotation)))
        if best is None:
            raise FileFormatError("no frame could be decoded")
        saved.append(_save(best[1], target, len(saved)))
    return saved


def _count_frames(file: BinaryIO) -> int:
    """Return the number of frames; count the packets where the file does not store it. Rates of videos can vary."""
    import av

    with av.open(file, "r") as container:
        if not container.streams.video:
            raise FileFormatError("the file has no video stream")
        stream = container.streams.video[0]
        return int(stream.frames) or sum(packet.size > 0 for packet in container.demux(stream))


def _decodable_frames(file: BinaryIO, path: FilePath) -> Iterator[Any]:
    """Yield the frames, without damaged ones; the log says how many packets were damaged."""
    import av

    num_damaged = 0
    with av.open(file, "r") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.InvalidDataError:
                num_damaged += 1
    if num_damaged:
        log.warning("%s: %d damaged packets were skipped", path, num_damaged)


def _sharpness(gray: Floats) -> float:
    step = max(1, gray.shape[1] // SHARPNESS_WIDTH)
    small = gray[::step, ::step].astype(np.float32)
    laplacian = (
        small[1:-1, 2:] + small[1:-1, :-2] + small[2:, 1:-1] + small[:-2, 1:-1] - 4 * small[1:-1, 1:-1]
    )
    return float(laplacian.var()) if laplacian.size else 0.0


def upright(values: Floats, degrees: float) -> Floats:
    """Turn a frame counterclockwise by the rotation in the header of its video, a multiple of 90 degrees."""
    return np.ascontiguousarray(np.rot90(values, round(degrees / 90)))


def _jpeg(values: Floats) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(values).save(file, "jpeg", quality=JPEG_QUALITY)
    return file.getvalue()


def _save(data: bytes, folder: Path, number: int) -> Path:
    path = folder / f"frame_{number:04d}.jpg"
    with atomic_write(path) as file:
        file.write(data)
    return path
