"""Rendering of point clouds, with values computed by hand from PyTorch3D's formulas."""

import pytest
import torch

from unrender.compat.pytorch3d.renderer import (
    AlphaCompositor,
    FoVOrthographicCameras,
    NormWeightedCompositor,
    PointsRasterizationSettings,
    PointsRasterizer,
    PointsRenderer,
    rasterize_points,
)
from unrender.compat.pytorch3d.renderer.compositing import alpha_composite, norm_weighted_sum, weighted_sum
from unrender.compat.pytorch3d.structures import Pointclouds


def test_rasterizes_in_ndc():
    cloud = Pointclouds(
        [torch.tensor([[0.1, 0.1, 2.0]]), torch.tensor([[0.1, -0.3, 1.0], [0.1, -0.3, 0.5], [0, 0, -1]])]
    )
    ids, depths, squared = rasterize_points(cloud, 10, radius=0.15, points_per_pixel=2)
    assert ids.shape == (2, 10, 10, 2)
    assert ids[0, 4, 4].tolist() == [0, -1]  # +x is left, +y is up: the center of pixel (4, 4) is (0.1, 0.1)
    assert ids[1, 6, 4].tolist() == [2, 1]
    assert depths[1, 6, 4].tolist() == [0.5, 1]
    torch.testing.assert_close(squared[1, 6, 4], torch.zeros(2), atol=1e-6, rtol=0)
    assert ids[0, 4, 3].tolist() == [-1, -1]
    assert squared[0, 0, 0].tolist() == [-1, -1]
    wide = rasterize_points(cloud, (10, 20), radius=torch.tensor([0.25, 0.1, 0.1, 0.1]), points_per_pixel=1)[
        0
    ]
    assert wide.shape == (2, 10, 20, 1)
    assert wide[0, 4, 8:11, 0].tolist() == [0, 0, 0]
    torch.testing.assert_close(
        rasterize_points(cloud, (10, 20), radius=0.25, points_per_pixel=1)[2][0, 4, 8, 0], torch.tensor(0.04)
    )


def test_compositors():
    ids = torch.tensor([1, 0, -1]).view(1, 3, 1, 1)
    alphas = torch.tensor([0.5, 0.25, 9.0]).view(1, 3, 1, 1)
    features = torch.tensor([[1.0, 2], [10, 20]])  # of points 0 and 1
    assert alpha_composite(ids, alphas, features).flatten().tolist() == pytest.approx([1.125, 11.25])
    assert weighted_sum(ids, alphas, features).flatten().tolist() == pytest.approx([1.25, 12.5])
    assert norm_weighted_sum(ids, alphas, features).flatten().tolist() == pytest.approx(
        [1.25 / 0.75, 12.5 / 0.75]
    )
    empty = torch.full((1, 2, 1, 1), -1)
    for compositor in (AlphaCompositor, NormWeightedCompositor):
        image = compositor(background_color=(0.5,))(empty, torch.ones(1, 2, 1, 1), features)
        assert image.flatten().tolist() == [0.5, 1]
        with pytest.raises(ValueError, match="Background color has 3 channels not 2"):
            compositor(background_color=(1, 1, 1))(empty, torch.ones(1, 2, 1, 1), features)


@pytest.mark.parametrize("compositor", [AlphaCompositor, NormWeightedCompositor])
def test_renders_and_differentiates(compositor):
    torch.manual_seed(0)
    points = (torch.rand(30, 3) + torch.tensor([-0.5, -0.5, 1.0])).requires_grad_()
    colors = torch.rand(30, 4, requires_grad=True)
    cameras = FoVOrthographicCameras(znear=0.01)
    settings = PointsRasterizationSettings(image_size=16, radius=0.1, points_per_pixel=5)
    renderer = PointsRenderer(PointsRasterizer(cameras, settings), compositor(background_color=(1, 1, 1)))
    cloud = Pointclouds([points, points[:7]], features=[colors, colors[:7]])
    images = renderer(cloud)
    assert images.shape == (2, 16, 16, 4)
    assert images[1, 0, 0].tolist() == [1, 1, 1, 1]
    images.square().sum().backward()
    assert points.grad.isfinite().all()
    assert points.grad.any()
    assert colors.grad.any()
    settings.radius = torch.full((2, 30), 0.1)
    torch.testing.assert_close(renderer(cloud), images)


def test_weights_fall_with_distance():
    cloud = Pointclouds([torch.tensor([[0.1, 0.1, 1.0]])], features=[torch.ones(1, 1)])
    settings = PointsRasterizationSettings(image_size=10, radius=0.25, points_per_pixel=1)
    image = PointsRenderer(PointsRasterizer(FoVOrthographicCameras(), settings), AlphaCompositor())(cloud)
    assert image[0, 4, 3:6, 0].tolist() == pytest.approx([1 - 0.04 / 0.0625, 1, 1 - 0.04 / 0.0625], abs=1e-5)
