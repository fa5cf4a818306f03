import math
import sys

import pytest
import torch

from unrender import Camera, PointLight, ico_sphere, render_mesh
from unrender.compat.pytorch3d import renderer as r
from unrender.compat.pytorch3d.ops import interpolate_face_attributes
from unrender.compat.pytorch3d.renderer.mesh import (
    ClipFrustum,
    clip_faces,
    convert_clipped_rasterization_to_original_faces,
)
from unrender.compat.pytorch3d.renderer.mesh.shading import _apply_lighting
from unrender.compat.pytorch3d.structures import Meshes, join_meshes_as_batch, join_meshes_as_scene
from unrender.compat.pytorch3d.utils import torus
from unrender.errors import InputError

REACH = math.log(1 / 1e-4 - 1)
LIGHT = ((2.0, 2.0, 2.0),)


def colored(meshes):
    colors = [(verts + 1.5) / 3 for verts in meshes.verts_list()]
    return Meshes(meshes.verts_list(), meshes.faces_list(), r.TexturesVertex(colors))


@pytest.fixture
def two():
    """A sphere and a torus, with colors."""
    ball = ico_sphere(2)
    return colored(join_meshes_as_batch([Meshes([ball.vertices], [ball.faces]), torus(0.3, 0.9, 8, 12)]))


@pytest.fixture
def cameras():
    R, T = r.look_at_view_transform(3.0, 30.0, [10.0, 40.0])
    return r.FoVPerspectiveCameras(R=R, T=T)


def renderer(shader, **settings):
    settings = r.RasterizationSettings(**({"image_size": (24, 32)} | settings))
    return r.MeshRenderer(r.MeshRasterizer(raster_settings=settings), shader)


SHADERS = ["HardPhongShader", "SoftPhongShader", "HardGouraudShader", "SoftGouraudShader", "HardFlatShader"]


@pytest.mark.parametrize("name", SHADERS)
def test_a_batch_is_its_members(name, two, cameras):
    soft = {"blur_radius": REACH * 1e-4, "faces_per_pixel": 5} if "Soft" in name else {}
    lights = r.PointLights(location=((2.0, 2.0, 2.0), (-2.0, 1.0, 2.0)))
    draw = renderer(getattr(r, name)(lights=lights), **soft)
    images = draw(two, cameras=cameras)
    assert images.shape == (2, 24, 32, 4)
    assert 0.05 < images[..., 3].mean() < 0.9
    for i in range(2):
        one = draw(two[i], cameras=cameras[i], lights=lights.gather_props(torch.tensor([i])))
        torch.testing.assert_close(one[0], images[i])


def test_same_picture_as_ours(cameras):
    ball = ico_sphere(2)
    colors = (ball.vertices + 1.5) / 3
    eye = cameras[0].get_camera_center()[0]
    camera = Camera.look_at(eye, fov_degrees=60.0, height=24, width=24)
    ours = render_mesh(
        ball.replace(vertex_colors=colors), camera, lights=[PointLight(torch.tensor(LIGHT[0]))]
    )
    lights = r.PointLights(location=LIGHT, ambient_color=((0.0,) * 3,), diffuse_color=((1.0,) * 3,))
    draw = renderer(
        r.HardPhongShader(lights=lights, materials=r.Materials(specular_color=((0.0,) * 3,))), image_size=24
    )
    theirs = draw(colored(Meshes([ball.vertices], [ball.faces])), cameras=cameras[0])
    torch.testing.assert_close(theirs[0, ..., :3], ours[..., :3], rtol=1e-3, atol=1e-4)


def test_fragments_count_through_the_batch(two, cameras):
    rasterizer = r.MeshRasterizer(cameras, r.RasterizationSettings(image_size=24, faces_per_pixel=3))
    found = rasterizer(two)
    filled = found.pix_to_face >= 0
    assert found.pix_to_face.dtype == torch.int64
    assert int(found.pix_to_face[0].max()) < 320 <= int(found.pix_to_face[1][filled[1]].min())
    for field in (found.zbuf, found.bary_coords[..., 0], found.dists):
        assert (field[~filled] == -1).all()
    direct = r.rasterize_meshes(
        rasterizer.transform(two), 24, faces_per_pixel=3, perspective_correct=True, z_clip_value=0.5
    )
    for mine, theirs in zip(
        direct, (found.pix_to_face, found.zbuf, found.bary_coords, found.dists), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_barycentrics_that_are_not_clipped(two, cameras):
    settings = {"image_size": 24, "faces_per_pixel": 2, "blur_radius": 2e-2}
    clipped, free = (
        r.MeshRasterizer(cameras, r.RasterizationSettings(**settings, clip_barycentric_coords=clip))(two)
        for clip in (None, False)
    )
    filled = clipped.pix_to_face >= 0
    inside = filled & (clipped.dists < 0)
    torch.testing.assert_close(free.bary_coords[inside], clipped.bary_coords[inside], rtol=1e-3, atol=1e-4)
    assert clipped.bary_coords[filled].min() >= 0 > free.bary_coords[filled].min()
    assert free.bary_coords[filled].sum(-1).tolist() == pytest.approx([1] * int(filled.sum()), abs=1e-3)


def test_silhouettes_see_all_faces(two, cameras):
    blend = r.BlendParams(sigma=1e-3)
    draw = renderer(r.SoftSilhouetteShader(blend), blur_radius=REACH * 1e-3, faces_per_pixel=200)
    whole = draw(two, cameras=cameras)
    by_layers = draw.shader(draw.rasterizer(two, cameras=cameras), two)
    torch.testing.assert_close(whole, by_layers, rtol=0, atol=1e-5)
    assert (whole[..., :3] == 1).all()
    few = renderer(r.SoftSilhouetteShader(blend), blur_radius=REACH * 1e-3, faces_per_pixel=1)
    torch.testing.assert_close(few(two, cameras=cameras), whole)


def test_gradients_reach_everything(two, cameras):
    lights, R = r.PointLights(location=LIGHT), cameras.R.clone().requires_grad_()
    location = torch.tensor(LIGHT, requires_grad=True)
    lights.location = location
    offsets = torch.zeros_like(two.verts_packed(), requires_grad=True)
    draw = renderer(r.SoftPhongShader(lights=lights), blur_radius=1e-3, faces_per_pixel=4)
    image = draw(two.offset_verts(offsets), cameras=cameras, R=R, T=cameras.T)
    (image * torch.rand_like(image)).sum().backward()
    for leaf in (offsets, R, location):
        assert leaf.grad.isfinite().all()
        assert leaf.grad.any()


def test_call_time_settings_win(two, cameras):
    draw = renderer(r.HardPhongShader(), image_size=16)
    dark = draw(two, cameras=cameras, lights=r.AmbientLights(ambient_color=((0.0,) * 3,)))
    assert dark[..., :3][dark[..., 3] > 0].max() == 0
    blue = draw(two, cameras=cameras, blend_params=r.BlendParams(background_color=(0.0, 0.0, 1.0)))
    assert blue[0, 0, 0].tolist() == [0, 0, 1, 0]
    one = r.MeshRendererWithFragments(draw.rasterizer, draw.shader)
    images, fragments = one(two, cameras=cameras, raster_settings=r.RasterizationSettings(image_size=8))
    assert images.shape[:3] == fragments.pix_to_face.shape[:3] == (2, 8, 8)


def test_lights_of_ones_own(two, cameras):
    class Everywhere(r.TensorProperties):
        def __init__(self):
            super().__init__(ambient_color=((0.5, 0.5, 0.5),))

        def diffuse(self, normals, points):
            return torch.zeros_like(points)

        def specular(self, normals, points, camera_position, shininess):
            return torch.zeros_like(points)

    draw = renderer(r.HardPhongShader())
    ours = draw(two, cameras=cameras, lights=r.AmbientLights(ambient_color=((0.5, 0.5, 0.5),)))
    torch.testing.assert_close(draw(two, cameras=cameras, lights=Everywhere()), ours)


@pytest.mark.parametrize("lights", [r.PointLights(location=LIGHT), r.DirectionalLights(direction=LIGHT)])
def test_shaders_of_ones_own(two, cameras, lights):
    """Custom shaders call a private function of PyTorch3D's."""
    fragments = r.MeshRasterizer(cameras, r.RasterizationSettings(image_size=24, faces_per_pixel=2))(two)
    texels, materials = two.sample_textures(fragments), r.Materials(shininess=10.0)
    values = torch.cat([two.verts_packed(), two.verts_normals_packed()], -1)[two.faces_packed()]
    places = interpolate_face_attributes(fragments.pix_to_face, fragments.bary_coords, values)
    ambient, diffuse, specular = _apply_lighting(*places.split(3, -1), lights, cameras, materials)
    shaded = r.phong_shading(two, fragments, lights, cameras, materials, texels)
    there = fragments.pix_to_face >= 0
    torch.testing.assert_close(((ambient + diffuse) * texels + specular)[there], shaded[there])


@pytest.mark.parametrize("kind", ["PointLights", "DirectionalLights"])
def test_lights_by_themselves(kind):
    torch.manual_seed(0)
    lights = getattr(r, kind)(specular_color=((1.0, 0.5, 0.0),))
    points, normals = torch.randn(2, 3, 4, 3), torch.randn(2, 3, 4, 3)
    unit = torch.nn.functional.normalize(normals, dim=-1)
    towards = lights.location - points if kind == "PointLights" else lights.direction.expand_as(points)
    towards = torch.nn.functional.normalize(towards, dim=-1)
    cosine = (unit * towards).sum(-1, keepdim=True)
    torch.testing.assert_close(lights.diffuse(normals, points), 0.3 * cosine.clamp(min=0).expand_as(points))
    eyes = torch.randn(2, 3)
    views = torch.nn.functional.normalize(eyes[:, None, None] - points, dim=-1)
    mirrored = ((2 * cosine * unit - towards) * views).sum(-1, keepdim=True).clamp(min=0) * (cosine > 0)
    expected = mirrored**8 * torch.tensor([1.0, 0.5, 0.0])
    torch.testing.assert_close(
        lights.specular(normals, points, eyes, torch.tensor([8.0])), expected, atol=1e-5, rtol=1e-4
    )


def test_pictures_on_joined_meshes(cameras):
    torch.manual_seed(0)
    ball = ico_sphere(1)
    textures = r.TexturesUV(
        [torch.rand(5, 7, 3), torch.rand(4, 3, 3)], [ball.faces] * 2, [torch.rand(42, 2), torch.rand(42, 2)]
    )
    batch = Meshes([ball.vertices, ball.vertices + 0.7], [ball.faces] * 2, textures)
    scene = join_meshes_as_scene(batch)
    weights = torch.rand(2, 30, 1, 1, 3)
    weights = weights / weights.sum(-1, keepdim=True)
    faces = torch.stack([torch.randint(80, (30,)), torch.randint(80, (30,)) + 80]).view(2, 30, 1, 1)
    apart = batch.sample_textures(r.Fragments(faces, weights[..., 0], weights, None))
    joined = scene.sample_textures(
        r.Fragments(
            faces.view(1, 60, 1, 1), weights[..., 0].view(1, 60, 1, 1), weights.view(1, 60, 1, 1, 3), None
        )
    )
    torch.testing.assert_close(joined.view(-1, 3), apart.view(-1, 3), rtol=1e-4, atol=1e-4)


def test_cameras_agree_with_one_another():
    torch.manual_seed(0)
    R, T = r.look_at_view_transform(3.0, [20.0, 40.0], 30.0)
    points = torch.rand(2, 6, 3) - 0.5
    fov = r.FoVPerspectiveCameras(R=R, T=T, fov=60.0)
    ndc = r.PerspectiveCameras(1 / math.tan(math.pi / 6), R=R, T=T)
    size = ((48.0, 64.0),)
    screen = r.PerspectiveCameras(
        24 / math.tan(math.pi / 6), ((32.0, 24.0),), R=R, T=T, in_ndc=False, image_size=size
    )
    expected = fov.transform_points_screen(points, image_size=size)[..., :2]
    torch.testing.assert_close(ndc.transform_points_screen(points, image_size=size)[..., :2], expected)
    torch.testing.assert_close(
        screen.transform_points_screen(points)[..., :2], expected, rtol=1e-4, atol=1e-3
    )
    core = Camera.from_pytorch3d(R, T, 1 / math.tan(math.pi / 6), height=48, width=64)
    torch.testing.assert_close(core.project(points)[..., :2], expected, rtol=1e-4, atol=1e-3)
    for cameras, ours in ((fov, {}), (ndc, {}), (screen, {"from_ndc": True})):
        depth = cameras.get_world_to_view_transform().transform_points(points)[..., 2:]
        seen = torch.cat([cameras.transform_points_ndc(points)[..., :2], depth], -1)
        torch.testing.assert_close(cameras.unproject_points(seen, **ours), points, rtol=1e-4, atol=1e-4)


def test_orthographic_cameras():
    torch.manual_seed(0)
    R, T = r.look_at_view_transform(3.0, [20.0, 40.0], 30.0)
    points = torch.rand(2, 6, 3) - 0.5
    fov = r.FoVOrthographicCameras(R=R, T=T, max_x=2.0, min_x=-2.0, max_y=2.0, min_y=-2.0)
    ndc = r.OrthographicCameras(0.5, R=R, T=T)
    seen = fov.transform_points(points)
    torch.testing.assert_close(ndc.transform_points(points)[..., :2], seen[..., :2])
    depth = fov.get_world_to_view_transform().transform_points(points)[..., 2:]
    for cameras in (fov, ndc):
        torch.testing.assert_close(cameras.unproject_points(torch.cat([seen[..., :2], depth], -1)), points)
        ball = ico_sphere(2)
        draw = renderer(r.SoftSilhouetteShader(), image_size=32, blur_radius=REACH * 1e-4, faces_per_pixel=9)
        image = draw(Meshes([ball.vertices] * 2, [ball.faces] * 2), cameras=cameras)
        assert image[0, ..., 3].sum().item() == pytest.approx(math.pi * 8**2, rel=0.05)


def test_says_what_is_wrong(two, cameras):
    draw = renderer(r.HardPhongShader())
    with pytest.raises(InputError, match="Cameras must be specified"):
        draw(two)
    with pytest.raises(InputError, match="1 camera, or 3"):
        draw(two[[0, 1, 0]], cameras=cameras)
    with pytest.raises(InputError, match="have no textures"):
        draw(Meshes(two.verts_list(), two.faces_list()), cameras=cameras)
    with pytest.raises(InputError, match="TexturesVertex"):
        renderer(r.HardGouraudShader())(Meshes(two.verts_list(), two.faces_list()), cameras=cameras)
    with pytest.raises(InputError, match="settings should have one common batch size"):
        r.PointLights(location=torch.rand(3, 3), ambient_color=torch.rand(2, 3))
    with pytest.raises(InputError, match="NDC become pixels only with `image_size"):
        cameras.transform_points_screen(torch.rand(2, 4, 3))
    with pytest.raises(InputError, match=r"`K` should be \[2, 4, 4\]"):
        cameras.transform_points(torch.rand(2, 4, 3), K=torch.eye(4)[None])


INTRINSICS = {
    "field of view": lambda R, T: r.FoVPerspectiveCameras(fov=50.0, aspect_ratio=1.2, R=R, T=T),
    "perspective": lambda R, T: r.PerspectiveCameras(1.8, ((0.1, -0.2),), R=R, T=T),
    "orthographic": lambda R, T: r.OrthographicCameras(((0.5, 0.6),), ((0.1, -0.2),), R=R, T=T),
}


@pytest.mark.parametrize("kind", INTRINSICS)
def test_cameras_on_a_gpu_project_as_matrices_do(kind, two, monkeypatch):
    def render(eye):
        R = r.look_at_rotation(eye)
        T = -(eye[:, None] @ R)[:, 0]
        cameras, reach = INTRINSICS[kind](R, T), {"blur_radius": REACH * 1e-4, "faces_per_pixel": 3}
        draw = renderer(r.SoftSilhouetteShader(r.BlendParams(sigma=1e-4)), **reach)
        fragments = draw.rasterizer(two, cameras=cameras)
        return draw(two, cameras=cameras)[..., 3], fragments.zbuf, fragments.dists

    results = []
    for on_gpu in (False, True):
        if on_gpu:
            for module in ("mesh.rasterizer", "mesh.rasterize_meshes", "_cameras"):
                monkeypatch.setattr(sys.modules[f"{r.__name__}.{module}"], "can_read", lambda _: False)
        eye = torch.tensor([[0.5, 1.0, 3.0], [-1.0, 0.3, 2.5]], requires_grad=True)
        images = render(eye)
        (gradient,) = torch.autograd.grad((images[0] * torch.linspace(0, 1, 32)).sum(), eye)
        results.append((*images, gradient))
    for matrices, short in zip(*results, strict=True):
        torch.testing.assert_close(short, matrices, rtol=1e-3, atol=1e-3)


def test_blends_fragments_of_which_the_rest_is_missing():
    ids = torch.tensor([[[[0, 1]], [[-1, -1]]]])
    dists, depth = torch.tensor([-2e-4, 1e-4]).expand(ids.shape), torch.tensor([2.0, 3.0]).expand(ids.shape)
    colors, nothing = torch.rand(*ids.shape, 3), torch.empty(0)
    settings = r.BlendParams(background_color=(0.0, 0.5, 1.0))
    hard = r.hard_rgb_blend(colors, r.Fragments(ids, ids, nothing, ids), settings)
    assert torch.equal(hard[0, :, 0, :3], torch.stack([colors[0, 0, 0, 0], torch.tensor([0, 0.5, 1])]))
    alpha = 1 - (1 - torch.sigmoid(torch.tensor(2.0))) * (1 - torch.sigmoid(torch.tensor(-1.0)))
    for image in (
        r.sigmoid_alpha_blend(colors, r.Fragments(ids, nothing, nothing, dists), settings),
        r.softmax_rgb_blend(colors, r.Fragments(ids, depth, nothing, dists), settings),
    ):
        torch.testing.assert_close(image[0, :, 0, 3], torch.stack([alpha, torch.tensor(0.0)]))


def test_refuses_to_rasterize_faces_without_vertices():
    mesh = Meshes([torch.rand(3, 3)], [torch.tensor([[0, 1, 10**12]])])
    rasterizer = r.MeshRasterizer(r.FoVPerspectiveCameras(), r.RasterizationSettings(image_size=4))
    for rasterize in (rasterizer, r.rasterize_meshes):
        with pytest.raises(InputError, match="`faces` should index vertices 0 to 2"):
            rasterize(mesh)


def test_look_at_rotation_refuses_single_numbers():
    with pytest.raises(InputError, match=r"positions and directions should be \[N, 3\]"):
        r.look_at_rotation([-1.0])


def clipped(corners, **frustum):
    corners = torch.tensor(corners)
    count = torch.tensor([len(corners)])
    return clip_faces(corners, torch.tensor([0]), count, ClipFrustum(z_clip_value=1.0, **frustum))


FRONT, CROSSING, TWO_BEHIND = (
    [[0.0, 0, 2], [1, 0, 2], [0, 1, 3]],
    [[0.0, 0, 0], [4, 0, 2], [0, 4, 2]],
    [[0.0, 0, 3], [2, 0, -1], [0, 2, -1]],
)


def test_faces_are_clipped_at_the_near_plane():
    whole = clipped([FRONT, FRONT])
    assert whole.face_verts.shape == (2, 3, 3)
    assert whole.barycentric_conversion is None
    parts = clipped([TWO_BEHIND, CROSSING, FRONT, [[0.0, 0, 0]] * 3])
    assert parts.faces_clipped_to_unclipped_idx.tolist() == [0, 1, 1, 2]
    assert parts.clipped_faces_neighbor_idx.tolist() == [-1, 2, 1, -1]
    assert parts.faces_clipped_to_conversion_idx.tolist() == [0, 1, 2, -1]
    assert parts.num_faces_per_mesh.tolist() == [4]
    assert parts.face_verts[0].tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 3]]
    assert parts.face_verts[2].tolist() == [[0, 2, 1], [4, 0, 2], [0, 4, 2]]
    beside = [[5.0, 0, 2], [6, 0, 2], [5, 1, 2]]
    assert clipped([FRONT, beside], right=4.0).num_faces_per_mesh.tolist() == [1]
    assert clipped([FRONT, beside], right=4.0, cull=False).num_faces_per_mesh.tolist() == [2]


def test_clipped_faces_project_to_where_their_faces_do():
    face = torch.tensor([[[1.0, 2, -1], [4, 0, 2], [0, 4, 2]]])
    divided = torch.cat([face[..., :2] / face[..., 2:], face[..., 2:]], -1)
    expected = clipped(face.tolist()).face_verts
    found = clipped(divided.tolist(), perspective_correct=True).face_verts
    torch.testing.assert_close(torch.cat([found[..., :2] * found[..., 2:], found[..., 2:]], -1), expected)


def test_fragments_of_clipped_faces_are_those_of_their_faces():
    parts = clipped([FRONT, CROSSING])
    pixels = torch.tensor([[[[2, 0, -1]]]])
    weights = torch.tensor([1.0, 0, 0]).expand(1, 1, 1, 3, 3)
    faces, whole = convert_clipped_rasterization_to_original_faces(pixels, weights, parts)
    assert faces.tolist() == [[[[1, 0, -1]]]]
    assert whole[0, 0, 0].tolist() == [[0.5, 0, 0.5], [1, 0, 0], [1, 0, 0]]
