import dataclasses

import pytest
import torch

from unrender.errors import InputError
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import join_meshes
from unrender.geometry.shapes import ico_sphere, torus
from unrender.geometry.uv_atlas import unwrap
from unrender.losses.images import psnr
from unrender.render.lights import AmbientLight
from unrender.render.mesh import render_mesh
from unrender.tasks.surface.bake_texture import bake_texture
from unrender.tasks.surface.bake_vertex_colors import bake_vertex_colors
from unrender.tasks.surface.photo_views import PhotoView
from unrender.tasks.surface.texels import dilate, find_texels

pytest.importorskip("xatlas")


def render(mesh, camera, texture=None, background=(1.0, 1.0, 1.0), supersampling=2):
    options = {"lights": (AmbientLight(1.0),), "supersampling": supersampling, "background": background}
    return render_mesh(mesh, camera, texture=texture, **options).clamp(0, 1)


def cameras(num, seed, size=96):
    directions = torch.randn(num, 3, generator=torch.Generator().manual_seed(seed))
    eyes = torch.nn.functional.normalize(directions, dim=-1) * 4
    options = {"fov_degrees": 45.0, "height": size, "width": size}
    return [Camera.look_at(tuple(eye.tolist()), (0.0, 0.0, 0.0), **options) for eye in eyes]


def photo(mesh, camera, texture, factor=(1.0, 1.0, 1.0)):
    rgba = render(mesh, camera, texture, background=None)
    pixels = (rgba * torch.tensor([*factor, 1.0]) * 255).round().to(torch.uint8)
    return PhotoView("photo", camera, pixels[..., :3].contiguous(), pixels[..., 3].contiguous())


@pytest.fixture(scope="module")
def painted():
    """A torus whose color is a smooth function of position, and photos of it."""
    mesh = torus(1.0, 0.45, 32, 20)
    atlas = unwrap(mesh, texture_size=160)
    texels = find_texels(atlas)
    colors = 0.5 + 0.4 * torch.sin(12 * texels.surface(mesh).points)
    texture = texels.texture(colors, atlas)
    return mesh, atlas, texture, [photo(mesh, camera, texture) for camera in cameras(14, 0)]


def accuracy(painted, mesh, texture):
    errors = [
        psnr(render(mesh, camera, texture), render(painted[0], camera, painted[2]))
        for camera in cameras(3, 1)
    ]
    return sum(errors) / len(errors)


@pytest.fixture(scope="module")
def projected(painted):
    mesh, atlas, _, views = painted
    return bake_texture(mesh, atlas, views, refine_steps=0)


def test_projected_photos_give_the_texture(painted, projected):
    assert accuracy(painted, painted[0], projected.texture) > 35
    assert projected.num_unobserved < 0.01 * projected.num_texels
    assert projected.num_texels > 0.3 * 160 * 160


def test_refinement_fits_the_photos_better(painted, projected):
    mesh, atlas, _, views = painted
    refined = bake_texture(mesh, atlas, views, refine_steps=56)
    assert accuracy(painted, mesh, refined.texture) > accuracy(painted, mesh, projected.texture) + 0.5
    assert bool(((refined.texture.image >= 0) & (refined.texture.image <= 1)).all())


def test_vertex_colors(painted):
    mesh, _, _, views = painted
    baked = bake_vertex_colors(mesh, views)
    assert baked.num_unobserved < 0.02 * len(mesh.vertices)
    assert accuracy(painted, baked.mesh, None) > 20


def test_hidden_surface_does_not_get_the_colors_of_what_hides_it(painted):
    mesh = painted[0]
    white = ico_sphere(2)
    white = white.replace(vertices=white.vertices * 0.3)
    both = join_meshes([mesh, white])
    views = []
    for camera in cameras(14, 0):
        shown = join_meshes(
            [
                mesh.replace(vertex_colors=torch.zeros_like(mesh.vertices)),
                white.replace(vertex_colors=torch.ones_like(white.vertices)),
            ]
        )
        views.append(photo(shown, camera, None))
    colors = bake_vertex_colors(both, views).mesh.vertex_colors
    assert float(colors[: len(mesh.vertices)].max()) < 0.2
    assert float(colors[len(mesh.vertices) :].min()) > 0.75


def test_exposures_are_compensated(painted):
    mesh, atlas, texture, _ = painted
    factors = 0.6 + 0.4 * torch.rand(14, 3, generator=torch.Generator().manual_seed(2))
    views = [
        photo(mesh, camera, texture, tuple(factor.tolist()))
        for camera, factor in zip(cameras(14, 0), factors, strict=True)
    ]
    baked = bake_texture(mesh, atlas, views, refine_steps=0, exposure=True)
    assert baked.exposures is not None
    assert torch.allclose(baked.exposures, factors / factors.log().mean(0).exp(), rtol=0.03)
    scaled = baked.texture.replace(image=(baked.texture.image / factors.log().mean(0).exp()).clamp(0, 1))
    assert accuracy(painted, mesh, scaled) > 33


def test_unobserved_texels_are_filled_and_counted(painted):
    mesh, atlas, _, views = painted
    above = [view for view in views if float(view.camera.position[2]) > 1.5]
    baked = bake_texture(mesh, atlas, above, refine_steps=len(above))
    assert 0.15 * baked.num_texels < baked.num_unobserved < 0.7 * baked.num_texels
    covered = baked.texture.image[find_texels(atlas).covered]
    assert float(covered.std(0).min()) > 0.05
    assert bool((covered.amax(1) > 0.05).all())


def test_masked_pixels_are_not_used(painted):
    mesh, atlas, _, views = painted
    spoiled = [
        dataclasses.replace(
            view, image=torch.zeros_like(view.image), valid=torch.zeros(96, 96, dtype=torch.bool)
        )
        for view in views[:7]
    ]
    mixed = bake_texture(mesh, atlas, [*spoiled, *views[7:]], refine_steps=14)
    assert accuracy(painted, mesh, mixed.texture) > 25


def test_padding_has_the_colors_of_the_charts():
    covered = torch.zeros(6, 8, dtype=torch.bool)
    covered[:, 2] = covered[:, 6] = True
    image = torch.where(covered[..., None], torch.arange(8.0)[None, :, None], -1.0)
    assert dilate(image, covered)[0, :, 0].tolist() == [2, 2, 2, 2, 2, 6, 6, 6]


def test_bad_input(painted):
    mesh, atlas, _, views = painted
    with pytest.raises(InputError, match="at least one photo"):
        bake_texture(mesh, atlas, [])
    with pytest.raises(InputError, match="unwrap this mesh"):
        bake_texture(ico_sphere(1), atlas, views)
    with pytest.raises(InputError, match="no photo shows the mesh"):
        bake_texture(mesh.replace(vertices=mesh.vertices + 100), atlas, views)
    with pytest.raises(InputError, match="no photo shows the mesh"):
        bake_vertex_colors(mesh.replace(vertices=mesh.vertices + 100), views)
    with pytest.raises(InputError, match="single mesh with faces"):
        bake_vertex_colors(mesh.replace(faces=mesh.faces[:0]), views)
    with pytest.raises(InputError, match="refine_steps"):
        bake_texture(mesh, atlas, views, refine_steps=-1)
