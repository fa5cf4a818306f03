import pytest
import torch

from unrender import enclosed_volume, ico_sphere, marching_cubes, smooth_taubin
from unrender.errors import InputError


def test_removes_noise_and_keeps_volume():
    torch.manual_seed(0)
    ball = ico_sphere(3)
    noisy = ball.replace(vertices=ball.vertices + 0.02 * torch.randn_like(ball.vertices))
    smooth = smooth_taubin(noisy)
    radii = [mesh.vertices.norm(dim=-1).std() for mesh in (noisy, smooth)]
    assert radii[1] < 0.6 * radii[0]
    assert float(enclosed_volume(smooth)) == pytest.approx(float(enclosed_volume(noisy)), rel=0.03)


def test_loose_vertices_stay_and_gradients_are_finite():
    ball = ico_sphere(0)
    vertices = torch.cat([ball.vertices, ball.vertices[:1], torch.full((1, 3), 5.0)]).requires_grad_()
    smooth = smooth_taubin(ball.replace(vertices=vertices), 2)
    assert torch.equal(smooth.vertices[-1], vertices[-1])
    smooth.vertices.sum().backward()
    assert vertices.grad.isfinite().all()
    with pytest.raises(InputError, match="`steps`"):
        smooth_taubin(ball, -1)


def test_marching_cubes_of_a_sphere():
    axes = [torch.linspace(-1, 1, n) for n in (20, 24, 30)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    mesh = marching_cubes(0.8 - torch.stack([x, y, z], -1).norm(dim=-1), 0.0)
    points = mesh.vertices * 2 / torch.tensor([29.0, 23, 19]) - 1
    torch.testing.assert_close(points.norm(dim=-1), torch.full((len(points),), 0.8), atol=0.01, rtol=0)
    assert float(enclosed_volume(mesh.replace(vertices=points))) == pytest.approx(
        4 / 3 * 3.1416 * 0.8**3, rel=0.02
    )
    assert len(marching_cubes(torch.zeros(3, 3, 3), 0.5).faces) == 0
    with pytest.raises(InputError, match="at least 2 along each axis"):
        marching_cubes(torch.zeros(1, 3, 3), 0.5)
