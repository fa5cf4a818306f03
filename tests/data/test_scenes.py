from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scene_files
from unrender import Camera, FileFormatError, InputError, Lens, MissingFileError, load_scene

SHARED = Path(__file__).parents[3] / "shared/data"
FORMATS = {
    "blender": scene_files.write_blender,
    "nerfstudio": scene_files.write_nerfstudio,
    "colmap": scene_files.write_colmap,
    "colmap-text": lambda folder, views: scene_files.write_colmap(folder, views, text=True),
    "llff": scene_files.write_llff,
}


def assert_same_camera(a: Camera, b: Camera) -> None:
    for name in ("focal", "center", "camera_from_world"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-5)
    assert (a.height, a.width) == (b.height, b.width)


@pytest.mark.parametrize("name", FORMATS)
def test_all_formats_load_the_same_cameras_and_images(name, tmp_path):
    views = scene_files.cameras()
    FORMATS[name](tmp_path, views)
    scene = load_scene(tmp_path)
    splits = ["test", *["train"] * 7, "test"]
    if name == "blender":
        splits = ["test"] * 9 + ["train"] * 9
        assert len(scene.split("train")) == 9
        views += views
    assert [frame.split for frame in scene.frames] == splits
    for frame, camera, index in zip(scene.frames, views, [*range(9)] * 2, strict=False):
        assert_same_camera(frame.camera, camera)
        view = frame.load()
        expected = torch.from_numpy(scene_files.pixels(index, 4 if name == "blender" else 3)) / 255
        torch.testing.assert_close(view.image, expected[..., :3])
        assert (view.alpha is None) == (name != "blender")
    low, high = scene.bounds
    assert (low < -0.3).all()
    assert (high > 0.3).all()
    assert (high - low).max() < 5


def test_colmap_says_what_it_saw(tmp_path):
    scene_files.write_colmap(tmp_path, scene_files.cameras())
    Image.new("RGB", (16, 12)).save(tmp_path / "images" / "extra.jpg")
    (tmp_path / "images" / "003.png").unlink()
    scene = load_scene(tmp_path)
    assert scene.bounds_from == "points"
    assert scene.points.points.shape == (30, 3)
    assert scene.points.colors[0].tolist() == [1.0, 0.0, 0.0]
    assert scene.missing == ("003.png",)
    assert scene.without_pose == ("extra.jpg",)
    for frame in scene.frames:
        depths = frame.camera.project(scene.points.points)[:, 2]
        assert frame.near <= depths.min() <= depths.max() <= frame.far


@pytest.mark.parametrize(
    ("model", "given", "lens"),
    [
        ((2, "SIMPLE_RADIAL"), (0.1,), Lens.brown([0.1])),
        ((3, "RADIAL"), (0.1, 0.02), Lens.brown([0.1, 0.02])),
        ((4, "OPENCV"), (0.1, 0.02, 0.003, 0.004), Lens.brown([0.1, 0.02], [0.003, 0.004])),
        (
            (6, "FULL_OPENCV"),
            (0.1, 0.02, 0.003, 0.004, 0.05, 0.06, 0.07, 0.08),
            Lens.brown([0.1, 0.02, 0.05], [0.003, 0.004], [0.06, 0.07, 0.08]),
        ),
        ((5, "OPENCV_FISHEYE"), (0.1, 0.02, 0.003, 0.004), Lens.fisheye([0.1, 0.02, 0.003, 0.004])),
        ((9, "RADIAL_FISHEYE"), (0.1, 0.02), Lens.fisheye([0.1, 0.02])),
        ((0, "SIMPLE_PINHOLE"), (), None),
    ],
)
@pytest.mark.parametrize("text", [False, True])
def test_colmap_lenses(tmp_path, model, given, lens, text):
    scene_files.write_colmap(tmp_path, scene_files.cameras(2), model, given, text)
    found = load_scene(tmp_path).frames[0].camera.lens
    if lens is None:
        assert found is None
        return
    assert found.model == lens.model
    for name in ("radial", "tangential", "denominator"):
        torch.testing.assert_close(getattr(found, name), getattr(lens, name))


def test_colmap_lens_that_cannot_be_mapped(tmp_path):
    scene_files.write_colmap(tmp_path, scene_files.cameras(2), (10, "THIN_PRISM_FISHEYE"), (0.0,) * 9)
    with pytest.raises(
        FileFormatError, match="camera 1: its camera model THIN_PRISM_FISHEYE is not supported"
    ):
        load_scene(tmp_path)


def test_the_largest_model_counts(tmp_path):
    scene_files.write_colmap(tmp_path, scene_files.cameras(3))
    (tmp_path / "sparse/0").rename(tmp_path / "sparse/1")
    scene_files.write_colmap(tmp_path, scene_files.cameras(2))
    scene = load_scene(tmp_path)
    assert len(scene.frames) == 3
    assert scene.notes == ("2 models: sparse/1 has the most images, 3",)


def test_nerfstudio_knows_much(tmp_path):
    views = scene_files.cameras(3)
    content = scene_files.write_nerfstudio(
        tmp_path,
        views,
        train_filenames=["images/000.png"],
        val_filenames=["images/001.png"],
        test_filenames=["images/002.png"],
        k1=0.1,
        p2=0.01,
        aabb_scale=2,
    )
    content["frames"][0] |= {
        "camera_model": "OPENCV_FISHEYE",
        "p2": 0.0,
        "mask_path": "masks/0.png",
        "depth_file_path": "depth/0.png",
    }
    mask = np.zeros((12, 16), np.uint8)
    mask[3:] = 255
    scene_files.write_image(tmp_path / "masks/0.png", mask)
    scene_files.write_image(tmp_path / "depth/0.png", np.full((12, 16), 1500, np.uint16))
    scene_files.write_json(tmp_path / "transforms.json", content)
    scene = load_scene(tmp_path / "transforms.json")
    assert [frame.split for frame in scene.frames] == ["train", "val", "test"]
    assert [frame.camera.lens.model for frame in scene.frames] == ["fisheye", "brown", "brown"]
    assert scene.frames[1].camera.lens.tangential.tolist() == pytest.approx([0.0, 0.01])
    view = scene.frames[0].load()
    assert view.mask.sum(1).tolist() == [0] * 3 + [16] * 9
    torch.testing.assert_close(view.depth, torch.full((12, 16), 1.5))
    torch.testing.assert_close(scene.bounds, torch.tensor([[-1.0] * 3, [1.0] * 3]) / 0.33)
    assert scene.bounds_from == "file"


def test_split_files_may_say_as_much_as_one(tmp_path):
    views = scene_files.cameras(2)
    content = scene_files.write_nerfstudio(tmp_path, views, k1=0.1)
    (tmp_path / "transforms.json").unlink()
    scene_files.write_json(tmp_path / "transforms_val.json", content)
    scene = load_scene(tmp_path)
    assert len(scene.split("val")) == 2
    assert_same_camera(scene.frames[0].camera, views[0])
    assert float(scene.frames[0].camera.lens.radial[0]) == pytest.approx(0.1)


def test_distances_become_depths(tmp_path):
    views = scene_files.cameras(1)
    scene_files.write_blender(tmp_path, views, ["test"])
    depth = np.zeros((12, 16, 4), np.uint8)
    depth[4:, :, 0] = 51
    scene_files.write_image(tmp_path / "test/r_0_depth_0000.png", depth)
    scene = load_scene(tmp_path)
    assert scene.frames[0].load().depth is None
    assert "1 depth images are ignored" in scene.notes[0]
    view = load_scene(tmp_path, inverted_depth_range=10.0).frames[0].load()
    assert (view.depth[:4] == 0).all()
    camera = scene.frames[0].camera
    rows, columns = torch.meshgrid(torch.arange(4, 12), torch.arange(16), indexing="ij")
    points = camera.unproject(torch.stack([columns + 0.5, rows + 0.5, view.depth[4:]], -1).flatten(0, 1))
    torch.testing.assert_close((points - camera.position).norm(dim=-1), torch.full((128,), 8.0))


def test_resized_images(tmp_path):
    views = scene_files.cameras(2)
    scene_files.write_nerfstudio(tmp_path, views)
    for i in range(2):
        scene_files.write_image(tmp_path / f"images/00{i}.png", scene_files.pixels(i, 3, (6, 8)))
    scene = load_scene(tmp_path)
    assert_same_camera(scene.frames[0].camera, views[0].resize(6, 8))
    assert scene.notes == ("cameras of 16 × 12 pixels were resized to images of 8 × 6",)


@pytest.mark.parametrize("upright", [False, True])
def test_images_rotated_by_exif(tmp_path, upright):
    """Cameras refer to the stored image, unless their size matches the rotated one."""
    camera = Camera.look_at([0.0, 1, 4], height=20 if upright else 10, width=10 if upright else 20)
    scene_files.write_nerfstudio(tmp_path, [camera])
    stored = scene_files.pixels(0, 3, (10, 20))
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(tmp_path / "images/000.png", exif=exif)
    view = load_scene(tmp_path).frames[0].load()
    expected = np.rot90(stored, -1) if upright else stored
    torch.testing.assert_close(view.image, torch.from_numpy(expected.copy()) / 255)


def test_frames_may_differ(tmp_path):
    views = [scene_files.cameras(1)[0], Camera.look_at([0.0, 1, 4], height=20, width=10)]
    scene_files.write_nerfstudio(tmp_path, views)
    for frame, camera in zip(load_scene(tmp_path).frames, views, strict=True):
        assert_same_camera(frame.camera, camera)
        assert frame.load().image.shape == (camera.height, camera.width, 3)


def test_one_image(tmp_path):
    scene_files.write_nerfstudio(tmp_path, scene_files.cameras(1))
    scene = load_scene(tmp_path)
    assert len(scene.split("train")) == 1
    assert scene.bounds.isfinite().all()


@pytest.mark.skipif(not (SHARED / "fox").exists(), reason="no shared data")
def test_real_scenes():
    chair = load_scene(SHARED / "chair", inverted_depth_range=8)
    assert (len(chair.split("train")), len(chair.split("test")), len(chair.split("val"))) == (100, 25, 0)
    view = chair.split("test")[0].load()
    assert 2.5 < float(view.depth[view.depth > 0].min()) < float(view.depth.max()) < 6
    assert float(((view.depth > 0) == (view.alpha > 0.5)).float().mean()) > 0.99
    fox = load_scene(SHARED / "fox")
    assert (len(fox.frames), len(fox.missing)) == (50, 17)
    assert fox.frames[0].camera.lens.radial[:2].tolist() == pytest.approx([0.0578421, -0.0805099])
    photos, again = load_scene(SHARED / "colmap_photos"), load_scene(SHARED / "colmap_photos", format="llff")
    assert len(photos.frames) == len(again.frames) == 77
    for a, b in zip(photos.frames, again.frames, strict=True):
        torch.testing.assert_close(a.camera.camera_from_world, b.camera.camera_from_world, rtol=0, atol=1e-4)


def test_invalid_input(tmp_path):
    with pytest.raises(MissingFileError, match="no such file or folder"):
        load_scene(tmp_path / "nowhere")
    with pytest.raises(FileFormatError, match="no scene found; expected transforms_train"):
        load_scene(tmp_path)
    with pytest.raises(InputError, match="`format` should be one of auto, blender"):
        load_scene(tmp_path, format="scannet")
    with pytest.raises(InputError, match="`inverted_depth_range` should be positive"):
        load_scene(tmp_path, inverted_depth_range=-1)
