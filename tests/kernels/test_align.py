"""The sums of Gauss-Newton steps: fast and reference agree, and they tell how pictures change."""

import pytest
import torch

from check_kernel import either_kernel, num_threads
from unrender.errors import ShapeError
from unrender.geometry.camera import Camera, rigid
from unrender.geometry.rotations import so3_exp_map
from unrender.geometry.shapes import torus
from unrender.kernels.align import normal_equations
from unrender.render.fragments import rasterize


def rays_of(camera):
    places = torch.arange(camera.width, dtype=camera.focal.dtype) + 0.5
    pixels = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1)
    return torch.cat([(pixels - camera.center) / camera.focal, camera.focal.expand_as(pixels)], -1)


def view(poses, size, dtype=torch.float64):
    """Render a torus at some poses."""
    num = len(poses)
    focal = torch.tensor([1.6 * size, 1.5 * size], dtype=dtype).expand(num, 2)
    center = torch.full((num, 2), size / 2, dtype=dtype)
    return Camera(focal, center, poses.to(dtype), size, size)


def poses_at(*twists, dtype=torch.float64):
    base = so3_exp_map(torch.tensor([[0.7, -0.4, 0.3]], dtype=dtype))
    twist = torch.tensor(twists, dtype=dtype)
    shift = torch.tensor([0.1, -0.2, 4.0], dtype=dtype) + twist[:, 3:]
    return rigid(so3_exp_map(twist[:, :3]) @ base, shift)


def inputs(dtype):
    """Create random images for two views, with occlusion boundaries."""
    poses = poses_at([0.0] * 6, [0.3, 0.1, 0, 0, 0, 0.5], dtype=dtype)
    camera = view(poses, 21, dtype)
    depth = rasterize(torus(radius=1.0, tube_radius=0.4).to(dtype), camera).depth[..., 0]
    generator = torch.Generator().manual_seed(3)
    images, residual, weight = torch.rand(3, 2, 4, 21, 21, generator=generator, dtype=dtype)
    shading_gradients = torch.randn(2, 4, 21, 21, 3, generator=generator, dtype=dtype)
    return (
        images,
        shading_gradients,
        depth,
        residual - 0.5,
        weight,
        rays_of(camera[:1].map(lambda t: t[0])),
        poses[:, :3, 3],
    )


@either_kernel
@pytest.mark.parametrize("with_depth", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_the_reference(monkeypatch, dtype, with_depth, kernels):
    given = inputs(dtype)
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    fast = normal_equations(*given, with_depth=with_depth)
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    reference = normal_equations(*given, with_depth=with_depth)
    for one, other in zip(fast, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-3)


def test_results_do_not_depend_on_the_number_of_threads():
    results = []
    for threads in (1, 2):
        with num_threads(threads):
            results.append(normal_equations(*inputs(torch.float32)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("axis", range(6))
def test_derivative_of_coverage_at_silhouettes(axis):
    size, mesh = 256, torus(radius=1.0, tube_radius=0.4).to(torch.float64)
    step = torch.zeros(6)
    step[axis] = 0.01

    def covered(twist):
        fine = (rasterize(mesh, view(poses_at(twist.tolist()), 4 * size)).depth[..., 0] > 0).double()
        return torch.nn.functional.avg_pool2d(fine, 4)

    generator = torch.Generator().manual_seed(axis)
    coarse = torch.rand(1, 1, 5, 5, generator=generator, dtype=torch.float64)
    weight = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0]
    change = ((covered(step) - covered(-step)) * weight).sum() / 0.02
    poses = poses_at([0.0] * 6)
    camera = view(poses, size)
    depth = rasterize(mesh, camera).depth[..., 0]
    image = (depth > 0).double()[:, None]
    shading_gradients = torch.zeros(1, 1, size, size, 3, dtype=torch.float64)
    # a pixel at an edge speaks for it from half a pixel inside, where a round surface is nearer: hence the 10 %
    gradient, _ = normal_equations(
        image,
        shading_gradients,
        depth,
        weight[None],
        torch.zeros_like(image),
        rays_of(camera[:1].map(lambda t: t[0])),
        poses[:, :3, 3],
    )
    assert gradient[0, axis] == pytest.approx(float(change), rel=0.1, abs=0.003 * float(image.sum()))


def test_derivative_of_depth():
    size, mesh = 128, torus(radius=1.0, tube_radius=0.4).to(torch.float64)
    poses = poses_at([0.0] * 6)
    camera = view(poses, size)
    depth = rasterize(mesh, camera).depth[..., 0]
    inside = -torch.nn.functional.max_pool2d(-(depth > 0).double(), 9, 1, 4)[:, None]
    rays = rays_of(camera[:1].map(lambda t: t[0]))
    shading_gradients = torch.zeros(1, 1, size, size, 3, dtype=torch.float64)
    gradient, _ = normal_equations(
        depth[:, None], shading_gradients, depth, inside, inside, rays, poses[:, :3, 3], with_depth=True
    )
    for axis in range(6):
        step = torch.zeros(6)
        step[axis] = 1e-3
        more, less = (
            rasterize(mesh, view(poses_at((s * step).tolist()), size)).depth[..., 0] for s in (1, -1)
        )
        smooth = inside[0] * ((more - less).abs() < 0.02)
        change = ((more - less) * smooth).sum() / 2e-3
        assert gradient[0, axis] == pytest.approx(float(change), rel=0.03, abs=0.01 * float(inside.sum()))


def test_wrong_shapes_are_rejected():
    images, *others = inputs(torch.float32)
    with pytest.raises(ShapeError, match=r"normal_equations: `shading_gradients`"):
        normal_equations(images[:, :2], *others)
