import dataclasses

import pytest
import torch

from unrender import (
    Camera,
    InputError,
    Lens,
    closest_on_mesh,
    load_scene,
    render_silhouette,
    save_demo_scene,
    save_transforms,
)
from unrender.geometry.demo_object import demo_object


def test_demo_scene_is_what_its_cameras_see(tmp_path):
    scene = save_demo_scene(tmp_path / "scene", size=48, num_train=3, num_test=2)
    assert [len(scene.split(name)) for name in ("train", "val", "test")] == [3, 0, 2]
    mesh = demo_object()
    low, high = scene.bounds
    assert (mesh.vertices > low).all()
    assert (mesh.vertices < high).all()
    for frame in scene.frames:
        view = frame.load()
        silhouette = render_silhouette(mesh, frame.camera, blur=0.5)
        assert float((view.alpha - silhouette).abs().mean()) < 0.03
        assert 0.1 < float(view.alpha.mean()) < 0.6
        assert (view.depth[view.alpha == 1] > 0).all()
        assert (view.depth[view.alpha == 0] == 0).all()
        assert (view.image[view.alpha == 0] == 0).all()


def test_the_surface_is_where_the_depth_says(tmp_path):
    scene = save_demo_scene(tmp_path, size=40, num_train=2, num_test=0)
    frame = scene.frames[0]
    depth = frame.load().depth
    rows, columns = (depth > 0).nonzero().unbind(-1)
    points = frame.camera.unproject(torch.stack([columns + 0.5, rows + 0.5, depth[rows, columns]], -1))
    mesh = demo_object()
    assert float(closest_on_mesh(points, mesh.vertices, mesh.faces).squared_distances.max()) < 1e-10


def test_cameras_survive_writing(tmp_path):
    scene = save_demo_scene(tmp_path, size=8, num_train=2, num_test=1)
    lenses = [Lens.brown([0.1, 0.2, 0.3, 0.4], [0.01, 0.02]), Lens.fisheye([0.1]), None]
    frames = [
        dataclasses.replace(frame, camera=frame.camera.replace(lens=lens))
        for frame, lens in zip(scene.frames, lenses, strict=True)
    ]
    save_transforms(frames, tmp_path / "other.json")
    again = load_scene(tmp_path / "other.json")
    for a, b in zip(frames, again.frames, strict=True):
        torch.testing.assert_close(a.camera.camera_from_world, b.camera.camera_from_world)
        torch.testing.assert_close(a.camera.focal, b.camera.focal)
        assert (a.split, a.depth_file) == (b.split, b.depth_file)
        assert (a.camera.lens is None) == (b.camera.lens is None)
        if a.camera.lens is not None:
            assert a.camera.lens.model == b.camera.lens.model
            torch.testing.assert_close(a.camera.lens.radial, b.camera.lens.radial)
            torch.testing.assert_close(a.camera.lens.tangential, b.camera.lens.tangential)


def test_invalid_input(tmp_path):
    with pytest.raises(InputError, match="`size` and `num_train` should be at least 1"):
        save_demo_scene(tmp_path, num_train=0)
    frame = save_demo_scene(tmp_path, size=8, num_train=1, num_test=0).frames[0]
    lens = Lens.brown(denominator=[0.1])
    with pytest.raises(InputError, match="no lens with a denominator"):
        save_transforms(
            [dataclasses.replace(frame, camera=frame.camera.replace(lens=lens))], tmp_path / "a.json"
        )
    flat = Camera.look_at([0.0, 0, 3], view_height=1.0, height=8, width=8)
    with pytest.raises(InputError, match="should be a single perspective or equirectangular camera"):
        save_transforms([dataclasses.replace(frame, camera=flat)], tmp_path / "a.json")
