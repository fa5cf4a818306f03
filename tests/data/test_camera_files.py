import dataclasses
import json

import pytest
import torch

from scene_files import cameras, write_blender, write_nerfstudio
from unrender import Frame, Lens, load_cameras, load_scene, save_cameras
from unrender.errors import FileFormatError

SPLITS = ("train", "val", "test")


def frames(folder, views) -> list[Frame]:
    return [
        Frame(f"{i:03d}.png", view, folder / f"{i:03d}.png", SPLITS[i % 3]) for i, view in enumerate(views)
    ]


def assert_same(loaded, given) -> None:
    assert [(f.split, f.camera.height, f.camera.width) for f in loaded] == [
        (f.split, f.camera.height, f.camera.width) for f in given
    ]
    for mine, theirs in zip(loaded, given, strict=True):
        for name in ("focal", "center", "camera_from_world"):
            torch.testing.assert_close(getattr(mine.camera, name), getattr(theirs.camera, name))


def test_round_trip_without_images(tmp_path):
    views = cameras(5)
    views[1] = views[1].replace(lens=Lens.brown([0.1, 0.02], [0.01, 0.0]))
    views[2] = views[2].replace(lens=Lens.fisheye([0.1]))
    given = frames(tmp_path, views)
    given[0] = dataclasses.replace(given[0], mask_path=tmp_path / "mask.png")
    save_cameras(given, tmp_path / "cameras.json")
    loaded = load_cameras(tmp_path / "cameras.json")
    assert_same(loaded, given)
    torch.testing.assert_close(loaded[1].camera.lens.radial, views[1].lens.radial)
    assert loaded[2].camera.lens.model == "fisheye"
    assert [f.name for f in loaded] == [f.name for f in given]


def test_cameras_beside_their_images_keep_their_splits(tmp_path):
    (tmp_path / "runs").mkdir()
    given = [
        dataclasses.replace(f, split=s) for f, s in zip(frames(tmp_path, cameras(3)), SPLITS, strict=True)
    ]
    save_cameras(given, tmp_path / "runs/cameras.json")  # names begin with ../
    assert [frame.split for frame in load_cameras(tmp_path / "runs/cameras.json")] == list(SPLITS)


def test_a_lens_that_cannot_be_saved_is_said_to_be_left_out(tmp_path, caplog):
    view = cameras(1)[0].replace(lens=Lens.brown([0.1], denominator=[0.1]))
    save_cameras(frames(tmp_path, [view]), tmp_path / "cameras.json")
    assert "000.png: the lens has a denominator and was not saved" in caplog.text
    assert load_cameras(tmp_path / "cameras.json")[0].camera.lens is None


@pytest.mark.parametrize("write", [write_nerfstudio, write_blender])
def test_scenes_are_files_of_cameras_too(tmp_path, write):
    write(tmp_path, cameras(4))
    place = tmp_path / ("transforms.json" if write is write_nerfstudio else "transforms_test.json")
    for mine, theirs in zip(load_cameras(place), load_scene(place).frames, strict=True):
        torch.testing.assert_close(mine.camera.camera_from_world, theirs.camera.camera_from_world)
        torch.testing.assert_close(mine.camera.focal, theirs.camera.focal)


def camera_path(views, **changes) -> dict:
    height, width = views[0].height, views[0].width
    poses = [{"camera_to_world": view.to_opengl().flatten().tolist(), "fov": 50.0} for view in views]
    path = {
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "camera_path": poses,
    }
    return path | changes


def test_a_path_of_nerfstudio_is_read(tmp_path):
    views = cameras(3)
    (tmp_path / "path.json").write_text(json.dumps(camera_path(views)))
    loaded = load_cameras(tmp_path / "path.json")
    for mine, view in zip(loaded, views, strict=True):
        torch.testing.assert_close(mine.camera.camera_from_world, view.camera_from_world)
        torch.testing.assert_close(mine.camera.focal, view.focal)
        assert (mine.camera.height, mine.camera.width) == (view.height, view.width)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "damaged"),
        ("[]", "expected an object with a list 'frames'"),
        ('{"frames": []}', "no cameras"),
        ('{"frames": [{"file_path": "a.png"}]}', "frame a.png: its pose should be 4 × 4 numbers"),
        ({"camera_path": []}, "no cameras"),
        ({"camera_path": 3}, "a list 'camera_path'"),
        ({"camera_path": [{}]}, "KeyError"),
        ({"camera_path": [{"camera_to_world": [1.0] * 16, "fov": 50}]}, "frame 0: the last row"),
        ({"camera_path": [{"camera_to_world": [1.0] * 15, "fov": 50}]}, "damaged"),
        ({"camera_type": "omnidirectional"}, "camera type 'omnidirectional' is not supported"),
        ({"render_height": 0}, "needs a positive render size, got 0 ×"),
        ({"render_width": None}, "'render_width' should be a number"),
        ({"render_width": 10**9}, "is too large"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, words):
    path = tmp_path / "path.json"
    path.write_text(content if isinstance(content, str) else json.dumps(camera_path(cameras(1), **content)))
    with pytest.raises(FileFormatError, match=r"path\.json: ") as error:
        load_cameras(path)
    assert words in str(error.value)


@pytest.mark.parametrize("fov", [0, 180, "wide", None])
def test_a_wrong_angle_is_refused(tmp_path, fov):
    content = camera_path(cameras(1))
    content["camera_path"][0]["fov"] = fov
    (tmp_path / "path.json").write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match="frame 0: 'fov' should"):
        load_cameras(tmp_path / "path.json")
