import pytest
import torch

from unrender import Camera, InputError, ico_sphere, render_mesh
from unrender.tasks.volume.tutorial import as_volume, fit_tutorial_volume, render_alphas


def scene(views: int = 6):
    angles = torch.arange(views) / views * 2 * torch.pi
    eyes = torch.stack([2.7 * angles.sin(), torch.zeros(views), 2.7 * angles.cos()], -1)
    cameras = Camera.look_at(eyes, fov_degrees=60.0, height=20, width=20)
    ball = ico_sphere(2)
    ball = ball.replace(vertices=0.6 * ball.vertices, vertex_colors=(ball.vertices + 1) / 2)
    rgba = torch.stack([render_mesh(ball, cameras[i], background=None) for i in range(views)])
    return rgba[..., :3] * rgba[..., 3:], rgba[..., 3], cameras


def test_losses_fall_and_the_same_seed_gives_the_same_numbers():
    images, silhouettes, cameras = scene()
    runs = [list(fit_tutorial_volume(images, silhouettes, cameras, size=16, steps=25)) for _ in range(2)]
    first, last = runs[0][0], runs[0][-1]
    assert first.last_index == last.index == 24
    assert sum(last.losses.values()) < 0.3 * sum(first.losses.values())
    assert last.losses == runs[1][-1].losses
    assert torch.equal(last.volume.density, runs[1][-1].volume.density)


def test_the_volume_is_where_it_was_fitted():
    grid = torch.rand(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    camera = Camera.look_at([0.0, 0.4, 2.7], fov_degrees=60.0, height=9, width=9)
    seen = render_alphas(grid, camera)
    assert seen.color.shape == (9, 9, 3)
    volume = as_volume(grid)
    points = torch.tensor([[-1.125, -1.125, -1.125], [1.125, 0.375, -0.375]])
    assert torch.allclose(volume(points)[0], torch.stack([grid[0, 0, 0, 0], grid[1, 2, 3, 0]]))


def test_every_picture_needs_its_camera():
    images, silhouettes, cameras = scene()
    with pytest.raises(InputError, match="one for each of 5 images"):
        fit_tutorial_volume(images[:5], silhouettes[:5], cameras)
