"""Surfaces of photos on a GPU: the mesh is refined where it is, the photos stay on the CPU."""

import pytest
import torch
from pretended_gpu import held, on_gpu, pretended_gpu

from check_kernel import needs_cuda
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import Mesh
from unrender.geometry.shapes import torus
from unrender.geometry.uv_atlas import unwrap
from unrender.render.depth import DepthView
from unrender.render.lights import AmbientLight
from unrender.render.mesh import render_depth, render_mesh
from unrender.tasks.surface.bake_texture import bake_texture
from unrender.tasks.surface.bake_vertex_colors import bake_vertex_colors
from unrender.tasks.surface.config import FitSurface
from unrender.tasks.surface.initial_surface import clean_surface, extract_initial
from unrender.tasks.surface.photo_views import PhotoView
from unrender.tasks.surface.refine import Refinement, ViewTarget

CONFIG = FitSurface(faces=200, resolution=24, unobserved="close")


def thing() -> Mesh:
    ring = torus(segments=12, tube_segments=6)
    return ring.replace(vertex_colors=ring.vertices / 4 + 0.5)


def cameras() -> list[Camera]:
    eyes = ([1.0, 3.0, -2.0], [2.0, -3.0, 1.0], [-3.0, 0.5, 2.0], [0.5, 0.1, 4.0])
    return [Camera.look_at(eye, height=32, width=32) for eye in eyes]


def target_of(mesh: Mesh, camera: Camera) -> ViewTarget:
    image = (render_mesh(mesh, camera, lights=(AmbientLight(1.0),), background=None) * 255).to(torch.uint8)
    return ViewTarget(
        PhotoView("photo", camera, image[..., :3], image[..., 3]), 0, render_depth(mesh, camera)
    )


def refined(mesh: Mesh, targets: list[ViewTarget]) -> Mesh:
    refinement = Refinement(mesh, 1, CONFIG, per_image_exposure=True)
    for index, target in enumerate(targets):
        refinement.step(target, index / 8)
    return refinement.mesh


def photos() -> list[PhotoView]:
    return [target_of(thing(), camera).photo for camera in cameras()[:2]]


def test_a_texture_is_baked_where_the_mesh_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xatlas")
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    atlas = unwrap(thing(), texture_size=32, padding=1)
    expected = bake_texture(thing(), atlas, photos(), refine_steps=1, exposure=True)
    with pretended_gpu():
        baked = bake_texture(on_gpu(thing()), on_gpu(atlas), photos(), refine_steps=1, exposure=True)
        image = held(baked.texture.image)
        unwrapped = unwrap(on_gpu(thing()), texture_size=32, padding=1)
        assert torch.equal(held(unwrapped.uvs), atlas.uvs)
        colors = held(bake_vertex_colors(on_gpu(thing()), photos()).mesh.vertex_colors)
    assert baked.num_unobserved == expected.num_unobserved
    torch.testing.assert_close(image, expected.texture.image, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(colors, bake_vertex_colors(thing(), photos()).mesh.vertex_colors)


def wrong(mesh: Mesh) -> Mesh:
    return mesh.replace(vertices=mesh.vertices * 1.05)


def test_a_mesh_is_refined_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    targets = [target_of(thing(), camera) for camera in cameras()[:2]]
    expected = refined(wrong(thing()), targets)
    with pretended_gpu():
        mesh = refined(on_gpu(wrong(thing())), targets)
        vertices, colors = held(mesh.vertices), held(mesh.vertex_colors)
    torch.testing.assert_close(vertices, expected.vertices, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(colors, expected.vertex_colors, rtol=1e-3, atol=1e-3)


@needs_cuda
def test_a_gpu_refines_as_the_cpu_does() -> None:
    targets = [target_of(thing(), camera) for camera in cameras()]
    expected = refined(wrong(thing()), targets)
    found = refined(wrong(thing()).to("cuda"), targets).to("cpu")
    torch.testing.assert_close(found.vertices, expected.vertices, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found.vertex_colors, expected.vertex_colors, rtol=1e-2, atol=1e-2)


@needs_cuda
def test_surfaces_are_extracted_and_cleaned_on_a_gpu() -> None:
    class Box:
        scene_box = type("Bounds", (), {"bounds": torch.tensor([[-2.0] * 3, [2.0] * 3], device="cuda")})

    views = [DepthView(camera, render_depth(thing(), camera)) for camera in cameras()]
    empty = [view.replace(depth=torch.where(view.depth > 0, view.depth, torch.inf)) for view in views]
    mesh = extract_initial(Box(), [view.to("cuda") for view in empty], CONFIG)  # type: ignore[arg-type]
    clean = clean_surface(mesh, CONFIG)
    assert clean.mesh.vertices.is_cuda
    assert 50 < len(clean.mesh.faces) <= 200
