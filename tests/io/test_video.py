from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from unrender import InputError, save_video
from unrender.io.video_frames import save_sharpest_frames

av = pytest.importorskip("av")


def frames(num=7, height=32, width=48):
    for i in range(num):
        picture = torch.zeros(height, width, 3)
        picture[:, i * width // num : (i + 1) * width // num, i % 3] = 1
        yield picture


@pytest.mark.parametrize("size", [(32, 48), (31, 47)])
def test_mp4_holds_every_frame(tmp_path, size):
    save_video(frames(7, *size), tmp_path / "a.mp4", frames_per_second=12)
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert film.streams.video[0].average_rate == 12
        found = [torch.from_numpy(frame.to_ndarray(format="rgb24")) / 255 for frame in film.decode(video=0)]
    assert len(found) == 7
    for one, other in zip(found, frames(7, *size), strict=True):
        assert one.shape == (32, 48, 3)
        assert (one[: size[0], : size[1]] - other).abs().mean() < 0.06


def test_the_same_frames_give_the_same_bytes(tmp_path):
    # motion search in noise of this size takes the paths that differ between runs
    noise = torch.rand(10, 36, 36, 3, generator=torch.Generator().manual_seed(0))
    written = set()
    for _ in range(20):
        save_video(noise, tmp_path / "a.mp4")
        written.add((tmp_path / "a.mp4").read_bytes())
    assert len(written) == 1


def test_gif_holds_every_frame(tmp_path):
    save_video(frames(), tmp_path / "a.gif", frames_per_second=10)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 7
        assert film.info["duration"] == 100


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_videos_are_written_atomically(tmp_path, suffix):
    def broken():
        yield from frames(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save_video(broken(), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "at least one frame, got none"),
        ([torch.ones(4, 4)], "frame 0 should be an RGB image"),
        ([torch.ones(4, 4, 3), torch.ones(4, 5, 3)], r"got \[4, 5, 3\] for frame 1"),
    ],
)
def test_invalid_frames_are_rejected(tmp_path, frames, message):
    with pytest.raises(InputError, match=message):
        save_video(frames, tmp_path / "a.mp4")


def write_video(path, times, damaged=()):
    """Write frames at times in milliseconds; the packets with some numbers are damaged."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            packets += stream.encode(frame)
        for number, packet in enumerate([*packets, *stream.encode()]):
            if number in damaged:
                other = av.Packet(bytes(packet.size))
                other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
                other.stream = stream
                packet = other
            container.mux(packet)


def test_frames_of_a_variable_rate_are_all_counted(tmp_path):
    write_video(tmp_path / "a.mkv", [0, 10, 20, 30, 5000, 5010, 9000, 20000])
    assert len(save_sharpest_frames(tmp_path / "a.mkv", tmp_path, 4)) == 4


def test_damaged_frames_of_a_video_are_skipped(tmp_path, caplog):
    write_video(tmp_path / "a.mkv", range(0, 800, 100), damaged=(2, 5))
    assert len(save_sharpest_frames(tmp_path / "a.mkv", tmp_path, 8)) == 6
    assert "2 damaged packets were skipped" in caplog.text
