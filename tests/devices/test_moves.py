"""`.to(device)` leaves no tensor behind, in any value or module."""

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pretended_gpu import DEVICE, pretended_gpu
from some_fields import FIELDS
from torch import Tensor, nn

import unrender
from unrender._struct import TensorStruct
from unrender.compat.pytorch3d import renderer, structures
from unrender.fields import registry
from unrender.fields.occupancy import OccupancyGrid
from unrender.fields.trainable import FieldOptions
from unrender.geometry.camera import Camera
from unrender.geometry.rays import present_rays
from unrender.training.exposure import Exposures

LEAVES = (int, float, bool, str, type(None))
SKIPPED = (".viewer", ".__main__", ".gpu", ".cpu", "_hash_training", "._warp", ".graph_", ".hash_renderer")
HOST_ONLY = {"PreparedCloud": "numbers of points, which are drawn on the host"}


def values_of_the_package() -> list[type[TensorStruct]]:
    """Return all classes of values; modules that need Warp or the viewer have none."""
    for module in pkgutil.walk_packages(unrender.__path__, "unrender."):
        if not any(part in module.name for part in SKIPPED):
            importlib.import_module(module.name)
    return sorted(subclasses(TensorStruct), key=lambda kind: kind.__name__)


def subclasses(kind: type) -> Iterator[Any]:
    for each in kind.__subclasses__():
        if each.__module__.startswith("unrender."):
            yield each
            yield from subclasses(each)


def is_moved(hint: Any) -> bool:
    """Whether `TensorStruct.map` reaches every tensor that a field of this type may hold."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal or hint in LEAVES or hint is Ellipsis:
        return True
    if typing.get_origin(hint) is tuple:  # map does not look into tuples
        return all(argument in LEAVES or argument is Ellipsis for argument in arguments)
    if arguments and typing.get_origin(hint) is not None:
        return isinstance(hint, type) or all(is_moved(argument) for argument in arguments)
    return (isinstance(hint, type) and issubclass(hint, TensorStruct)) or hasattr(hint, "dim_str")


@pytest.mark.parametrize("kind", values_of_the_package(), ids=lambda kind: kind.__name__)
def test_fields_of_values_are_tensors_or_values_that_move(kind: type[TensorStruct]) -> None:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(typing.cast(Any, kind))]
    left = [name for name in names if not is_moved(hints[name])]
    assert not left or kind.__name__ in HOST_ONLY, f"{left} may hold tensors that `to` does not move"


def tensors_in(value: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Return every tensor that can be reached from a value, and by which attributes."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from tensors_in(part, f"{path}[{key!r}]", seen)
    elif isinstance(value, tuple | list | set):
        for number, part in enumerate(value):
            yield from tensors_in(part, f"{path}[{number}]", seen)
    elif type(value).__module__.startswith(("unrender.", "torch.nn")):
        for name, part in getattr(value, "__dict__", {}).items():
            yield from tensors_in(part, f"{path}.{name}", seen)


def used(kind: str) -> nn.Module:
    """Return a field in training, with all that it has kept from its steps."""
    field = FIELDS[kind]()
    options = FieldOptions(samples=64, smoothness=1.0)
    rays = present_rays(Camera.look_at([0.5, 1.0, -2.5], height=6, width=5))[0]
    field.begin_step(0.0, options)
    loss = sum(output.color.sum() for output in field.training_outputs(rays, torch.Generator()))
    penalty = field.regularization(options)
    torch.autograd.backward(loss if penalty is None else loss + penalty)
    field.end_step(0.0, options)
    return field


def mesh() -> structures.Meshes:
    verts, faces = torch.rand(1, 4, 3), torch.tensor([[[0, 1, 2], [0, 2, 3]]])
    found = structures.Meshes(verts, faces, renderer.TexturesVertex(torch.rand(1, 4, 3)))
    found.verts_normals_packed(), found.edges_packed()  # are kept
    return found


def cameras() -> renderer.FoVPerspectiveCameras:
    found = renderer.FoVPerspectiveCameras()
    found.get_world_to_view_transform()
    return found


def mesh_renderer() -> nn.Module:
    rasterizer = renderer.MeshRasterizer(cameras(), renderer.RasterizationSettings(image_size=4))
    shader = renderer.SoftPhongShader(
        cameras=cameras(), lights=renderer.PointLights(), materials=renderer.Materials()
    )
    return renderer.MeshRenderer(rasterizer, shader)


MODULES: dict[str, Callable[[], Any]] = {
    **{f"field: {name}": lambda name=name: used(name) for name in FIELDS},  # type: ignore[misc]
    "OccupancyGrid": lambda: OccupancyGrid(torch.ones(4, 4, 4, dtype=torch.bool)),
    "Exposures": lambda: Exposures(3),
    "Meshes": mesh,
    "Pointclouds": lambda: structures.Pointclouds([torch.rand(5, 3)], features=[torch.rand(5, 3)]),
    "Volumes": lambda: structures.Volumes(torch.rand(1, 1, 3, 3, 3), torch.rand(1, 3, 3, 3, 3)),
    "FoVPerspectiveCameras": cameras,
    "FoVOrthographicCameras": renderer.FoVOrthographicCameras,
    "PerspectiveCameras": renderer.PerspectiveCameras,
    "OrthographicCameras": renderer.OrthographicCameras,
    "PointLights": renderer.PointLights,
    "DirectionalLights": renderer.DirectionalLights,
    "AmbientLights": renderer.AmbientLights,
    "Materials": renderer.Materials,
    "TexturesVertex": lambda: renderer.TexturesVertex(torch.rand(1, 4, 3)),
    "TexturesUV": lambda: renderer.TexturesUV(
        torch.rand(1, 4, 4, 3), torch.zeros(1, 2, 3, dtype=torch.long), torch.rand(1, 4, 2)
    ),
    "MeshRenderer": mesh_renderer,
    "HarmonicEmbedding": lambda: renderer.HarmonicEmbedding(4),
    "NDCMultinomialRaysampler": lambda: renderer.NDCMultinomialRaysampler(
        image_width=4, image_height=4, n_pts_per_ray=3, min_depth=0.1, max_depth=1.0
    ),
}


def test_all_registered_fields_are_examples() -> None:
    assert {type(make()) for make in FIELDS.values()} >= set(registry.FIELDS.values())


@pytest.mark.parametrize("name", MODULES)
def test_modules_move_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    value = MODULES[name]()
    assert all(tensor.device.type == "cpu" for _, tensor in tensors_in(value))
    with pretended_gpu():
        moved = value.to(DEVICE)
        left = [path for path, tensor in tensors_in(moved) if tensor.device != DEVICE]
    assert not left, f"{name}: left behind are {', '.join(left)}"
