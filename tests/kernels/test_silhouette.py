import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from check_kernel import either_kernel, implementations
from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.kernels.rasterize import rasterize_faces
from unrender.kernels.silhouette import soft_silhouette
from unrender.kernels.silhouette.reference import LOGIT_AT_BLUR

pytestmark = either_kernel
GOLDEN = Path(__file__).parents[2] / "../shared/golden"
SIZE = {"height": 14, "width": 19, "near": 0.05}


@pytest.fixture(autouse=True)
def _choose(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)


def soup(dtype: torch.dtype, *, orthographic: bool = False) -> tuple[Tensor, Tensor]:
    """Create random triangles: large and small, in front of the camera, behind it, and crossing its plane."""
    generator = torch.Generator().manual_seed(5)
    vertices = 0.4 * torch.randn(2, 20, 3, generator=generator, dtype=torch.float64).to(dtype)
    faces = torch.randint(20, (6, 3), generator=generator)
    eye = torch.tensor([0.1, 0.1, -0.5], dtype=dtype)
    view_height = 2.5 if orthographic else None
    camera = Camera.look_at(eye, fov_degrees=80, view_height=view_height, height=14, width=19)
    return camera.project_homogeneous(vertices), faces


def weights(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(1), dtype=like.dtype)


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_the_reference(monkeypatch, dtype, orthographic):
    points, faces = soup(dtype, orthographic=orthographic)
    images, gradients = [], []
    for choice in (os.environ["UNRENDER_KERNELS"], "reference"):
        monkeypatch.setenv("UNRENDER_KERNELS", choice)
        leaf = points.clone().requires_grad_()
        images.append(soft_silhouette(leaf, faces, blur=2.0, **SIZE))
        (images[-1] * weights(images[-1])).sum().backward()
        gradients.append(leaf.grad / leaf.grad.abs().max())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(*images, rtol=0, atol=tolerance)
    torch.testing.assert_close(*gradients, rtol=0, atol=20 * tolerance)
    assert images[0].std() > 0.1


def test_gradient_matches_finite_differences():
    points, faces = soup(torch.float64)
    points = points.requires_grad_()
    image = soft_silhouette(points, faces, blur=2.5, **SIZE)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        step = 1e-7 * torch.randn(points.shape, generator=generator, dtype=torch.float64)
        more, less = (soft_silhouette(points.detach() + s * step, faces, blur=2.5, **SIZE) for s in (1, -1))
        smooth = (more - less).abs() < 1e-5  # a face that comes within `blur` adds 1e-4 at once
        assert smooth.double().mean() > 0.99
        (gradient,) = torch.autograd.grad((image * weights(image))[smooth].sum(), points, retain_graph=True)
        rise = ((more - less) * weights(image))[smooth].sum()
        torch.testing.assert_close(rise, 2 * (gradient * step).sum(), rtol=1e-3, atol=1e-11)


def test_counts_every_face_once():
    """Check far more faces over one pixel than a list of layers would hold."""
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(3000, 3, 2, generator=generator, dtype=torch.float64) * 8 + 3
    ones = torch.ones(9000, 1, dtype=torch.float64)
    points = torch.cat([xy.view(-1, 2), ones, ones], 1)
    outside = points + torch.tensor([12.0, 0, 0, 0], dtype=torch.float64)
    image = soft_silhouette(outside, torch.arange(9000).view(-1, 3), blur=6.0, **SIZE)
    with implementations("fast"):
        fragments = rasterize_faces(outside, torch.arange(9000).view(-1, 3), layers=3000, blur=6.0, **SIZE)
    expected = -torch.expm1(
        -torch.nn.functional.softplus(-fragments.squared_distance * LOGIT_AT_BLUR / 36)
        .where(fragments.face_ids >= 0, 0)
        .sum(-1)
    )
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_degenerate_faces(dtype):
    corners = [
        [[1, 1], [1, 1], [1, 1]],
        [[2, 2], [6, 6], [9, 9]],
        [[3.5, 3.5], [3.5, 3.5], [9.5, 3.5]],
        [[4.5, 4.5], [8.5, 4.5], [4.5, 8.5]],
        [[0, 0], [20, 1e-6], [10, 0]],
    ]
    xy = torch.tensor(corners, dtype=dtype).flatten(0, 1)
    w = torch.full((15, 1), 2.0, dtype=dtype)
    w[:3] = -1
    points = torch.cat([xy * w, w, w], 1).requires_grad_()
    image = soft_silhouette(points, torch.arange(15).view(5, 3), blur=3.0, **SIZE)
    (image * weights(image)).sum().backward()
    assert points.grad.isfinite().all()
    assert not points.grad[:3].any()
    assert ((image >= 0) & (image <= 1)).all()


def test_results_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            points, faces = soup(torch.float32)
            image = soft_silhouette(points.requires_grad_(), faces, blur=3.0, **SIZE)
            (image * weights(image)).sum().backward()
            results.append((image.detach(), points.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for other in results[1:] for x, y in zip(results[0], other, strict=True))


def test_edge_width_equals_blur():
    half_plane = torch.tensor([[-500.0, -500, 1, 1], [9.5, -500, 1, 1], [9.5, 500, 1, 1], [-500, 500, 1, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    row = soft_silhouette(half_plane, faces, blur=4.0, **SIZE)[7]
    assert row[9] == pytest.approx(0.5, abs=1e-3)
    assert row[13] == pytest.approx(1e-4, rel=0.02)
    assert row[14] == 0
    assert row[4] == pytest.approx(1 - 1e-4, abs=2e-4)


def test_invalid_arguments_are_rejected():
    points, faces = soup(torch.float32)
    with pytest.raises(InputError, match=r"`blur` should be positive, in pixels, got 0\.0"):
        soft_silhouette(points, faces, blur=0.0, **SIZE)
    assert not soft_silhouette(points, faces[:0], blur=1.0, **SIZE).any()


def test_agrees_with_pytorch3d():
    path = GOLDEN / "silhouette_sigma1e-4_K50.npz"
    if not path.exists():
        pytest.skip("no reference arrays")
    golden = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
    camera = Camera.from_pytorch3d(golden["R"], golden["T"], math.sqrt(3), height=96, width=96)
    blur = 48 * math.sqrt(1e-4 * LOGIT_AT_BLUR)
    size = {"height": 96, "width": 96, "near": 0.01, "blur": blur}
    vertices = golden["vertices"].requires_grad_()
    points = camera.project_homogeneous(vertices)
    fragments = rasterize_faces(points, golden["faces"], layers=50, **size)
    filled = fragments.face_ids >= 0
    layered = 1 - (fragments.squared_distance * LOGIT_AT_BLUR / blur**2).sigmoid().where(filled, 1).prod(-1)
    torch.testing.assert_close(layered, golden["silhouette"], rtol=1e-4, atol=3e-5)
    (layered * golden["cotangent"]).sum().backward()
    scale = golden["grad_vertices"].abs().max()
    torch.testing.assert_close(vertices.grad / scale, golden["grad_vertices"] / scale, rtol=0, atol=1e-3)
    image = soft_silhouette(camera.project_homogeneous(vertices), golden["faces"], **size)
    all_found = ~filled[..., -1]  # elsewhere PyTorch3D misses the faces after its fiftieth
    assert all_found.double().mean() > 0.9
    torch.testing.assert_close(image[all_found], golden["silhouette"][all_found], rtol=1e-4, atol=3e-5)
