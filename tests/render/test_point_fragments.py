import pytest
import torch

from unrender import Camera, PointCloud, composite_points, rasterize_points
from unrender.errors import InputError

CAMERA = Camera.look_at(torch.tensor([0.0, 0, -4]), fov_degrees=60, height=24, width=32)


def test_composites_front_to_back():
    points = torch.tensor([[0.01, 0.01, 0.0], [0.01, 0.01, 1.0]])
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    fragments = rasterize_points(PointCloud(points), CAMERA, 3.0, layers=2)
    image = composite_points(fragments, colors, 3.0)
    row, column = divmod(
        int(fragments.squared_distance[..., 0].masked_fill(fragments.point_ids[..., 0] < 0, 9).argmin()), 32
    )
    first, second = 1 - fragments.squared_distance[row, column] / 9
    expected = torch.stack([first, (1 - first) * second, torch.zeros(()), 1 - (1 - first) * (1 - second)])
    torch.testing.assert_close(image[row, column], expected)
    assert not image[0, 0].any()


def test_gradients_move_points_and_colors():
    torch.manual_seed(0)
    points = (torch.rand(50, 3) - 0.5).requires_grad_()
    colors = torch.rand(50, 3, requires_grad=True)
    radii = 1 + torch.rand(50)
    fragments = rasterize_points(PointCloud(points), CAMERA, radii)
    composite_points(fragments, colors, 2.0).square().sum().backward()
    assert points.grad.isfinite().all()
    assert points.grad.any()
    assert colors.grad.isfinite().all()
    assert colors.grad.any()


def test_batches_of_features():
    points = torch.rand(2, 20, 3) - 0.5
    fragments = rasterize_points(PointCloud(points), CAMERA)
    features = torch.rand(2, 20, 5)
    images = composite_points(fragments, features)
    torch.testing.assert_close(images[1], composite_points(fragments[1], features[1]))
    assert composite_points(
        rasterize_points(PointCloud(torch.zeros(0, 3)), CAMERA), torch.zeros(0, 2)
    ).shape == (24, 32, 3)
    with pytest.raises(InputError, match="one size"):
        rasterize_points(PointCloud(points, lengths=torch.tensor([20, 3])), CAMERA)
