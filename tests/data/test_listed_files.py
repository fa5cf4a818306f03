import json

import numpy as np
import pytest
from PIL import Image

import scene_files
from unrender import FileFormatError, load_scene
from unrender.data.listed_files import find_file, find_image


@pytest.fixture
def scene(tmp_path):
    scene_files.write_nerfstudio(tmp_path, scene_files.cameras(4))
    return tmp_path


def change(folder, rename, **extra):
    """Change the listed names of a scene."""
    path = folder / "transforms.json"
    content = json.loads(path.read_text()) | extra
    for frame in content["frames"]:
        frame["file_path"] = rename(frame["file_path"])
    scene_files.write_json(path, content)


def move(folder, rename):
    for path in sorted((folder / "images").iterdir()):
        target = folder / rename(path.relative_to(folder).as_posix())
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: ".\\" + name.replace("/", "\\"),
        lambda name: "C:\\Users\\me\\scene\\" + name.replace("/", "\\"),
        lambda name: "/home/me/scene/" + name,
        lambda name: name.replace("images", "Images").upper(),
        lambda name: name.replace(".png", ".jpg"),
        lambda name: name.replace("images/", ""),
    ],
)
def test_names_that_another_system_wrote_are_found(scene, rename):
    change(scene, rename)
    loaded = load_scene(scene)
    assert [frame.image_path.name for frame in loaded.frames] == [f"{i:03d}.png" for i in range(4)]
    assert [note for note in loaded.notes if note.startswith("4 images were found under other names")]
    assert not loaded.missing
    assert np.array_equal(loaded.frames[2].load_pixels(), scene_files.pixels(2))


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace(".png", ".PNG"),
        lambda name: name.replace("images/", ""),
        lambda name: f"scene/{name}",
    ],
)
def test_files_that_moved_are_found(scene, rename):
    move(scene, rename)
    assert len(load_scene(scene).frames) == 4


def test_the_file_that_shares_more_folders_is_taken(scene):
    for folder in ("masks", "depth", "images_4/images"):
        for i in range(4):
            scene_files.write_image(scene / folder / f"{i:03d}.png", scene_files.pixels(9))
    change(scene, lambda name: name.replace("images/", "images\\"))
    assert {frame.image_path.parent for frame in load_scene(scene).frames} == {scene / "images"}


def test_a_file_of_the_same_name_elsewhere_is_only_named(scene):
    move(scene, lambda name: name.replace("images", "rgb"))
    with pytest.raises(
        FileFormatError, match=r"the first is .*000\.png; images/000\.png does not exist; did you"
    ):
        load_scene(scene)


def test_two_files_that_fit_equally_are_not_taken(scene):
    move(scene, lambda name: f"a/{name}")
    for path in sorted((scene / "a/images").iterdir()):
        scene_files.write_image(scene / "b/images" / path.name, scene_files.pixels(0))
    with pytest.raises(FileFormatError, match="none of the 4 listed images exists"):
        load_scene(scene)


def test_a_missing_test_image_does_not_become_the_training_image_of_that_name(tmp_path):
    scene_files.write_blender(tmp_path, scene_files.cameras(3))
    for path in (tmp_path / "test").iterdir():
        path.unlink()
    loaded = load_scene(tmp_path)
    assert [frame.split for frame in loaded.frames] == ["train"] * 3
    assert len(loaded.missing) == 3


@pytest.mark.parametrize("text", [False, True])
def test_images_of_colmap_are_found_too(tmp_path, text):
    scene_files.write_colmap(tmp_path, scene_files.cameras(), text=text)
    for path in sorted((tmp_path / "images").iterdir()):
        path.rename(path.with_suffix(".PNG"))
    loaded = load_scene(tmp_path)
    assert (len(loaded.frames), loaded.missing, loaded.without_pose) == (9, (), ())


def test_masks_depth_and_points_of_another_system(scene):
    scene_files.write_image(scene / "masks/0.png", np.full((12, 16), 255, np.uint8))
    scene_files.write_image(scene / "depth/0.png", np.full((12, 16), 1500, np.uint16))
    path = scene / "transforms.json"
    content = json.loads(path.read_text())
    content["frames"][0] |= {"mask_path": "D:\\scene\\Masks\\0.PNG", "depth_file_path": ".\\depth\\0.png"}
    scene_files.write_json(path, content)
    loaded = load_scene(scene)
    view = loaded.frames[0].load()
    assert view.mask.all()
    assert float(view.depth.mean()) == pytest.approx(1.5)
    assert not loaded.notes


def test_only_listed_frames_are_used_if_training_images_are_listed(scene):
    change(
        scene, str, train_filenames=["./images/000.png", "images\\001.png"], test_filenames=["images/003.png"]
    )
    loaded = load_scene(scene)
    assert [frame.split for frame in loaded.frames] == ["train", "train", "test"]
    assert loaded.notes == (
        "1 of 4 frames are in none of the lists train_filenames, val_filenames and test_filenames; they are not used",
    )


def test_frames_that_no_list_names_are_for_training_if_only_test_images_are_listed(scene):
    change(scene, str, test_filenames=["images/003.png"])
    assert [frame.split for frame in load_scene(scene).frames] == ["train"] * 3 + ["test"]


def test_lists_that_name_no_frame_are_ignored(scene):
    change(scene, str, train_filenames=["other/000.png"])
    loaded = load_scene(scene)
    assert [frame.split for frame in loaded.frames] == ["test", "train", "train", "train"]
    assert "name none of the frames" in loaded.notes[0]


def test_masks_of_moving_objects(scene):
    mask = np.zeros((24, 32), np.uint8)  # twice the size
    mask[:6] = 255
    scene_files.write_image(scene / "images/dynamic_mask_001.png", mask)
    loaded = load_scene(scene)
    assert [frame.has_mask for frame in loaded.frames] == [False, True, False, False]
    assert loaded.frames[1].load().mask.sum(1).tolist() == [0] * 3 + [16] * 9


def test_depth_of_instant_ngp(scene):
    scene_files.write_image(scene / "depth/0.png", np.full((12, 16), 1500, np.uint16))
    path = scene / "transforms.json"
    content = json.loads(path.read_text()) | {"enable_depth_loading": True, "integer_depth_scale": 0.0002}
    content["frames"][0]["depth_path"] = "depth/0.png"
    scene_files.write_json(path, content)
    assert float(load_scene(scene).frames[0].load().depth.mean()) == pytest.approx(0.3)
    content["integer_depth_scale"] = 0
    scene_files.write_json(path, content)
    with pytest.raises(FileFormatError, match="'integer_depth_scale' should be positive"):
        load_scene(scene)


def test_masks_with_an_id_for_each_object_keep_all_objects(scene):
    mask = np.zeros((24, 32), np.uint8)
    mask[:8], mask[8:16] = 1, 3
    scene_files.write_image(scene / "masks/0.png", mask)
    path = scene / "transforms.json"
    content = json.loads(path.read_text())
    content["frames"][0]["mask_path"] = "masks/0.png"
    scene_files.write_json(path, content)
    assert load_scene(scene).frames[0].load().mask.sum(1).tolist() == [16] * 8 + [0] * 4


@pytest.mark.parametrize(
    ("listed", "on_disk"),
    [
        ("my%20photo.png", "my photo.png"),
        ("a+b.png", "a+b.png"),
        ("my+photo.png", "my photo.png"),
        ("100%.png", "100%.png"),
    ],
)
def test_names_from_urls_are_decoded(tmp_path, listed, on_disk):
    Image.new("RGB", (8, 6)).save(tmp_path / on_disk)
    assert find_image(tmp_path, listed) == tmp_path / on_disk
    assert find_file(tmp_path, listed) == tmp_path / on_disk


def test_names_are_taken_as_they_are_first(tmp_path):
    for name in ("a b.png", "a%20b.png", "a+b.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    for name in ("a b.png", "a%20b.png", "a+b.png"):
        assert find_image(tmp_path, name) == tmp_path / name
    assert find_image(tmp_path, "a%00b.png") is None
