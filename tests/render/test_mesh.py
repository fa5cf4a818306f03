import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unrender.geometry.camera import Camera, invert_rigid
from unrender.geometry.mesh import Mesh, join_meshes
from unrender.geometry.points import PointCloud
from unrender.geometry.shapes import ico_sphere
from unrender.render.blend import blend_hard, blend_silhouette, blend_softmax
from unrender.render.fragments import interpolate, rasterize
from unrender.render.lights import AmbientLight, DirectionalLight, Headlight, Light, Material, PointLight
from unrender.render.mesh import (
    render_depth,
    render_mesh,
    render_normals,
    render_object_ids,
    render_silhouette,
)
from unrender.render.points import render_points
from unrender.render.shade import flat, gouraud, phong
from unrender.render.texture import Texture, sample_texture

SHARED = Path(__file__).parents[2] / "../shared"


@pytest.fixture
def ball() -> Mesh:
    return ico_sphere(3)


@pytest.fixture
def camera() -> Camera:
    return Camera.look_at([0.0, 0.0, -3.0], fov_degrees=50, height=33, width=45)


def square(depth: float = 2.0) -> Mesh:
    """Create a unit square in the plane z = depth, facing a camera at the origin that looks along z."""
    corners = torch.tensor([[0.0, 0.0], [1, 0], [1, 1], [0, 1]])
    return Mesh(torch.cat([corners, torch.full((4, 1), depth)], 1), torch.tensor([[0, 2, 1], [0, 3, 2]]))


def square_camera(size: int = 8) -> Camera:
    """Create a camera that shows exactly the square, x to the right and y down."""
    return Camera(torch.full((2,), float(size)), torch.zeros(2), torch.eye(4), size, size, "orthographic")


def test_depth_normals_and_silhouette_of_a_sphere(ball, camera):
    depth, normals = render_depth(ball, camera), render_normals(ball, camera)
    assert depth[16, 22] == pytest.approx(2.0, abs=0.01)
    assert depth[0, 0] == 0
    torch.testing.assert_close(normals[16, 22], torch.tensor([0.0, 0, -1]), rtol=0, atol=0.05)
    hit = depth > 0
    rows, columns = hit.nonzero().unbind(-1)
    pixels = torch.stack([columns + 0.5, rows + 0.5, depth[hit]], -1)
    surface = camera.unproject(pixels)
    torch.testing.assert_close(surface.norm(dim=-1), torch.ones(len(surface)), rtol=0, atol=0.02)
    torch.testing.assert_close(normals[hit], surface, rtol=0, atol=0.06)
    radius = camera.focal[0] * math.tan(math.asin(1 / 3))
    assert hit.sum() == pytest.approx(math.pi * float(radius) ** 2, rel=0.02)


def test_silhouette_agrees_with_depth(ball, camera):
    silhouette = render_silhouette(ball, camera, blur=1.0)
    hit = render_depth(ball, camera) > 0
    assert (silhouette[hit] >= 0.5).all()
    fragments = rasterize(ball, camera, layers=60, blur=1.0)
    torch.testing.assert_close(silhouette, blend_silhouette(fragments, blur=1.0), rtol=0, atol=1e-5)


def test_moving_mesh_and_camera_together_keeps_the_image(ball):
    eye = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    turn = Camera.look_at(eye, height=1, width=1).camera_from_world
    mesh = ball.to(torch.float64)
    moved = mesh.replace(vertices=mesh.vertices @ turn[:3, :3].T + turn[:3, 3])
    here = Camera.look_at(eye - 4, fov_degrees=50, height=33, width=45)
    there = here.replace(camera_from_world=here.camera_from_world @ invert_rigid(turn))
    for render in (render_mesh, render_depth, render_silhouette):
        torch.testing.assert_close(render(moved, there), render(mesh, here), rtol=0, atol=1e-9)


def test_batches_of_meshes_and_cameras_broadcast(ball, camera):
    eyes = torch.tensor([[0.0, 0, -3], [0.5, 0.2, -2.5]])
    cameras = Camera.look_at(eyes, fov_degrees=50, height=20, width=24)
    both = render_mesh(ball, cameras, blur=1.0, layers=3)
    assert both.shape == (2, 20, 24, 3)
    for index in range(2):
        torch.testing.assert_close(both[index], render_mesh(ball, cameras[index], blur=1.0, layers=3))
    grid = render_mesh(ball.replace(vertices=ball.vertices.expand(3, 1, -1, -1)), cameras, blur=1.0, layers=3)
    torch.testing.assert_close(grid[2], both)
    poses = ball.replace(vertices=torch.stack([ball.vertices, ball.vertices * 0.5]))
    small = render_mesh(poses, camera)[1]
    torch.testing.assert_close(small, render_mesh(ball.replace(vertices=ball.vertices * 0.5), camera))
    assert flat(poses, rasterize(poses, camera), camera).shape == (2, 33, 45, 1, 3)
    assert gouraud(poses, rasterize(poses, camera), camera).shape == (2, 33, 45, 1, 3)


def test_interpolates_vertex_values_exactly(ball, camera):
    fragments = rasterize(ball, camera)
    positions = interpolate(fragments, ball.faces, ball.vertices)[..., 0, :]
    hit = fragments.face_ids[..., 0] >= 0
    projected = camera.project(positions[hit])
    rows, columns = hit.nonzero().unbind(-1)
    centers = torch.stack([columns + 0.5, rows + 0.5], -1)
    torch.testing.assert_close(projected[:, :2], centers, rtol=0, atol=1e-3)
    torch.testing.assert_close(projected[:, 2], fragments.depth[hit][:, 0])
    assert not positions[~hit].any()


def test_lambert_phong_and_gouraud_match_their_formulas(ball, camera):
    lit = {
        "lights": [DirectionalLight(torch.tensor([0.0, 0, -2]), 0.8), AmbientLight(0.1)],
        "color": (1.0, 0.5, 0.25),
    }
    fragments = rasterize(ball, camera)
    cosine = -render_normals(ball, camera)[..., 2]
    hit = cosine > 0
    matt = phong(ball, fragments, camera, **lit)[..., 0, :]
    expected = (0.8 * cosine + 0.1)[..., None] * torch.tensor([1.0, 0.5, 0.25])
    torch.testing.assert_close(matt[hit], expected[hit], rtol=1e-5, atol=1e-5)
    for shade in (gouraud, flat):
        other = shade(ball, fragments, camera, **lit)[..., 0, :]
        torch.testing.assert_close(other[hit], matt[hit], rtol=0, atol=0.15)
    shiny = phong(ball, fragments, camera, material=Material(specular=0.5, shininess=20.0), **lit)[..., 0, :]
    highlight = (shiny - matt)[16, 22]
    torch.testing.assert_close(highlight, torch.full((3,), 0.4), rtol=0.05, atol=0)  # white, at the middle
    assert (shiny - matt)[16, 33].max() < 0.01


@pytest.mark.parametrize("light", [Headlight(), PointLight(torch.tensor([0.0, 0, -3]))])
def test_headlight_matches_a_light_at_the_camera(ball, camera, light: Light):
    fragments = rasterize(ball, camera)
    expected = phong(ball, fragments, camera, [PointLight(camera.position)])
    torch.testing.assert_close(phong(ball, fragments, camera, [light]), expected, rtol=1e-4, atol=1e-5)


def test_both_sides_are_lit(camera, ball):
    inside_out = ball.replace(faces=ball.faces.flip(-1))
    torch.testing.assert_close(render_mesh(inside_out, camera), render_mesh(ball, camera), rtol=0, atol=1e-5)
    assert rasterize(inside_out, camera, cull=True).depth.max() > 3
    assert rasterize(ball, camera, cull=True).depth.max() < 3


def test_background_and_alpha(ball, camera):
    rgba = render_mesh(ball, camera, background=None, supersampling=2)
    white = render_mesh(ball, camera, supersampling=2)
    red = render_mesh(ball, camera, supersampling=2, background=(1.0, 0, 0))
    torch.testing.assert_close(white, rgba[..., :3] + 1 - rgba[..., 3:])
    torch.testing.assert_close(red[..., 1], rgba[..., 1])
    assert ((rgba[..., 3] > 0) & (rgba[..., 3] < 1)).any()


def test_texel_centers_are_half_a_texel_inside():
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(4, 4, 3, generator=generator)
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])  # y is down in the image, v is up
    texture = Texture(picture, uvs, square().faces)
    seen = sample_texture(rasterize(square(), square_camera(4)), texture)[..., 0, :]
    torch.testing.assert_close(seen, picture)
    finer = sample_texture(rasterize(square(), square_camera(8)), texture)[..., 0, :]
    torch.testing.assert_close(finer[0, 0], picture[0, 0])  # beyond the outermost centres nothing changes
    torch.testing.assert_close(finer[0, 1], 0.75 * picture[0, 0] + 0.25 * picture[0, 1])
    torch.testing.assert_close(
        render_mesh(square(), square_camera(4), texture=texture, lights=[AmbientLight()]), picture
    )


def test_vertex_colors_are_interpolated():
    mesh = square().replace(vertex_colors=torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]))
    image = render_mesh(mesh, square_camera(4), lights=[AmbientLight()])
    centers = (torch.arange(4) + 0.5) / 4
    torch.testing.assert_close(image[..., 0], centers.expand(4, 4))
    torch.testing.assert_close(image[..., 1], centers[:, None].expand(4, 4))


def test_softmax_blends_by_coverage_and_depth():
    red, green, _ = torch.eye(3)
    objects = [
        square(2.0).replace(vertex_colors=red.expand(4, 3)),
        square(3.0).replace(vertex_colors=green.expand(4, 3)),
    ]
    both = join_meshes(objects)
    fragments = rasterize(both, square_camera(), layers=8, blur=1.0)
    colors = interpolate(fragments, both.faces, both.vertex_colors)
    sharp = blend_softmax(colors, fragments, blur=1.0, gamma=1e-3)
    torch.testing.assert_close(sharp[4, 2], torch.tensor([1.0, 0, 0, 1]), rtol=0, atol=1e-2)
    mixed = blend_softmax(colors, fragments, blur=1.0, gamma=1e3)[4, 2]
    assert mixed[0] == pytest.approx(float(mixed[1]), abs=1e-2)
    torch.testing.assert_close(blend_hard(colors, fragments)[4, 2], torch.tensor([1.0, 0, 0, 1]))


def test_object_ids_and_joined_meshes():
    left = square().replace(vertices=square().vertices * torch.tensor([0.5, 1, 1]))
    right = square(3.0)
    ids = render_object_ids([left, right], square_camera())
    assert (ids[:, :4] == 0).all()
    assert (ids[:, 4:] == 1).all()
    assert (render_object_ids([left], square_camera())[:, 4:] == -1).all()


def test_gradients_of_soft_images():
    """Compare gradients of soft images with finite differences in float64."""
    generator = torch.Generator().manual_seed(3)
    mesh, camera = (
        ico_sphere(1).to(torch.float64),
        Camera.look_at([0.3, 0.5, -3.0], height=12, width=15).to(torch.float64),
    )
    colors = torch.rand(len(mesh.vertices), 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(12, 15, 4, generator=generator, dtype=torch.float64)
    light = [PointLight(torch.tensor([2.0, 2, -2], dtype=torch.float64))]

    def image(vertices: Tensor) -> Tensor:
        posed = mesh.replace(vertices=vertices, vertex_colors=colors)
        fragments = rasterize(posed, camera, layers=20, blur=3.0)
        shaded = phong(posed, fragments, camera, light, Material(specular=0.3, shininess=8.0))
        return blend_softmax(shaded, fragments, blur=3.0, gamma=0.1, depth_range=(1.0, 5.0))

    vertices = mesh.vertices.clone().requires_grad_()
    before = image(vertices)
    for _ in range(3):
        step = 1e-7 * torch.randn(vertices.shape, generator=generator, dtype=torch.float64)
        change = image(vertices.detach() + step) - image(vertices.detach() - step)
        smooth = change.detach().abs().amax(-1, keepdim=True) < 1e-5  # a face coming within `blur` is a step
        assert smooth.double().mean() > 0.98
        (gradient,) = torch.autograd.grad((before * weight * smooth).sum(), vertices, retain_graph=True)
        torch.testing.assert_close(
            (change * weight * smooth).sum(), 2 * (gradient * step).sum(), rtol=1e-3, atol=1e-10
        )


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_images_do_not_depend_on_scale(ball, camera, scale):
    eye = camera.position * scale
    far = Camera.look_at(eye, fov_degrees=50, height=33, width=45)
    image = render_mesh(ball.replace(vertices=ball.vertices * scale), far, blur=1.0, layers=4)
    torch.testing.assert_close(image, render_mesh(ball, camera, blur=1.0, layers=4), rtol=0, atol=2e-3)


def test_degenerate_meshes_are_rendered(ball, camera):
    empty = Mesh(ball.vertices, ball.faces[:0])
    assert (render_mesh(empty, camera) == 1).all()
    assert not render_depth(empty, camera).any()
    assert not render_silhouette(empty, camera).any()
    inside = Camera.look_at([0.0, 0.0, 0.1], height=9, width=9)
    depth = render_depth(ball, inside)
    assert (depth > 0).all()
    flat_ball = ball.replace(vertices=(ball.vertices * torch.tensor([1.0, 0, 1])).requires_grad_())
    image, silhouette = render_mesh(flat_ball, camera, blur=1.0), render_silhouette(flat_ball, camera)
    (gradient,) = torch.autograd.grad(image.sum() + silhouette.sum(), flat_ball.vertices)
    assert gradient.isfinite().all()


def test_nearer_points_occlude_others(camera):
    points = torch.tensor([[0.0, 0, 0], [0, 0, -1], [0.7, 0, 0], [0, 0, -9]])
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    image = render_points(PointCloud(points, colors=colors), camera, radius=2.0)
    torch.testing.assert_close(image[16, 22], torch.tensor([0.0, 1, 0]))
    assert (image == torch.tensor([0.0, 0, 1])).all(-1).sum() in range(9, 14)
    assert not (image == torch.tensor([1.0, 0, 0])).all(-1).any()


def cow_texture() -> Texture:
    """Load the cow's texture, converted from PyTorch3D, where UVs 0 and 1 are the outermost texel centers."""
    folder = SHARED / "data/meshes/cow"
    picture = torch.from_numpy(np.asarray(Image.open(folder / "cow_texture.png").convert("RGB")).copy()) / 255
    lines = [line.split() for line in (folder / "cow.obj").read_text().splitlines()]
    uvs = torch.tensor([[float(x) for x in line[1:3]] for line in lines if line[:1] == ["vt"]])
    faces = torch.tensor(
        [[int(x.split("/")[1]) - 1 for x in line[1:4]] for line in lines if line[:1] == ["f"]]
    )
    size = torch.tensor([picture.shape[1], picture.shape[0]])
    return Texture(picture, (uvs * (size - 1) + 0.5) / size, faces)


@pytest.mark.parametrize("name", ["hard_phong", "soft_phong"])
def test_agrees_with_pytorch3d(name):
    path = SHARED / f"golden/{name}.npz"
    if not path.exists():
        pytest.skip("no reference arrays")
    golden = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
    vertices = golden["vertices"].double().requires_grad_()
    camera = Camera.from_pytorch3d(golden["R"], golden["T"], math.sqrt(3), height=96, width=96).to(
        torch.float64
    )
    mesh, light = Mesh(vertices, golden["faces"]), PointLight(golden["light_location"])
    soft = name == "soft_phong"
    blur = 48 * math.sqrt(1e-4 * math.log(1 / 1e-4 - 1)) if soft else 0.0
    fragments = rasterize(mesh, camera, layers=10 if soft else 1, blur=blur)
    material = Material(diffuse=0.3, specular=0.2)
    texture = cow_texture().to(torch.float64)
    colors = phong(mesh, fragments, camera, [AmbientLight(0.5), light], material, texture=texture)
    if soft:
        image = blend_softmax(colors, fragments, blur=blur, depth_range=(1.0, 100.0))
    else:
        image = blend_hard(colors, fragments)
    torch.testing.assert_close(image, golden["image_rgba"].double(), rtol=1e-4, atol=1e-4)
    (image * golden["cotangent"]).sum().backward()
    corners = camera.project(vertices)[0, :, :2][golden["faces"]].detach()
    (ax, ay), (bx, by) = (
        (corners[:, 1] - corners[:, 0]).unbind(-1),
        (corners[:, 2] - corners[:, 0]).unbind(-1),
    )
    slivers = golden["faces"][(ax * by - bx * ay).abs() < 0.06].unique()  # PyTorch3D's float32 gives 1e7
    compared = torch.ones(len(vertices), dtype=torch.bool).index_fill(0, slivers, not soft)
    expected = golden["grad_vertices"][compared].double()
    error = (vertices.grad[compared] - expected).abs() / expected.abs().max()
    assert error.max() < 1e-3
