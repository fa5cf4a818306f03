"""Pixels drawn from memory of a GPU."""

import torch
from pretended_gpu import DEVICE, held, pretended_gpu

import unrender


def test_pixels_from_a_gpu_are_those_from_the_cpu(tmp_path):
    scene = unrender.save_demo_scene(tmp_path / "scene", size=24, num_train=4, num_test=1)
    expected = unrender.PixelSource(scene.split("train"), seed=3).draw(40, 4)
    source = unrender.PixelSource(scene.split("train"), seed=3)
    with pretended_gpu() as gpu:
        assert source.move_to(DEVICE)
        gpu.waits.clear()
        found = source.draw(40, 4)
        assert not gpu.waits
    assert torch.equal(held(found.colors), expected.colors)
    assert torch.equal(held(found.alpha), expected.alpha)
    assert torch.equal(held(found.rays.directions), expected.rays.directions)
    assert torch.equal(held(found.frame), expected.frame)
