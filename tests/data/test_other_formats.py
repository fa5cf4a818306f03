import json

import numpy as np
import pytest
import torch

import scene_files
from unrender import FileFormatError, load_scene, quaternion_from_rotation
from unrender.geometry.camera import invert_rigid
from unrender.tasks.scene.inspect_scene import inspect_image


def write_tum(folder, views):
    rgb, depth, poses = ["# color images"], [], ["# ground truth"]
    for i, camera in enumerate(views):
        scene_files.write_image(folder / f"rgb/{i}.5.png", scene_files.pixels(i, 3, (480, 640)))
        scene_files.write_image(folder / f"depth/{i}.png", np.full((480, 640), 7500, np.uint16))
        pose = invert_rigid(camera.camera_from_world.double())
        w, x, y, z = quaternion_from_rotation(pose[:3, :3]).tolist()
        rgb.append(f"{i}.5000 rgb/{i}.5.png")
        depth.append(f"{i}.4900 depth/{i}.png")
        poses.append(f"{i}.5101 {' '.join(map(str, pose[:3, 3].tolist()))} {x} {y} {z} {w}")
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", poses)):
        (folder / f"{name}.txt").write_text("\n".join(lines))


def test_tum(tmp_path):
    folder = tmp_path / "rgbd_dataset_freiburg1_desk"
    folder.mkdir()
    views = scene_files.cameras(3)
    write_tum(folder, views)
    with (folder / "rgb.txt").open("a") as file:
        file.write("\n9.5 rgb/0.5.png\n9.7 rgb/none.png")
    scene = load_scene(folder)
    assert (scene.missing, scene.without_pose, scene.notes) == (("rgb/none.png",), ("rgb/0.5.png",), ())
    for frame, camera in zip(scene.frames, views, strict=True):
        torch.testing.assert_close(
            frame.camera.camera_from_world, camera.camera_from_world, atol=1e-5, rtol=1e-5
        )
        assert frame.camera.focal.tolist() == pytest.approx([517.3, 516.5])
        assert frame.camera.center.tolist() == pytest.approx([319.1, 255.8])
        assert float(frame.load().depth.max()) == pytest.approx(1.5)
    poses = folder / "groundtruth.txt"
    poses.write_text(poses.read_text().replace("0.5101 ", "0.5101 x "))
    with pytest.raises(FileFormatError, match=r"rgb/0\.5\.png: its pose should be tx ty tz qx qy qz qw"):
        load_scene(folder)


def test_tum_of_another_camera_says_what_is_assumed(tmp_path):
    write_tum(tmp_path, scene_files.cameras(2))
    scene = load_scene(tmp_path)
    assert scene.frames[0].camera.focal.tolist() == [525, 525]
    assert "assumed a focal length of 525 pixels" in scene.notes[0]


def write_bop(folder, views):
    cameras = {}
    for i, camera in enumerate(views):
        scene_files.write_image(folder / f"rgb/{i:06d}.png", scene_files.pixels(i))
        scene_files.write_image(folder / f"depth/{i:06d}.png", np.full((12, 16), 8000, np.uint16))
        (fx, fy), (cx, cy) = camera.focal.tolist(), (camera.center - 0.5).tolist()
        pose = camera.camera_from_world.double()
        cameras[str(i)] = {
            "cam_K": [fx, 0, cx, 0, fy, cy, 0, 0, 1],
            "cam_R_w2c": pose[:3, :3].flatten().tolist(),
            "cam_t_w2c": (pose[:3, 3] * 1000).tolist(),
            "depth_scale": 0.1,
        }
    scene_files.write_json(folder / "scene_camera.json", cameras)
    return cameras


def test_bop(tmp_path):
    views = scene_files.cameras(3)
    cameras = write_bop(tmp_path, views)
    scene = load_scene(tmp_path)
    for frame, camera in zip(scene.frames, views, strict=True):
        torch.testing.assert_close(frame.camera.focal, camera.focal)
        torch.testing.assert_close(frame.camera.center, camera.center)
        torch.testing.assert_close(frame.camera.position / 1000, camera.position, atol=1e-4, rtol=1e-4)
        assert float(frame.load().depth.max()) == 800
    del cameras["1"]["cam_R_w2c"]
    scene_files.write_json(tmp_path / "scene_camera.json", cameras)
    with pytest.raises(FileFormatError, match=r"rgb/000001\.png: no pose of the camera .*find-pose"):
        load_scene(tmp_path)
    (tmp_path / "scene_camera.json").write_text("[1]")
    with pytest.raises(FileFormatError, match="a camera for each image ID"):
        load_scene(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["keyframes/images/1.jpg"], "Polycam; convert it with nerfstudio: `ns-process-data polycam"),
        (["metadata.json", "rgb/0.jpg"], "ns-process-data record3d"),
        (["velodyne/000000.bin"], "KITTI"),
        (["a.jpg", "b.jpg"], "unrender import .* --output scene"),
        (["images/a.jpg"], "unrender import .*images --output scene"),
        (["notes.txt"], "expected transforms_train.json"),
    ],
)
def test_folders_that_are_not_read_name_the_command(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(FileFormatError, match=message):
        load_scene(tmp_path)


def test_folders_that_are_not_used_are_named(tmp_path):
    content = scene_files.write_nerfstudio(tmp_path, scene_files.cameras(3))
    for folder in ("masks", "depths"):
        for i in range(3):
            scene_files.write_image(tmp_path / folder / f"{i}.png", np.full((12, 16), 255, np.uint8))
    assert [note.partition(" is")[0] for note in load_scene(tmp_path).notes] == [
        "the folder depths with 3 files",
        "the folder masks with 3 files",
    ]
    for i, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"masks/{i}.png"
    scene_files.write_json(tmp_path / "transforms.json", content)
    assert len(load_scene(tmp_path).notes) == 1


def test_an_inverted_mask_is_reported(tmp_path):
    content = scene_files.write_nerfstudio(tmp_path, scene_files.cameras(1))
    image = scene_files.pixels(0, 4)
    image[..., 3] = 0
    image[3:9, 4:12, 3] = 255
    scene_files.write_image(tmp_path / "images/000.png", image)
    scene_files.write_image(tmp_path / "mask.png", 255 - image[..., 3])
    content["frames"][0]["mask_path"] = "mask.png"
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    assert "its mask hides the opaque part" in inspect_image(load_scene(tmp_path).frames[0]).problem
    scene_files.write_image(tmp_path / "mask.png", image[..., 3])
    assert inspect_image(load_scene(tmp_path).frames[0]).problem is None
