import numpy as np
import pytest
import torch
from PIL import Image

import scene_files
from unrender import FileFormatError, load_scene, rays_of
from unrender.cli.main import main

SIZE = (64, 128)


def write_panoramas(folder, views, **extra):
    """Write panoramas whose colors are the directions in the world."""
    rows, columns = ((np.arange(n) + 0.5) / n for n in SIZE)
    longitude, latitude = np.meshgrid((columns - 0.5) * 2 * np.pi, (0.5 - rows) * np.pi)
    camera_axes = np.stack(
        [np.sin(longitude) * np.cos(latitude), -np.sin(latitude), np.cos(longitude) * np.cos(latitude)], -1
    )
    frames = []
    for i, camera in enumerate(views):
        world = camera_axes @ camera.camera_from_world[:3, :3].numpy()
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(np.rint((world + 1) * 127.5).astype(np.uint8)).save(folder / f"images/{i}.png")
        frames.append({"file_path": f"images/{i}.png", "transform_matrix": camera.to_opengl().tolist()})
    content = {"camera_model": "EQUIRECTANGULAR", "frames": frames, **extra}
    scene_files.write_json(folder / "transforms.json", content)
    return content


def test_panoramas_become_perspective_views(tmp_path, capsys):
    panoramas = tmp_path / "panoramas"
    panoramas.mkdir()
    views = scene_files.cameras(2)
    content = write_panoramas(panoramas, views, test_filenames=["images/1.png"])
    with pytest.raises(
        FileFormatError, match=r"EQUIRECTANGULAR is not supported; split the panoramas .*`unrender imp"
    ):
        load_scene(panoramas)
    assert main(["import", str(panoramas), "--output", str(tmp_path / "scene")]) == 0
    assert "split 2 panoramas into 12 perspective views" in capsys.readouterr().out
    scene = load_scene(tmp_path / "scene")
    assert [frame.split for frame in scene.frames] == ["train"] * 6 + ["test"] * 6
    for frame in scene.frames:
        view = views[int(frame.name.split("/")[1][0])]
        torch.testing.assert_close(frame.camera.position, view.position, atol=1e-5, rtol=1e-5)
        colors = frame.load().image
        assert colors.shape == (32, 32, 3)
        expected = (rays_of(frame.camera).directions + 1) / 2
        assert float((colors - expected).abs().mean()) < 0.01
        assert float((colors - expected).abs().max()) < 0.06
    content["frames"][0]["camera_model"] = "OPENCV"
    scene_files.write_json(panoramas / "transforms.json", content)
    assert main(["import", str(panoramas), "--output", str(tmp_path / "mixed")]) == 2
    assert "not all frames are EQUIRECTANGULAR" in capsys.readouterr().err


def test_images_of_another_shape_are_no_panoramas(tmp_path, capsys):
    write_panoramas(tmp_path, scene_files.cameras(1))
    Image.new("RGB", (100, 60)).save(tmp_path / "images/0.png")
    assert main(["import", str(tmp_path), "--output", str(tmp_path / "scene")]) == 2
    assert "should be twice as wide as high, got 100 × 60" in capsys.readouterr().err


def test_masks_and_depth_of_panoramas_are_split_too(tmp_path):
    panoramas = tmp_path / "panoramas"
    panoramas.mkdir()
    (view,) = scene_files.cameras(1)
    content = write_panoramas(panoramas, [view])
    mask = np.full(SIZE, 255, np.uint8)
    mask[:, SIZE[1] // 2 :] = 0  # the right half of the panorama
    Image.fromarray(mask).save(panoramas / "mask.png")
    np.save(
        panoramas / "depth.npy", np.full(SIZE, 2000, np.float32)
    )  # a sphere of radius 2 around the camera
    content["frames"][0] |= {"mask_path": "mask.png", "depth_file_path": "depth.npy"}
    scene_files.write_json(panoramas / "transforms.json", content)
    assert main(["import", str(panoramas), "--output", str(tmp_path / "scene")]) == 0
    frames = {frame.name.rpartition("_")[2]: frame.load() for frame in load_scene(tmp_path / "scene").frames}
    assert len(frames) == 6
    assert frames["left.jpg"].mask.all()
    assert not frames["right.jpg"].mask.any()
    assert torch.equal(frames["front.jpg"].mask[:, :16], torch.ones(32, 16, dtype=torch.bool))
    for frame in load_scene(tmp_path / "scene").frames:
        torch.testing.assert_close(frame.load_distance(), torch.full((32, 32), 2.0), atol=1e-4, rtol=0)


def test_files_of_panoramas_that_do_not_exist_are_said(tmp_path, caplog):
    content = write_panoramas(tmp_path, scene_files.cameras(1))
    content["frames"][0]["mask_path"] = "no.png"
    scene_files.write_json(tmp_path / "transforms.json", content)
    assert main(["import", str(tmp_path), "--output", str(tmp_path / "scene")]) == 0
    assert "files listed as 'mask_path' do not exist and are ignored; the first is no.png" in caplog.text
