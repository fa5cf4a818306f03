from pathlib import Path

import numpy as np
import pytest
import torch

import scene_files
from unrender import Camera, InputError, Lens, PixelSource, load_scene, rays_through
from unrender.data.pixel_rays import PixelRays

SHARED = Path(__file__).parents[3] / "shared/data"


def frames_of(folder, views, **extra):
    scene_files.write_nerfstudio(folder, views, **extra)
    return load_scene(folder).frames


def centers_of(batch, frames, shrink=1):
    """Find each pixel again by projecting a point of its ray."""
    points = batch.rays.origins + 2 * batch.rays.directions
    found = torch.empty(len(points), 2)
    for index, frame in enumerate(frames):
        here = batch.frame == index
        found[here] = frame.camera.project(points[here])[:, :2] / shrink
    return found


@pytest.mark.parametrize("lens", [{}, {"k1": 0.05, "p1": 0.01}])
def test_pixels_have_their_colors_and_rays(tmp_path, lens):
    frames = frames_of(tmp_path, scene_files.cameras(5), **lens)
    source = PixelSource(frames, seed=3)
    batch = source.draw(20, 3)
    assert batch.colors.shape == (180, 3)
    assert batch.alpha is None
    assert batch.valid.all()
    assert not source.is_streaming
    centers = centers_of(batch, frames)
    torch.testing.assert_close(centers.frac(), torch.full((180, 2), 0.5), rtol=0, atol=1e-3)
    for index, frame in enumerate(frames):
        here = batch.frame == index
        x, y = centers[here].floor().long().unbind(-1)
        torch.testing.assert_close(batch.colors[here], frame.load().image[y, x])
        exact = rays_through(frame.camera, torch.stack([x, y], -1) + 0.5)
        torch.testing.assert_close(batch.rays.directions[here], exact.directions, rtol=0, atol=1e-6)
        torch.testing.assert_close(batch.rays.origins[here], exact.origins, rtol=0, atol=1e-6)
    steps = centers.reshape(20, 3, 3, 2) - centers.reshape(20, 3, 3, 2)[:, :1, :1]
    expected = torch.stack(torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="xy"), -1)
    torch.testing.assert_close(steps, expected.expand(20, 3, 3, 2), rtol=0, atol=1e-3)


def test_every_pixel_is_drawn_and_large_pictures_more_often(tmp_path):
    views = [
        scene_files.cameras(1)[0],
        Camera.look_at([0.0, 1, 4], height=24, width=16).replace(lens=Lens.brown([0.1])),
    ]
    scene_files.write_nerfstudio(tmp_path, views)
    source = PixelSource(load_scene(tmp_path).frames)
    batch = source.draw(30000, 1)
    share = (batch.frame == 1).float().mean()
    assert float(share) == pytest.approx(24 / 36, abs=0.02)
    assert len(batch.rays.directions[batch.frame == 0].unique(dim=0)) == 12 * 16
    assert len(batch.rays.directions[batch.frame == 1].unique(dim=0)) == 24 * 16


def test_the_seed_decides(tmp_path):
    frames = frames_of(tmp_path, scene_files.cameras(5))
    draws = [PixelSource(frames, seed=seed).draw(10).colors for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_alpha_and_masks(tmp_path):
    content = scene_files.write_nerfstudio(tmp_path, scene_files.cameras(2), channels=4)
    mask = np.zeros((12, 16), np.uint8)
    mask[:6] = 255
    scene_files.write_image(tmp_path / "mask.png", mask)
    content["frames"][0]["mask_path"] = "mask.png"
    scene_files.write_json(tmp_path / "transforms.json", content)
    frames = load_scene(tmp_path).frames
    batch = PixelSource(frames).draw(200, 2)
    y = centers_of(batch, frames)[:, 1]
    assert torch.equal(batch.valid, (batch.frame == 1) | (y < 6))
    allowed = torch.stack([frame.load().alpha for frame in frames]).unique()
    assert torch.isin(batch.alpha, allowed).all()
    shrunk = PixelSource(frames, shrink=4).draw(200, 1)  # rows 4 to 7 are half of each
    assert torch.equal(shrunk.valid, (shrunk.frame == 1) | (centers_of(shrunk, frames)[:, 1] < 4))


@pytest.mark.parametrize("channels", [3, 4])
def test_shrunk_pixels_are_means(tmp_path, channels):
    views = [camera.replace(height=13, width=18) for camera in scene_files.cameras(2)]
    scene_files.write_nerfstudio(tmp_path, views, channels)
    frames = load_scene(tmp_path).frames
    batch = PixelSource(frames, shrink=4).draw(300, 2)
    center = centers_of(batch, frames, 4)
    torch.testing.assert_close(center.frac(), torch.full_like(center, 0.5), rtol=0, atol=1e-3)
    assert int(center[:, 0].max()) == 3
    assert int(center[:, 1].max()) == 2
    for index, frame in enumerate(frames):
        view, here = frame.load(), batch.frame == index
        x, y = center[here].floor().long().unbind(-1)
        alpha = torch.ones(13, 18) if view.alpha is None else view.alpha
        blocks = torch.cat([view.image * alpha[..., None], alpha[..., None]], -1)[:12, :16]
        means = blocks.reshape(3, 4, 4, 4, 4).mean((1, 3))
        torch.testing.assert_close(
            batch.colors[here], (means[..., :3] / means[..., 3:])[y, x], rtol=0, atol=1e-4
        )
        if channels == 4:
            torch.testing.assert_close(batch.alpha[here], means[..., 3][y, x], rtol=0, atol=1e-4)


def test_a_scene_larger_than_memory_takes_turns(tmp_path):
    views = [camera.resize(60, 80) for camera in scene_files.cameras(6)]
    frames = frames_of(tmp_path, views)
    budget = 0.04  # MiB: all would take 0.11
    source, again = (PixelSource(frames, memory_mib=budget, seed=5) for _ in range(2))
    assert source.is_streaming
    assert source._store.numel() * 4 <= budget * 2**20
    images = torch.stack([frame.load().image for frame in frames])
    seen = set()
    for i in range(200):
        batch = source.draw(20, 2)
        assert torch.equal(batch.colors, again.draw(20, 2).colors)
        seen |= set(batch.frame.tolist())
        if i % 50 == 0:
            x, y = centers_of(batch, frames).long().unbind(-1)
            torch.testing.assert_close(batch.colors, images[batch.frame, y, x])
    assert seen == set(range(6))


@pytest.mark.parametrize("memory", [0.3, 4.0])
def test_a_source_with_other_memory_goes_on(tmp_path, memory):
    frames = frames_of(tmp_path, [camera.resize(120, 160) for camera in scene_files.cameras()])
    before = PixelSource(frames, memory_mib=0.2)
    before.draw(8)
    other = PixelSource(frames, memory_mib=memory)
    other.restore(before.state())
    for _ in range(9):
        batch = other.draw(50, 1)
        x, y = centers_of(batch, frames).long().unbind(-1)
        for number, row, column, color in zip(batch.frame.tolist(), y, x, batch.colors, strict=True):
            assert torch.equal(color, frames[number].load().image[row, column])


def test_grey_of_16_bits_keeps_them(tmp_path):
    content = scene_files.write_nerfstudio(tmp_path, scene_files.cameras(1))
    deep = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 300 + 7
    scene_files.write_image(tmp_path / content["frames"][0]["file_path"], deep)
    colors = PixelSource(load_scene(tmp_path).frames).draw(4000, 1).colors
    assert (colors[:, 0] == colors[:, 2]).all()
    torch.testing.assert_close(colors[:, 0].unique(), torch.from_numpy(deep.ravel() / 65535).float())


def test_alpha_of_nothing_is_nothing(tmp_path):
    content = scene_files.write_nerfstudio(tmp_path, scene_files.cameras(1), 4)
    scene_files.write_image(tmp_path / content["frames"][0]["file_path"], np.zeros((12, 16, 4), np.uint8))
    for shrink in (1, 2):
        batch = PixelSource(load_scene(tmp_path).frames, shrink=shrink).draw(5, 2)
        assert not batch.alpha.any()
        assert batch.colors.isfinite().all()


def test_what_the_lens_cannot_see_is_not_valid(tmp_path):
    frames = frames_of(tmp_path, scene_files.cameras(2), k1=-1.0)
    batch = PixelSource(frames).draw(400, 1)
    assert 0 < int(batch.valid.sum()) < 400
    assert batch.rays.directions[batch.valid].isfinite().all()


@pytest.mark.parametrize("kind", ["mild", "strong", "fisheye", "mixed"])
def test_lenses_of_each_frame(kind):
    lenses = {
        "mild": [Lens.brown([0.05 + 0.01 * i, -0.02], [0.001, 0.002 * i]) for i in range(4)],
        "strong": [Lens.brown([-0.5 - 0.2 * i]) for i in range(4)],
        "fisheye": [Lens.fisheye([0.01 * i]) for i in range(4)],
        "mixed": [None, Lens.brown([0.1]), Lens.fisheye(), Lens.brown([0.2])],
    }[kind]
    views = [c.replace(lens=lens) for c, lens in zip(scene_files.cameras(4), lenses, strict=True)]
    rays = PixelRays(views, memory=0)
    x, y = torch.meshgrid(torch.arange(16), torch.arange(12), indexing="xy")
    pixels = torch.stack([x, y], -1).flatten(0, 1) + 0.5
    for index, camera in enumerate(views):
        frame = torch.full((12,), index)
        found, exact = rays.through(frame, x, y), rays_through(camera, pixels)
        torch.testing.assert_close(found.origins, exact.origins)
        torch.testing.assert_close(found.directions, exact.directions, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.skipif(not (SHARED / "fox").exists(), reason="no shared data")
def test_real_rays_are_exact():
    frames = load_scene(SHARED / "fox").split("test")[:2]
    batch = PixelSource(frames).draw(50, 4)
    for index, frame in enumerate(frames):
        here = batch.frame == index
        directions = batch.rays.directions[here]
        points = batch.rays.origins[here] + 5 * directions
        pixels = frame.camera.project(points)[:, :2].sub(0.5).round() + 0.5
        exact = rays_through(frame.camera, pixels).directions
        torch.testing.assert_close(directions, exact, rtol=0, atol=1e-6)


def test_says_what_is_wrong(tmp_path):
    frames = frames_of(tmp_path, scene_files.cameras(2))
    with pytest.raises(InputError, match="there are no frames"):
        PixelSource([])
    with pytest.raises(InputError, match=r"`shrink` should be one of \(1, 2, 4, 8, 16\), got 3"):
        PixelSource(frames, shrink=3)
    with pytest.raises(InputError, match=r"frame images/000.png has 12 × 16 pixels, too few"):
        PixelSource(frames, shrink=16)
    with pytest.raises(InputError, match="raise `memory_mib`"):
        PixelSource(frames, memory_mib=1e-5)
    with pytest.raises(InputError, match="patches of 13 × 13 do not fit"):
        PixelSource(frames).draw(5, 13)
