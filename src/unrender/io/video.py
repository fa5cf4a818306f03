"""Saving of videos as mp4 or gif."""

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unrender._checked import describe_value
from unrender.errors import InputError
from unrender.io.files import FilePath, atomic_write
from unrender.io.formats import known_suffix

VIDEO_OUTPUT_SUFFIXES = (".mp4", ".gif")
CODECS = {
    # the number of threads and the instructions of a processor would change the bytes of a file
    "libx264": {"crf": "18", "preset": "fast", "threads": "4", "x264-params": "cpu-independent=1"},
    "libopenh264": {},
    "mpeg4": {"qscale": "2"},
}
"""Encoders with their options; the first one available in PyAV is used."""

Frames = Iterable[Float[Tensor, "height width 3"]]


def save_video(frames: Frames, path: FilePath, *, frames_per_second: float = 24.0) -> None:
    """Save RGB frames in [0, 1] of equal size as a video (mp4, gif), atomically.

    Frames are consumed lazily; for mp4, one frame at a time is in memory. Values are clamped to [0, 1]. For mp4, odd
    sizes are padded to even ones by repeating the last row or column. A gif has 256 colors per frame, and frame times
    in hundredths of a second.
    """
    suffix = known_suffix(path, VIDEO_OUTPUT_SUFFIXES)
    if not 0 < frames_per_second <= 1000:
        raise InputError(f"save_video: `frames_per_second` should be in (0, 1000], got {frames_per_second}")
    images = _bytes(frames)
    first = next(images, None)
    if first is None:
        raise InputError("save_video: `frames` should have at least one frame, got none")
    with atomic_write(path) as file:
        save = _save_mp4 if suffix == ".mp4" else _save_gif
        save(itertools.chain([first], images), file, first.shape, frames_per_second)


def _bytes(frames: Frames) -> Iterator[NDArray[np.uint8]]:
    shape = None
    for number, frame in enumerate(frames):
        if frame.dim() != 3 or frame.shape[-1] != 3 or frame.numel() == 0:
            raise InputError(
                f"save_video: frame {number} should be an RGB image, got {describe_value(frame)}"
            )
        shape = shape or frame.shape
        if frame.shape != shape:
            raise InputError(
                f"save_video: all frames should have the size of the first, {list(shape)}, "
                f"got {list(frame.shape)} for frame {number}"
            )
        yield (frame.detach().cpu().clamp(0, 1) * 255).round().numpy().astype(np.uint8)


def _save_mp4(
    frames: Iterator[NDArray[np.uint8]], file: BinaryIO, shape: tuple[int, ...], frames_per_second: float
) -> None:
    from fractions import Fraction

    import av

    rate = Fraction(frames_per_second).limit_denominator(1001)
    codec = next(name for name in CODECS if name in av.codecs_available)
    target = io.BytesIO()  # muxing mp4 seeks in the file
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate, CODECS[codec])
        assert isinstance(stream, av.VideoStream)
        height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            even = np.pad(frame, ((0, height - shape[0]), (0, width - shape[1]), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, "rgb24")))
        container.mux(stream.encode())
    file.write(target.getbuffer())


def _save_gif(
    frames: Iterator[NDArray[np.uint8]], file: BinaryIO, shape: tuple[int, ...], frames_per_second: float
) -> None:
    from PIL import Image

    first = Image.fromarray(next(frames))
    others = (Image.fromarray(frame) for frame in frames)
    milliseconds = max(10, round(100 / frames_per_second) * 10)
    first.save(file, "gif", save_all=True, append_images=others, duration=milliseconds, loop=0)
