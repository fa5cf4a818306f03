"""Rays along which it is known how far it is."""

import dataclasses

import numpy as np
import pytest
import torch

import scene_files
from unrender import Camera, FileFormatError, load_scene
from unrender.data import depth_supervision
from unrender.data.depth_supervision import DepthSupervision
from unrender.data.frames import Frame
from unrender.io.depth import DepthFile


def frame_with_depth(folder, kind="z", alpha=255, mask=False):
    """A frame that looks along z at a wall in a depth of 2, which its lower half does not know."""
    pixels = np.full((6, 8, 4), 255, np.uint8)
    pixels[..., 3] = alpha
    scene_files.write_image(folder / "image.png", pixels)
    camera = Camera(torch.tensor([8.0, 8.0]), torch.tensor([4.0, 3.0]), torch.eye(4), 6, 8)
    depth = np.full((6, 8), 2.0, np.float32)
    depth[3:] = 0
    np.save(folder / "depth.npy", depth)
    if mask:
        white = np.zeros((6, 8), np.uint8)
        white[:, 4:] = 255
        scene_files.write_image(folder / "mask.png", white)
    return Frame(
        "image.png",
        camera,
        folder / "image.png",
        mask_path=folder / "mask.png" if mask else None,
        depth_file=DepthFile(folder / "depth.npy", 1.0, kind),
    )


def drawn(known, count=2000):
    return known.draw(count, torch.Generator().manual_seed(0))


def test_depth_images_become_distances(tmp_path):
    known = DepthSupervision([frame_with_depth(tmp_path)])
    assert len(known) == 24
    rays, distances = drawn(known)
    torch.testing.assert_close(distances * rays.directions[:, 2], torch.full((2000,), 2.0))
    assert len(rays.directions.unique(dim=0)) == 24
    along = DepthSupervision([frame_with_depth(tmp_path, "distance")])
    torch.testing.assert_close(drawn(along).distances, torch.full((2000,), 2.0))


def test_pixels_that_are_masked_or_covered_in_part_are_left_out(tmp_path):
    assert len(DepthSupervision([frame_with_depth(tmp_path, mask=True)])) == 12
    assert len(DepthSupervision([frame_with_depth(tmp_path, alpha=254)])) == 0


def test_nothing_is_drawn_where_nothing_is_known(tmp_path):
    known = DepthSupervision([dataclasses.replace(frame_with_depth(tmp_path), depth_file=None)])
    assert len(known) == 0
    assert len(drawn(known).distances) == 0


def test_large_depth_sets_are_sampled_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(depth_supervision, "MAX_DEPTHS", 20)
    frame = frame_with_depth(tmp_path)
    assert len(DepthSupervision([frame, frame])) == 20


@pytest.mark.parametrize("text", [False, True])
def test_colmap_points_are_sparse_depth(tmp_path, text):
    scene_files.write_colmap(tmp_path, scene_files.cameras(), text=text)
    scene = load_scene(tmp_path)
    known = DepthSupervision(scene.frames)
    rays, distances = drawn(known)
    ends = rays.origins + distances[:, None] * rays.directions
    assert torch.cdist(ends.double(), scene.points.points.double()).amin(1).max() < 1e-4
    assert len(known) == sum(len(frame.points) for frame in scene.frames) > 0


def test_depth_of_another_size_is_resampled(tmp_path):
    frame = frame_with_depth(tmp_path)
    np.save(tmp_path / "depth.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    found = frame.load().depth
    assert found.shape == (6, 8)
    assert torch.equal(found[::2, ::2], torch.arange(12.0).reshape(3, 4))
    assert torch.equal(found[1::2, 1::2], found[::2, ::2])
    np.save(tmp_path / "depth.npy", np.ones((5, 4), np.float32))
    with pytest.raises(FileFormatError, match=r"a depth image has \[5, 4\] pixels"):
        frame.load()
