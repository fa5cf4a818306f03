import pytest
import torch

from check_kernel import check_kernel, implementations, needs_warp
from unrender.geometry.camera import Camera
from unrender.geometry.mesh import vertex_normals
from unrender.geometry.shapes import ico_sphere
from unrender.kernels.shade_layers import shade_layers
from unrender.render.fragments import rasterize
from unrender.render.lights import (
    AmbientLight,
    DirectionalLight,
    Headlight,
    Material,
    PointLight,
    light_table,
)
from unrender.render.shade import phong

SPHERE = ico_sphere(2)
LIGHTS = [
    AmbientLight(0.3),
    PointLight(torch.tensor([2.0, 2.0, -1.0]), torch.tensor([0.4, 0.5, 0.6])),
    DirectionalLight(torch.tensor([-1.0, 0.5, 0.2]), 0.5),
    Headlight(0.2),
]


def view(*batch, **options):
    eye = torch.tensor([0.3, 0.4, -2.5]).expand(*batch, 3)
    return Camera.look_at(eye, height=12, width=14, **options)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("options", [{}, {"view_height": 2.5}], ids=["perspective", "orthographic"])
def test_kernel_agrees_with_the_reference(batch, options, two_sided):
    generator = torch.Generator().manual_seed(0)
    camera = view(*batch, **options)
    faces = torch.cat([SPHERE.faces[::2], SPHERE.faces[1::2].flip(1)])
    found = rasterize(SPHERE.replace(faces=faces), camera, layers=3, blur=1.0)
    vertices = SPHERE.vertices + 0.05 * torch.randn(*batch, *SPHERE.vertices.shape, generator=generator)
    normals = vertex_normals(SPHERE) + 0.1 * torch.randn(*SPHERE.vertices.shape, generator=generator)
    colors = torch.rand(len(SPHERE.vertices), 3, generator=generator)
    lights = light_table(LIGHTS, Material(0.9, 0.8, 0.3, 5.0), vertices, 3)
    ids, poses, perspective = found.face_ids, camera.camera_from_world, camera.projection == "perspective"

    def shade(v, n, c, b):
        return shade_layers(v, n, c, faces, ids, b, poses.to(v), lights.to(v), perspective, two_sided)

    check_kernel(shade, [vertices, normals, colors, found.barycentric])


def test_one_color_and_no_light():
    found, normals = rasterize(SPHERE, view()), vertex_normals(SPHERE)
    lights = torch.cat([light_table([AmbientLight()], Material(), normals, 2)[:0]])
    pose = view().camera_from_world

    def shade(c):
        dark = (normals, SPHERE.faces, found.face_ids, found.barycentric, pose, lights)
        v = SPHERE.vertices.to(c)
        normal, faces, ids, weights, poses, table = (t.to(c) if t.is_floating_point() else t for t in dark)
        return shade_layers(v, normal, c, faces, ids, weights, poses, table, True, False) + 0 * c.sum()

    check_kernel(shade, [torch.rand(1, 2, generator=torch.Generator().manual_seed(0))])


@needs_warp
@pytest.mark.parametrize("color", [None, torch.rand(len(SPHERE.vertices), 3)])
@pytest.mark.parametrize(
    "material", [Material(), Material(0.5, torch.tensor([0.2, 0.4, 0.6]), 0.3, torch.tensor(9.0))]
)
def test_shading_on_a_gpu_is_that_of_a_cpu(color, material):
    results = []
    for choice in ("fast", "warp"):
        vertices = SPHERE.vertices.clone().requires_grad_()
        mesh = SPHERE.replace(vertices=vertices, vertex_colors=color)
        with implementations(choice) as loaded:
            found = rasterize(mesh, view(), layers=2, blur=1.0)
            image = phong(mesh, found, view(), LIGHTS, material, two_sided=True)
            (gradient,) = torch.autograd.grad(image.square().sum(), vertices)
        assert ("shade_layers", "gpu") in loaded or choice == "fast"
        results.append((image.detach(), gradient))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)
