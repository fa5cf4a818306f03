import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import scene_files
from unrender import (
    CallableField,
    Camera,
    DepthFiles,
    DepthView,
    FitVolume,
    Frame,
    InputError,
    SceneBox,
    clip_to_box,
    fit_volume,
    fuse_depths,
    load_depth_views,
    load_scene,
    measure_depth,
    points_from_views,
    rays_of,
    save_image,
    save_transforms,
    view_consistency,
)
from unrender.cli.main import main
from unrender.data.pixels import PixelSource
from unrender.tasks.depth.view_consistency import sample_depth, unproject_view
from unrender.training.initial_occupancy import find_space

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


def test_pixels_of_panoramas_are_drawn_by_solid_angle(tmp_path):
    """The mean of the squared height of uniform directions on the sphere is 1/3."""
    content = write_panoramas(tmp_path, scene_files.cameras(2))
    scene_files.write_json(tmp_path / "transforms.json", content)
    frames = load_scene(tmp_path).frames
    axis = frames[0].camera.camera_from_world[1, :3]
    drawn = PixelSource(frames[:1]).draw(40_000, patch_size=1).rays.directions @ axis
    assert float(drawn.square().mean()) == pytest.approx(1 / 3, abs=0.01)
    banded = PixelSource(frames, memory_mib=0.03)
    assert banded.is_streaming
    assert bool(banded.draw(100, patch_size=2).valid.all())


def test_scenes_of_panoramas(tmp_path):
    """Colors are directions: each ray has the color of its pixel; masks and depth are read, and cameras written."""
    views = scene_files.cameras(2)
    content = write_panoramas(tmp_path, views, test_filenames=["images/1.png"])
    mask = np.full(SIZE, 255, np.uint8)
    mask[: SIZE[0] // 2] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    np.save(tmp_path / "depth.npy", np.full(SIZE, 2000, np.float32))
    content["frames"][0] |= {"mask_path": "mask.png", "depth_file_path": "depth.npy", "fl_x": 7.0, "cx": 1.0}
    scene_files.write_json(tmp_path / "transforms.json", content)
    scene = load_scene(tmp_path)
    for frame, view in zip(scene.frames, views, strict=True):
        assert frame.camera.projection == "equirectangular"
        torch.testing.assert_close(frame.camera.position, view.position, atol=1e-5, rtol=1e-5)
        expected = (rays_of(frame.camera).directions + 1) / 2
        torch.testing.assert_close(frame.load_image().image, expected, atol=0.01, rtol=0)
    loaded = scene.frames[0].load()
    assert loaded.mask is not None
    assert loaded.depth is not None
    assert not bool(loaded.mask[:31].any())
    assert bool(loaded.mask[33:].all())
    assert bool((loaded.depth == 2).all())
    torch.testing.assert_close(scene.frames[0].load_distance(), loaded.depth)
    save_transforms([scene.frames[1]], tmp_path / "again.json")
    [again] = load_scene(tmp_path / "again.json").frames
    torch.testing.assert_close(again.camera.focal, scene.frames[1].camera.focal)
    torch.testing.assert_close(again.camera.camera_from_world, scene.frames[1].camera.camera_from_world)
    part = dataclasses.replace(again, camera=again.camera.crop(0, 0, height=64, width=64))
    with pytest.raises(InputError, match="its equirectangular camera should cover 360°"):
        save_transforms([part], tmp_path / "part.json")


def write_room(folder, count=6, height=24):
    """Write panoramas of a cubic room of side 2, from inside; colors are positions on the walls."""
    positions = torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    frames = []
    for i, position in enumerate(positions):
        camera = Camera.look_at(position, position + torch.tensor([0.3, 0.1, 1.0]), height=2, width=2)
        rays = rays_of(camera.to_equirectangular(height))
        ends = clip_to_box(rays, torch.full((3,), -1.0), torch.ones(3)).t_far
        hits = rays.origins + ends[..., None] * rays.directions
        save_image(((hits + 1) / 2).clamp(0, 1), folder / f"{i}.png")
        frames.append({"file_path": f"{i}.png", "transform_matrix": camera.to_opengl().tolist()})
    content = {"camera_model": "EQUIRECTANGULAR", "frames": frames, "test_filenames": ["0.png"]}
    scene_files.write_json(folder / "transforms.json", content)


def test_volumes_are_trained_on_panoramas(tmp_path):
    write_room(tmp_path)
    scene = load_scene(tmp_path)
    low, high = scene.bounds
    assert bool((low < -1).all())
    assert bool((high > 1).all())
    config = FitVolume(steps=80, rays=256, resolution=16, space="aabb", degree=0)
    psnrs = [float(step.losses["psnr"]) for step in fit_volume(scene, config)]
    assert sum(psnrs[-10:]) > sum(psnrs[:10]) + 15
    region = find_space(scene, scene.frames, "unbounded", 16)
    assert bool((region.scene_box.center.abs() < 0.5).all())
    assert 0.1 < float(region.scene_box.radius) < 2


def test_360_degree_views_of_a_field(tmp_path):
    from unrender.reports.depth_report import measure_views
    from unrender.runs.views import with_camera_model

    box = SceneBox.cube(torch.zeros(3), 1.0)
    field = CallableField(
        lambda points, _: (50.0 * (points.norm(dim=-1) < 0.5), points.abs()), near=0.0, far=4.0, scene_box=box
    )
    view = Camera.look_at((0.0, 0.2, 1.5), height=8, width=8)
    frame = with_camera_model(Frame("a.png", view, tmp_path / "a.png"), "equirectangular")
    assert (frame.camera.height, frame.camera.width) == (512, 1024)
    camera = frame.camera.resize_longest(64)
    output = field.render(camera)
    depth = measure_depth(field, camera)
    assert abs(float(depth.median_z[16, 32]) - (1.513 - 0.5)) < 0.05
    assert 0 < float(depth.valid.float().mean()) < 0.2
    torch.testing.assert_close(depth.median_z, depth.median_distance)
    found = list(
        measure_views(field, [dataclasses.replace(frame, camera=camera)], tmp_path, DepthFiles(), (0.25, 0.5))
    )
    assert found[0].view.depth.shape == output.opacity.shape == (32, 64)
    [view] = load_depth_views(tmp_path).values()
    assert view.camera.projection == "equirectangular"
    points = unproject_view(view)[0]
    assert torch.equal(sample_depth(view, points).measured, view.depth[view.depth > 0])


def test_what_needs_an_image_plane_refuses_panoramas(tmp_path, capsys):
    write_room(tmp_path, 2, 8)
    assert main(["fit-surface", str(tmp_path), "--output", str(tmp_path / "run")]) == 2
    assert "360° images cannot be projected onto a mesh; split them" in capsys.readouterr().err
    view = DepthView(load_scene(tmp_path).frames[0].camera, torch.ones(8, 16))
    with pytest.raises(InputError, match="should be perspective, got one that is equirectangular"):
        points_from_views([view, view])


def test_meshes_are_fused_from_360_degree_depth(tmp_path):
    """A cubic room of side 2, from true distances."""
    write_room(tmp_path)
    views = []
    for frame in load_scene(tmp_path).frames:
        rays = rays_of(frame.camera.to_equirectangular(48))
        distance = clip_to_box(rays, torch.full((3,), -1.0), torch.ones(3)).t_far
        views.append(DepthView(frame.camera.to_equirectangular(48), distance))
    mesh = fuse_depths(views, voxel_size=0.1)
    off_walls = (mesh.vertices.abs().amax(-1) - 1).abs()
    assert len(off_walls) > 1000
    assert float(off_walls.quantile(0.95)) < 0.03
    assert view_consistency(views)["consistency"] < 0.02
