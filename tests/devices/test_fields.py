"""Fields and volumes on a GPU: where tensors are, and that values agree with the CPU's.

Each case runs on a pretended GPU, which needs none, and on a real one where there is one.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_gpu import DEVICE, Pretended, held, on_gpu, pretended_gpu
from some_fields import FIELDS
from torch import Tensor

from check_kernel import needs_cuda
from unrender._struct import TensorStruct
from unrender.fields.quick_look import quick_look
from unrender.fields.render_field import render_field
from unrender.fields.trainable import TrainableField
from unrender.geometry.camera import Camera
from unrender.geometry.points import PointCloud
from unrender.geometry.rays import present_rays, rays_of
from unrender.geometry.shapes import ico_sphere
from unrender.geometry.volume import Volume
from unrender.render.depth import DepthView
from unrender.render.march import march
from unrender.render.points import render_points
from unrender.render.sample import sample_importance, sample_occupied, sample_stratified, sample_uniform
from unrender.render.transfer import render_volume, visible_blocks, window_transfer
from unrender.reports import figures
from unrender.tasks.depth.depth_views import measure_view
from unrender.tasks.depth.fuse_depths import fuse_depths, points_from_views
from unrender.tasks.depth.measure_depth import depth_layers, measure_depth
from unrender.tasks.depth.view_consistency import view_consistency
from unrender.tasks.surface.extract_surface import extract_surface
from unrender.training.saved_fields import load_field, save_field

Move = Callable[[Any], Any]
CASES: dict[str, Callable[[Move], Any]] = {}


def case(function: Callable[[Move], Any]) -> Callable[[Move], Any]:
    """Add a case: a function of what moves values to the device."""
    CASES[function.__name__] = function
    return function


def camera(turn: float = 0.5) -> Camera:
    return Camera.look_at([turn, 1.0, -2.5], height=6, width=5)


def ball(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    return 20.0 * (points.norm(dim=-1) < 0.8), points.abs().clamp(max=1)


def values_of(value: Any) -> Iterator[Tensor]:
    """Return the tensors of a value that is made of tensors."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from values_of(part)
    elif isinstance(value, TensorStruct):
        found: list[Tensor] = []
        value.map(lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
        yield from found


@case
def a_volume(move: Move) -> Any:
    density = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(0))
    volume = move(Volume.in_box(density, -torch.ones(3), torch.ones(3)))
    transfer = window_transfer(volume)
    view = move(camera())
    rays = rays_of(view)
    t_near, t_far = volume.clip(rays)
    samples = sample_uniform(t_near, t_far, 8)
    seen = march(volume, rays, samples, keep_samples=True)
    random = sample_stratified(t_near, t_far, 4, generator=torch.Generator().manual_seed(0))
    blocks = visible_blocks(volume, transfer)
    return (
        render_volume(volume, transfer, view),
        seen,
        random,
        sample_importance(samples, seen.weights + 0.1, 4),
        sample_occupied(rays, *blocks, 0.1),
        volume.contains(rays.origins.flatten(0, 1)),
        volume.bounds,
    )


@case
def depths_fused(move: Move) -> Any:
    views = []
    for turn in (-0.4, 0.0, 0.4):
        view = move(Camera.look_at([turn, 1.0, -2.5], height=24, width=24))
        found = measure_depth(ball, view, near=1.0, far=4.0, num_samples=48)
        views.append(
            DepthView(view, torch.where(found.valid, found.median_z, 0), torch.ones(24, 24, 3).to(found.std))
        )
    cloud = points_from_views(views, tolerance=0.05, min_consistent_views=1, spacing=0.1)
    return cloud, fuse_depths(views, voxel_size=0.15), list(view_consistency(views).values())


@case
def a_function(move: Move) -> Any:
    view = move(camera())
    return (
        quick_look(ball, view, near=1.0, far=4.0, num_samples=8),
        measure_depth(ball, view, near=1.0, far=4.0, num_samples=8),
        extract_surface(ball, box=move(torch.tensor([[-1.0, -1, -1], [1, 1, 1]])), voxel_size=0.25),
    )


@case
def figures_of_a_report(move: Move) -> Any:
    """Render what is on the device from the cameras of a scene, which are on the CPU."""
    mesh, view = ico_sphere(1), camera()
    images = [figures.render(move(shape), view) for shape in (mesh, PointCloud(mesh.vertices))]
    return [move(torch.tensor(image.shape)) for image in images]


@case
def points(move: Move) -> Any:
    cloud = PointCloud(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    return render_points(move(cloud), move(camera()), supersampling=2)


def values_where_they_are(function: Callable[[Move], Any]) -> list[Tensor]:
    with pretended_gpu():
        return [held(value.detach()) for value in values_of(function(on_gpu))]


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_made_on_the_wrong_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    expected = list(values_of(CASES[name](lambda value: value)))
    found = values_where_they_are(CASES[name])
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted.detach(), rtol=1e-3, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_what_the_cpu_gives(name: str) -> None:
    expected = list(values_of(CASES[name](lambda value: value)))
    one, other = (list(values_of(CASES[name](lambda value: value.to("cuda")))) for _ in range(2))
    for a, b, wanted in zip(one, other, expected, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a.cpu(), wanted, rtol=1e-3, atol=1e-3)


def training_step(field: TrainableField, view: Camera) -> Any:
    """Take the gradient of a rendering from random samples, drawn by a generator on the CPU."""
    device = field.background.device
    rays = present_rays(view.to(device))[0]
    outputs = field.training_outputs(rays, torch.Generator().manual_seed(0))
    parameters = [parameter for name, parameter in field.named_parameters() if name != "background"]
    gradients = torch.autograd.grad(
        sum(output.color.sum() for output in outputs), parameters, allow_unused=True
    )
    assert field.bounds().device == field.density(rays.origins).device == device
    return [output.color for output in outputs], [g for g in gradients if g is not None]


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_used_where_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    field = FIELDS[name]()
    uses = [
        training_step,
        lambda field, view: field.render(view, torch.zeros(3), quick=True),
        render_field,
        quick_look,
        measure_depth,
        depth_layers,
        measure_view,
        lambda field, view: extract_surface(field, voxel_size=0.4, opacity=0.2),
    ]
    expected = [list(values_of(use(field, camera()))) for use in uses]
    with pretended_gpu():
        field = field.to(DEVICE)
        found = [list(values_of(use(field, camera()))) for use in uses]
        real = [[held(value.detach()) for value in each] for each in found]
    for values, wanted in zip(real, expected, strict=True):
        assert len(values) == len(wanted)
        for a, b in zip(values, wanted, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_saved_on_a_gpu_and_loaded_on_a_cpu(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    field, path = FIELDS[name](), tmp_path / "field.safetensors"
    points = torch.rand(9, 3)
    expected = field(points, points)
    with pretended_gpu():
        save_field(field.to(DEVICE), path)
        there = load_field(path, device=DEVICE)
        assert all(isinstance(value, Pretended) for value in there.state_dict().values())
    loaded = load_field(path)
    for value, wanted in zip(loaded(points, points), expected, strict=True):
        assert torch.equal(value, wanted)


@needs_cuda
@pytest.mark.parametrize("name", FIELDS)
def test_fields_on_a_gpu_are_those_of_the_cpu(name: str, tmp_path: Path) -> None:
    field = FIELDS[name]()
    expected = [list(values_of(use(field, camera()))) for use in (render_field, quick_look, measure_depth)]
    save_field(field.to("cuda"), tmp_path / "field.safetensors")
    there = load_field(tmp_path / "field.safetensors", device="cuda")
    for use, wanted in zip((render_field, quick_look, measure_depth), expected, strict=True):
        for a, b in zip(values_of(use(there, camera())), wanted, strict=True):
            # the tutorial's highest frequency, 2^59, turns the rounding of positions into noise
            tolerance = 0.2 if name == "tutorial" else 1e-2
            torch.testing.assert_close(a.cpu(), b, rtol=tolerance, atol=tolerance)
