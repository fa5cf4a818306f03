"""Views of a run: along paths, of a split, by name."""

import pytest
import torch

from ball_field import Ball
from scene_files import cameras
from unrender import Frame, InputError, save_cameras
from unrender.data.frames import evenly_spaced
from unrender.runs.saved_run import Run
from unrender.runs.views import (
    PATHS,
    check_path,
    file_stems,
    views_along,
    views_named,
    with_size,
)


@pytest.fixture
def run(tmp_path) -> Run:
    splits = ["test", "train", "train"]
    names = [f"{folder}/{i}.png" for folder in "ab" for i in range(5)]
    frames = [
        Frame(name, view, tmp_path / name, splits[i % 3])
        for i, (name, view) in enumerate(zip(names, cameras(10), strict=True))
    ]
    save_cameras(frames, tmp_path / "cameras.json")
    return Run(tmp_path, Ball(), tmp_path / "field.safetensors", None, None, None)


def test_items_are_evenly_spaced() -> None:
    assert evenly_spaced(range(10), 4) == [0, 2, 5, 7]
    assert evenly_spaced(range(3), None) == evenly_spaced(range(3), 5) == [0, 1, 2]


def test_splits_and_paths(run) -> None:
    assert [frame.name for frame in views_along(run, "test", None)] == [
        "a/0.png",
        "a/3.png",
        "b/1.png",
        "b/4.png",
    ]
    assert len(views_along(run, "train", 3)) == 3
    assert len(views_along(run, "orbit", None)) == 36
    assert [len(views_along(run, path, 5)) for path in ("auto", "interpolate")] == [5, 5]
    file = str(run.folder / "cameras.json")
    assert len(views_along(run, file, 4)) == 4


def test_views_are_named_by_path_name_or_stem(run) -> None:
    assert [frame.name for frame in views_named(run, ["a/2.png", "b/2.png", "a/2.png"])] == [
        "a/2.png",
        "b/2.png",
    ]
    with pytest.raises(InputError, match=r"--names 2: matches several views; for example a/2.png, b/2.png"):
        views_named(run, ["2"])


def test_file_stems_are_unique(run) -> None:
    frames = run.frames()
    assert file_stems(frames[:2]) == ["0", "1"]
    assert file_stems([frames[0], frames[5]]) == ["a_0", "b_0"]
    assert file_stems([frames[0], frames[0]]) == ["0000_0", "0001_0"]


def test_paths_are_checked(tmp_path) -> None:
    for path in PATHS:
        check_path(path)
    with pytest.raises(InputError, match=r"--path round: must be one of auto, orbit, interpolate"):
        check_path("round")
    with pytest.raises(InputError, match=r"absent.json: no such file"):
        check_path(str(tmp_path / "absent.json"))


def test_sizes_keep_the_aspect_ratio(run) -> None:
    frame = run.frames()[0]  # 16 × 12
    small = with_size(frame, 8).camera
    assert (small.width, small.height) == (8, 6)
    torch.testing.assert_close(small.focal, frame.camera.focal / 2)
    assert with_size(frame, None) is frame
