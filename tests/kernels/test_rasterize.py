import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from check_kernel import either_kernel
from unrender.errors import InputError, ShapeError
from unrender.geometry.camera import Camera
from unrender.kernels.rasterize import Fragments, rasterize_faces

pytestmark = either_kernel
GOLDEN = Path(__file__).parents[2] / "../shared/golden"
SIZE = {"height": 14, "width": 19, "near": 0.05}


@pytest.fixture(autouse=True)
def _choose(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)


def soup(dtype: torch.dtype, *, orthographic: bool = False) -> tuple[Tensor, Tensor]:
    """Create random triangles: large and small, in front of the camera, behind it, and crossing its plane."""
    generator = torch.Generator().manual_seed(5)
    vertices = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64).to(dtype)
    faces = torch.randint(20, (30, 3), generator=generator)
    camera = Camera.look_at(
        torch.tensor([0.3, 0.2, -1.0], dtype=dtype),
        fov_degrees=80,
        view_height=2.5 if orthographic else None,
        height=14,
        width=19,
    )
    return camera.project_homogeneous(vertices), faces


def both(
    monkeypatch: pytest.MonkeyPatch, points: Tensor, faces: Tensor, **settings: Any
) -> list[tuple[Fragments, Tensor]]:
    """Return fragments and the points that they are differentiable in, of the fast kernel and of the reference."""
    results = []
    for choice in (os.environ["UNRENDER_KERNELS"], "reference"):
        monkeypatch.setenv("UNRENDER_KERNELS", choice)
        leaf = points.detach().clone().requires_grad_()
        results.append((rasterize_faces(leaf, faces, **settings), leaf))
    return results


def total(fragments: Fragments, where: Tensor) -> Tensor:
    """Sum all differentiable outputs over some slots, with random weights."""
    generator = torch.Generator().manual_seed(1)
    fields = (fragments.barycentric, fragments.depth, fragments.squared_distance)
    weights = [torch.randn(f.shape, generator=generator, dtype=f.dtype) for f in fields]
    terms = [(f * w)[where].sum() for f, w in zip(fields, weights, strict=True)]
    return terms[0] + terms[1] + terms[2]


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize(
    ("layers", "blur", "cull"), [(1, 0.0, False), (4, 0.0, True), (6, 2.5, False), (40, 3.0, True)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_the_reference(monkeypatch, dtype, layers, blur, cull, orthographic):
    points, faces = soup(dtype, orthographic=orthographic)
    (fast, a), (reference, b) = both(monkeypatch, points, faces, layers=layers, blur=blur, cull=cull, **SIZE)
    tight = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(fast.depth, reference.depth, **tight)
    same = fast.face_ids == reference.face_ids  # at one depth to the last bit, either face may come first
    assert same.double().mean() > 0.99
    torch.testing.assert_close(fast.barycentric[same], reference.barycentric[same], **tight)
    loose = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float32 else tight
    torch.testing.assert_close(fast.squared_distance[same], reference.squared_distance[same], **loose)
    total(fast, same).backward()
    total(reference, same).backward()
    scale = b.grad.abs().max()
    torch.testing.assert_close(a.grad / scale, b.grad / scale, rtol=0, atol=tight["rtol"])


def test_any_number_of_layers_holds_the_nearest_faces():
    points, faces = soup(torch.float32)
    everything = rasterize_faces(points, faces, layers=40, blur=4.0, **SIZE)
    for layers in (8, 16, 20):
        assert 0 < (everything.face_ids[..., layers] >= 0).float().mean() < 1  # both longer and shorter lists
        found = rasterize_faces(points, faces, layers=layers, blur=4.0, **SIZE)
        assert torch.equal(found.face_ids, everything.face_ids[..., :layers])
        assert torch.equal(found.depth, everything.depth[..., :layers])


@pytest.mark.parametrize("orthographic", [False, True])
def test_gradient_matches_finite_differences(orthographic):
    points, faces = soup(torch.float64, orthographic=orthographic)
    points = points[0].requires_grad_()
    before = rasterize_faces(points, faces, layers=3, blur=1.5, **SIZE)
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        step = 1e-7 * torch.randn(points.shape, generator=generator, dtype=torch.float64)
        less, more = (
            rasterize_faces(points.detach() + s * step, faces, layers=3, blur=1.5, **SIZE) for s in (-1, 1)
        )
        kept = (
            (less.face_ids == before.face_ids) & (more.face_ids == before.face_ids) & (before.face_ids >= 0)
        )
        assert kept.sum() > 0.98 * (before.face_ids >= 0).sum()  # at one depth, faces change places
        (gradient,) = torch.autograd.grad(total(before, kept), points, retain_graph=True)
        rise = total(more, kept) - total(less, kept)
        torch.testing.assert_close(rise, 2 * (gradient * step).sum(), rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_degenerate_faces(dtype):
    corners = [
        [[1, 1], [1, 1], [1, 1]],  # a point
        [[2, 2], [6, 6], [9, 9]],  # a line
        [[3, 3], [3, 3], [9, 4]],  # two vertices at one place
        [[4.5, 4.5], [8.5, 4.5], [4.5, 8.5]],  # edges through pixel centres
        [[0, 0], [20, 1e-6], [10, 0]],  # a sliver
    ]
    xy = torch.tensor(corners, dtype=dtype).flatten(0, 1)
    w = torch.full((15, 1), 2.0, dtype=dtype)
    w[:3] = -1  # behind the camera
    points = torch.cat([xy * w, w, w], 1).requires_grad_()
    faces = torch.arange(15).view(5, 3)
    fragments = rasterize_faces(points, faces, layers=5, blur=3.0, **SIZE)
    total(fragments, fragments.face_ids >= 0).backward()
    assert points.grad.isfinite().all()
    assert not points.grad[:3].any()
    assert (fragments.face_ids == 3).any()


def test_no_pixel_is_missed_between_faces_or_by_binning():
    columns, rows = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="xy")
    grid = torch.stack([columns, rows], -1).flatten(0, 1) * 0.5 + 0.5  # vertices and edges on pixel centres
    start = (torch.arange(39)[:, None] * 40 + torch.arange(39)).flatten()
    faces = torch.cat(
        [torch.stack([start, start + 40, start + 1], 1), torch.stack([start + 1, start + 40, start + 41], 1)]
    )
    ones = torch.ones(1600, 1)
    everything = faces.repeat(3, 1)  # 9,126 faces in 16 tiles
    fragments = rasterize_faces(
        torch.cat([grid, ones, ones], 1), everything, height=19, width=19, near=0.1, layers=64
    )
    counts = (fragments.face_ids >= 0).sum(-1)
    assert (counts[1:, 1:] >= 6 * 3).all()  # six faces meet at each inner vertex
    assert (
        rasterize_faces(torch.cat([grid, ones, ones], 1), faces, height=19, width=19, near=0.1).face_ids >= 0
    ).all()


def test_near_plane_clipping():
    """Check that a floor passing under the camera fills the image below the horizon, at the right depths."""
    floor = torch.tensor([[-90.0, 1, -50], [90, 1, -50], [0, 1, 900]], dtype=torch.float64)
    camera = Camera.look_at([0.0, 0, 0], [0.0, 0, 1], (0.0, -1, 0), fov_degrees=90, height=16, width=16)
    camera = camera.to(torch.float64)
    fragments = rasterize_faces(
        camera.project_homogeneous(floor).requires_grad_(),
        torch.tensor([[0, 1, 2]]),
        height=16,
        width=16,
        near=0.1,
    )
    assert (fragments.face_ids[8:] == 0).all()
    assert (fragments.face_ids[:8] == -1).all()
    row = torch.arange(8, dtype=torch.float64) + 0.5
    torch.testing.assert_close(fragments.depth[8:, 3, 0], 8 / row)


def test_results_do_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            points = soup(torch.float32)[0].requires_grad_()
            fragments = rasterize_faces(points, soup(torch.float32)[1], layers=5, blur=2.0, **SIZE)
            total(fragments, fragments.face_ids >= 0).backward()
            results.append((fragments.barycentric.detach(), fragments.face_ids, points.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for other in results[1:] for x, y in zip(results[0], other, strict=True))


def test_accepts_empty_and_strided_input():
    points, faces = soup(torch.float32)
    nothing = rasterize_faces(points, faces[:0], layers=2, **SIZE)
    assert nothing.face_ids.shape == (2, 14, 19, 2)
    assert (nothing.face_ids == -1).all()
    assert not nothing.barycentric.any()
    strided = points.mT.contiguous().mT
    assert torch.equal(
        rasterize_faces(strided, faces.mT.contiguous().mT, **SIZE).depth,
        rasterize_faces(points, faces, **SIZE).depth,
    )


def test_invalid_arguments_are_rejected():
    points, faces = soup(torch.float32)
    with pytest.raises(InputError, match="`layers` should be at least 1, got 0"):
        rasterize_faces(points, faces, layers=0, **SIZE)
    with pytest.raises(InputError, match=r"`blur` should be at least 0 pixels, and finite, got -1\.0"):
        rasterize_faces(points, faces, blur=-1.0, **SIZE)
    with pytest.raises(InputError, match="NaN"):
        rasterize_faces(points * math.nan, faces, **SIZE)
    with pytest.raises(
        ShapeError, match=r"`points` should be Float\[Tensor, '\*batch vertices 4'\], got float32\[2, 20, 3\]"
    ):
        rasterize_faces(points[..., :3], faces, **SIZE)


@pytest.mark.parametrize("perspective", [0, 1])
@pytest.mark.parametrize("layers", [1, 10])
def test_agrees_with_pytorch3d(layers, perspective):
    path = GOLDEN / f"rasterize_K{layers}_perspective{perspective}.npz"
    if not path.exists():
        pytest.skip("no reference arrays")
    golden = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
    camera = Camera.from_pytorch3d(golden["R"], golden["T"], math.sqrt(3), height=96, width=96)
    points = camera.project_homogeneous(golden["vertices"])
    if not perspective:  # linear on the screen: an orthographic view of points that are there already
        points = torch.cat(
            [points[..., :2] / points[..., 2:3], torch.ones_like(points[..., :1]), points[..., 3:]], -1
        )
    blur = 48 * math.sqrt(golden["blur_radius_ndc2"])
    fragments = rasterize_faces(
        points, golden["faces"], height=96, width=96, near=0.01, layers=layers, blur=blur
    )
    same = fragments.face_ids == golden["face_ids"]
    assert same.double().mean() > 0.9995  # the others lie at one depth
    filled = same & (golden["face_ids"] >= 0)
    sums = golden["barycentric"].sum(-1, keepdim=True)  # short of 1: PyTorch3D divides by area + 1e-8
    barycentric, depth = golden["barycentric"] / sums, golden["depth"] / sums[..., 0]
    torch.testing.assert_close(fragments.barycentric[filled], barycentric[filled], rtol=0, atol=3e-4)
    torch.testing.assert_close(fragments.depth[filled], depth[filled], rtol=1e-5, atol=0)
    distances = golden["signed_squared_distance_ndc"] * 48**2
    torch.testing.assert_close(fragments.squared_distance[filled], distances[filled], rtol=1e-4, atol=5e-5)
