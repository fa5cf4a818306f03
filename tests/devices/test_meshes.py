"""Points, meshes and their images on a GPU: where tensors are, and that values agree with the CPU's.

Each case runs on a pretended GPU, which needs none, and on a real one where there is one.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pretended_gpu import held, on_gpu, pretended_gpu
from torch import Tensor

from check_kernel import needs_cuda
from unrender.geometry.camera import Camera
from unrender.geometry.lens import Lens
from unrender.geometry.mesh import enclosed_volume, face_areas, face_normals, join_meshes, vertex_normals
from unrender.geometry.points import PointCloud
from unrender.geometry.rays import clip_to_box, rays_of
from unrender.geometry.rotations import (
    quaternion_from_rotation,
    rotation_from_6d,
    rotation_from_quaternion,
    so3_exp_map,
    so3_log_map,
)
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import ico_sphere
from unrender.geometry.subdivide import subdivide
from unrender.geometry.topology import connected_components, genus, keep_largest_component
from unrender.geometry.winding_number import winding_number_normals, winding_number_surface
from unrender.kernels.closest_on_mesh import closest_on_mesh, index_faces
from unrender.kernels.nearest import index_points, nearest
from unrender.losses.chamfer import chamfer_distance, point_to_mesh_distance
from unrender.losses.regularize import (
    mesh_edge_loss,
    mesh_laplacian_smoothing,
    mesh_normal_consistency,
)
from unrender.render.blend import blend_hard, blend_silhouette, blend_softmax
from unrender.render.fragments import interpolate, rasterize
from unrender.render.lights import AmbientLight, DirectionalLight, Headlight, Material, PointLight
from unrender.render.mesh import (
    render_depth,
    render_mesh,
    render_normals,
    render_object_ids,
    render_silhouette,
)
from unrender.render.shade import flat, gouraud, phong
from unrender.render.texture import Texture, sample_texture

Move = Callable[[Any], Any]
CASES: dict[str, tuple[Callable[[Move], Any], int]] = {}


def case(waits: int = 0) -> Callable[[Callable[[Move], Any]], Callable[[Move], Any]]:
    """Add a case: a function of what moves values to the device; the host may wait so often for it."""

    def add(function: Callable[[Move], Any]) -> Callable[[Move], Any]:
        CASES[function.__name__] = function, waits
        return function

    return add


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sphere(move: Move, level: int = 1) -> Any:
    mesh = move(ico_sphere(level).replace(vertex_colors=numbers(42 if level == 1 else 12, 3).sigmoid()))
    return mesh.replace(vertices=mesh.vertices.requires_grad_())


def camera(move: Move, size: int = 12) -> Camera:
    return Camera.look_at(move(torch.tensor([0.5, 1.0, -2.5])), height=size, width=size)


def gradients(value: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return value.detach(), *torch.autograd.grad(value.sum(), leaves)


@case()
def chamfer(move: Move) -> Any:
    x, y = move(numbers(2, 30, 3)).requires_grad_(), move(numbers(2, 40, 3, seed=1))
    return gradients(chamfer_distance(x, y, huber=0.5, trim=0.1).distance, x)


@case()
def chamfer_with_normals(move: Move) -> Any:
    x, y = (move(PointCloud(numbers(n, 3), normals=numbers(n, 3, seed=1))) for n in (30, 40))
    found = chamfer_distance(x, y)
    return found.distance, found.normals


@case()
def chamfer_of_an_index(move: Move) -> Any:
    return chamfer_distance(index_points(move(numbers(30, 3))), move(numbers(40, 3, seed=1))).distance


@case()
def neighbors(move: Move) -> Any:
    x = move(numbers(30, 3)).requires_grad_()
    found = nearest(index_points(x), move(numbers(40, 3, seed=1)), 3, norm=1)
    return *gradients(found.distances, x), found.ids


@case(waits=2)  # for the range of a mesh's faces, once
def distance_to_a_mesh(move: Move) -> Any:
    mesh = sphere(move)
    return gradients(point_to_mesh_distance(move(numbers(30, 3)), mesh), mesh.vertices)


@case(waits=2)
def closest_with_an_order(move: Move) -> Any:
    mesh = sphere(move)
    order = index_faces(mesh.vertices, mesh.faces)
    return closest_on_mesh(move(numbers(9, 3)), mesh.vertices, mesh.faces, face_order=order).squared_distances


@case(waits=9)  # for the topology, once
def losses_of_a_mesh(move: Move) -> Any:
    mesh = sphere(move)
    values = [mesh_edge_loss(mesh, 0.1), mesh_normal_consistency(mesh)]
    values += [mesh_laplacian_smoothing(mesh, method) for method in ("uniform", "cot", "cotcurv")]
    return *values, *torch.autograd.grad(torch.stack(values).sum(), mesh.vertices)


@case(waits=2)
def normals_and_areas(move: Move) -> Any:
    mesh = sphere(move)
    return vertex_normals(mesh), face_normals(mesh), face_areas(mesh), enclosed_volume(mesh)


@case(waits=40)
def surgery(move: Move) -> Any:
    mesh = sphere(move)
    two = join_meshes([mesh, mesh.replace(vertices=mesh.vertices + 3)])
    finer = keep_largest_component(subdivide(two))
    labels = connected_components(two.faces, two.vertices.shape[-2])
    return finer.vertices, finer.faces, finer.vertex_colors, labels, torch.as_tensor(genus(mesh))


@case()
def rotations(move: Move) -> Any:
    r = so3_exp_map(move(numbers(5, 3)))
    return (
        so3_log_map(r),
        quaternion_from_rotation(r),
        rotation_from_quaternion(move(numbers(5, 4))),
        rotation_from_6d(move(numbers(5, 6))),
    )


@case(waits=1)
def cameras(move: Move) -> Any:
    c = camera(move)
    points = move(numbers(7, 3))
    again = Camera.from_opengl(c.to_opengl(), c.focal, c.center, height=12, width=12)
    other = Camera.from_pytorch3d(*c.to_pytorch3d(), height=12, width=12)
    third = Camera.from_opencv(*c.to_opencv(), height=12, width=12)
    seen = c.project(points)
    rays = rays_of(c.resize(6, 6).crop(1, 1, height=4, width=4))
    span = clip_to_box(rays, move(-torch.ones(3)), move(torch.ones(3)))
    return (
        *(x.camera_from_world for x in (again, other, third)),
        seen,
        c.unproject(seen),
        rays.directions,
        *span,
    )


@case(waits=40)  # Newton's method asks whether it is done
def cameras_with_a_lens(move: Move) -> Any:
    c = move(camera(lambda t: t).replace(lens=Lens.brown([0.1, 0.01])))
    return c.project(move(0.3 * numbers(7, 3))), rays_of(c).directions


@case(waits=4)  # those of a mesh, the near plane, filled slots
def soft_phong(move: Move) -> Any:
    """Shade where no vertex normal is at right angles to the view or a light: rounding would choose the side."""
    mesh, eye = sphere(move), torch.tensor([0.5, 0.8, -2.5])
    c = Camera.look_at(move(eye), height=12, width=12)
    lights = [
        AmbientLight(0.3),
        move(PointLight(torch.tensor([2.0, 2.0, -2.0]))),
        move(DirectionalLight(torch.tensor([0.3, 0.2, 1.0]))),
        Headlight(0.2),
    ]
    fragments = rasterize(mesh, c, layers=24, blur=1.0)  # all: of two at one depth, rounding would drop one
    colors = phong(mesh, fragments, c, lights, Material(specular=0.2), two_sided=True)
    return gradients(blend_softmax(colors, fragments, blur=1.0, gamma=1e-2), mesh.vertices)


@case(waits=6)
def other_shading(move: Move) -> Any:
    mesh, c = sphere(move), camera(move)
    fragments = rasterize(mesh, c)
    colors = [shade(mesh, fragments, c) for shade in (flat, gouraud)]
    return *(blend_hard(color, fragments) for color in colors), blend_silhouette(fragments, blur=1.0)


@case(waits=9)  # three times the near plane and the filled slots
def a_texture(move: Move) -> Any:
    mesh, c = sphere(move), camera(move)
    texture = move(Texture(numbers(4, 4, 3).sigmoid(), numbers(42, 2).sigmoid(), ico_sphere(1).faces))
    fragments = rasterize(mesh, c)
    return (
        sample_texture(fragments, texture),
        interpolate(fragments, mesh.faces, mesh.vertices),
        render_mesh(mesh, c, texture=texture, supersampling=2),
    )


@case(waits=4)  # one of them in the reference only
def a_silhouette(move: Move) -> Any:
    mesh, c = sphere(move), camera(move)
    return gradients(render_silhouette(mesh, c), mesh.vertices)


@case(waits=12)
def images(move: Move) -> Any:
    mesh, c = sphere(move), camera(move)
    two = [mesh.replace(vertex_colors=None), mesh.replace(vertices=mesh.vertices * 1.2, vertex_colors=None)]
    return render_depth(mesh, c), render_normals(mesh, c), render_object_ids(two, c)


def moved_by(place: Callable[[Tensor], Tensor]) -> Move:
    return lambda value: place(value) if isinstance(value, Tensor) else value.map(place)


def as_tuple(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_made_on_the_wrong_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, waits = CASES[name]
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    expected = as_tuple(function(lambda value: value))
    with pretended_gpu() as gpu:
        found = as_tuple(function(on_gpu))
        values = [
            held(value.detach()) for value in found if value.dim() > 0 or value.device != torch.device("cpu")
        ]
    for value, wanted in zip(values, expected, strict=False):
        torch.testing.assert_close(value, wanted.detach(), rtol=1e-3, atol=1e-4)
    assert gpu.waits.total() <= waits, f"the host waits for the GPU: {dict(gpu.waits)}"


@needs_cuda
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_what_the_cpu_gives(name: str) -> None:
    function, _ = CASES[name]
    expected = as_tuple(function(lambda value: value))
    one, other = (as_tuple(function(moved_by(Tensor.cuda))) for _ in range(2))
    for a, b, wanted in zip(one, other, expected, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a.cpu(), wanted, rtol=1e-3, atol=1e-3)


def oriented(move: Move) -> tuple[Tensor, Tensor, Any]:
    """Return points on a sphere, normals from winding numbers, and the surface at their level."""
    points = move(ico_sphere(2).vertices.double())
    areas = torch.full_like(points[:, 0], 4 * torch.pi / len(points))
    normals = winding_number_normals(points, areas, 0.28, width=0.15)
    return points, normals, winding_number_surface(points, normals, areas, width=0.15, cell=0.3, reach=0.3)


def test_winding_numbers_are_evaluated_where_the_points_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    points, normals, surface = oriented(lambda value: value)
    assert float((normals * points).sum(1).min()) > 0.99
    with pretended_gpu():
        _, found, there = oriented(on_gpu)
        torch.testing.assert_close(held(found), normals, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(held(there.vertices), surface.vertices, rtol=1e-2, atol=1e-2)


@needs_cuda
def test_a_gpu_orients_points_as_the_cpu_does() -> None:
    points, normals, surface = oriented(Tensor.cuda)
    assert float((normals * points).sum(1).min()) > 0.99
    assert float((surface.vertices.norm(dim=1) - 1).abs().max()) < 0.06
    assert torch.equal(normals, oriented(Tensor.cuda)[1])


@needs_cuda
def test_points_are_sampled_on_the_device() -> None:
    mesh = ico_sphere(2).to("cuda")
    drawn = [
        sample_points_from_mesh(mesh, 500, generator=torch.Generator("cuda").manual_seed(0)) for _ in range(2)
    ]
    assert drawn[0].points.is_cuda
    assert torch.equal(drawn[0].points, drawn[1].points)
