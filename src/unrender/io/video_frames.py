"""Videos: the sharpest pictures of one."""

from pathlib import Path

import numpy as np

from unrender.errors import FileFormatError, InputError
from unrender.io.contents import Floats
from unrender.io.files import FilePath, open_file, reading, write_whole

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
JPEG_QUALITY = 95
WIDTH_LOOKED_AT = 320


def save_sharpest_frames(video: FilePath, folder: FilePath, count: int) -> list[Path]:
    """Cut a video into `count` stretches of the same length and save the sharpest picture of each as jpg.

    Sharp is what differs much from its neighbours: the variance of the Laplacian (Pech-Pacheco et al. 2000). A video
    with fewer pictures gives all of them.
    """
    import av

    if count < 1:
        raise InputError(f"save_sharpest_frames: `count` should be at least 1, got {count}")
    target = Path(folder)
    saved: list[Path] = []
    with open_file(video) as file, reading(video), av.open(file, "r") as container:
        if not container.streams.video:
            raise FileFormatError("there are no pictures in it")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        length = _length(container, stream)
        best: tuple[float, bytes] | None = None
        stretch, number = 0, 0
        for number, frame in enumerate(container.decode(stream)):
            here = min(int(number / max(length, 1) * count), count - 1)
            if here != stretch and best is not None:
                saved.append(_save(best[1], target, len(saved)))
                best = None
            stretch = here
            sharpness = _sharpness(frame.reformat(format="gray").to_ndarray())
            if best is None or sharpness > best[0]:
                best = (sharpness, _jpeg(frame.to_ndarray(format="rgb24")))
        if best is None:
            raise FileFormatError("no picture in it can be read")
        saved.append(_save(best[1], target, len(saved)))
    return saved


def _length(container, stream) -> int:  # type: ignore[no-untyped-def]
    """Estimate how many pictures there are: many files do not say."""
    if stream.frames:
        return int(stream.frames)
    seconds = float(container.duration or 0) / 1e6
    return round(seconds * float(stream.average_rate or 30))


def _sharpness(grey: Floats) -> float:
    step = max(1, grey.shape[1] // WIDTH_LOOKED_AT)
    small = grey[::step, ::step].astype(np.float32)
    laplacian = (
        small[1:-1, 2:] + small[1:-1, :-2] + small[2:, 1:-1] + small[:-2, 1:-1] - 4 * small[1:-1, 1:-1]
    )
    return float(laplacian.var()) if laplacian.size else 0.0


def _jpeg(values: Floats) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(values).save(file, "jpeg", quality=JPEG_QUALITY)
    return file.getvalue()


def _save(data: bytes, folder: Path, number: int) -> Path:
    path = folder / f"frame_{number:04d}.jpg"
    with write_whole(path) as file:
        file.write(data)
    return path
