import torch

from unrender import Camera, rays_of
from unrender.render.colormaps import EMPTY, distance_colors, normal_colors


def test_a_plane_has_its_normal_everywhere():
    camera = Camera.look_at([0.5, 0.4, -3.0], fov_degrees=40, height=20, width=30)
    rays = rays_of(camera)
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, -1.0]), dim=0)
    distance = -(rays.origins @ normal) / (rays.directions @ normal)  # the plane through the origin
    colors = normal_colors(distance, torch.ones(20, 30), camera)
    torch.testing.assert_close(2 * colors - 1, normal.expand(20, 30, 3), atol=1e-4, rtol=0)


def test_emptiness_is_blue():
    camera = Camera.look_at([0.0, 0.0, -3.0], fov_degrees=40, height=4, width=5)
    nothing = torch.zeros(4, 5)
    blue = torch.tensor(EMPTY).expand(4, 5, 3)
    torch.testing.assert_close(normal_colors(nothing, nothing, camera), blue)
    torch.testing.assert_close(distance_colors(nothing, nothing), blue)
    row = camera.crop(0, 0, height=1, width=5)
    assert normal_colors(torch.ones(1, 5), torch.ones(1, 5), row).shape == (1, 5, 3)


def test_what_is_far_is_bright():
    distance = torch.linspace(1, 9, 12).view(3, 4)
    grey = distance_colors(distance, torch.ones(3, 4))
    assert bool((grey == grey[..., :1]).all())
    assert grey[..., 0].flatten().tolist() == sorted(grey[..., 0].flatten().tolist())
