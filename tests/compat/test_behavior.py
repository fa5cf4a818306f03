"""What scripts rely on besides values: leaves, copies, classes, warnings, handles."""

import copy
import io
import warnings

import pytest
import torch

from unrender.compat.pytorch3d import renderer as r
from unrender.compat.pytorch3d.common.linear_with_repeat import LinearWithRepeat
from unrender.compat.pytorch3d.io import IO, load_obj, load_ply, save_obj, save_ply
from unrender.compat.pytorch3d.io.pluggable_formats import MeshFormatInterpreter
from unrender.compat.pytorch3d.loss import mesh_edge_loss, point_mesh_edge_distance
from unrender.compat.pytorch3d.ops import (
    corresponding_cameras_alignment,
    knn_gather,
    sample_farthest_points,
    sample_points_from_meshes,
)
from unrender.compat.pytorch3d.renderer.camera_utils import camera_to_eye_at_up
from unrender.compat.pytorch3d.structures import (
    Meshes,
    Pointclouds,
    Volumes,
    join_pointclouds_as_batch,
    join_pointclouds_as_scene,
)
from unrender.compat.pytorch3d.structures.utils import list_to_padded, padded_to_packed
from unrender.compat.pytorch3d.transforms import (
    RotateAxisAngle,
    Translate,
    acos_linear_extrapolation,
    hat,
    hat_inv,
    random_rotations,
    rotation_6d_to_matrix,
    se3_log_map,
    so3_exp_map,
    so3_log_map,
    so3_rotation_angle,
)
from unrender.compat.pytorch3d.utils import (
    cameras_from_opencv_projection,
    checkerboard,
    ico_sphere,
    opencv_from_cameras_projection,
)
from unrender.compat.pytorch3d.vis import get_camera_wireframe, texturesuv_image_PIL


def test_layouts_are_leaves():
    meshes = Meshes([torch.rand(4, 3), torch.rand(3, 3)], [torch.tensor([[0, 1, 2]])] * 2)
    leaf = meshes.verts_packed().requires_grad_()
    mesh_edge_loss(meshes).backward()
    assert leaf.grad[:3].any()
    assert leaf.grad[4:].any()
    padded = torch.rand(2, 5, 3, requires_grad=True)
    clouds = Pointclouds(padded)
    assert clouds.points_padded() is padded
    clouds.points_packed().sum().backward()
    assert torch.equal(padded.grad, torch.ones_like(padded))
    with torch.no_grad():
        other = Meshes([torch.rand(3, 3, requires_grad=True)] * 2, [torch.tensor([[0, 1, 2]])] * 2)
        other.verts_packed()
    assert other.verts_packed().requires_grad


def test_copies_and_classes():
    ball = ico_sphere(0)
    many = ball.extend(2)
    many.verts_list()[0].add_(1)
    assert torch.equal(many.verts_list()[1], ball.verts_list()[0])
    assert type(Translate(torch.rand(3, 3))[1]) is Translate
    assert len(Translate(torch.rand(3, 3))[1]) == 1
    assert rotation_6d_to_matrix(torch.rand(2, 6)).is_contiguous()
    assert ball.edges_packed().is_contiguous()
    part = ball.submeshes([[torch.tensor([0, 1]), torch.tensor([5])]])
    assert [len(f) for f in part.faces_list()] == [2, 1]
    assert torch.equal(
        part.verts_list()[1][part.faces_list()[1]], ball.verts_packed()[ball.faces_packed()[5:6]]
    )


def test_clouds_in_boxes_and_joined():
    cloud = Pointclouds([torch.tensor([[0.0, 0, 0], [2, 0, 0]])])
    assert cloud.inside_box(torch.tensor([[-1.0, -1, -1], [1, 1, 1]])).tolist() == [True, False]
    assert len(join_pointclouds_as_batch([cloud, cloud])) == 2
    assert join_pointclouds_as_scene([cloud, cloud]).points_packed().shape == (4, 3)
    empty = Pointclouds([])
    assert empty.isempty()
    assert empty.points_packed().shape == (0, 3)


def test_shading_of_five_channels():
    ball = ico_sphere(1)
    ball.textures = r.TexturesVertex([torch.rand(42, 5)])
    R, T = r.look_at_view_transform(2.7)
    cameras = r.FoVPerspectiveCameras(R=R, T=T)
    rasterizer = r.MeshRasterizer(cameras, r.RasterizationSettings(image_size=8))
    white, black = ((1.0,) * 5,), ((0.0,) * 5,)
    materials = r.Materials(ambient_color=white, diffuse_color=black, specular_color=black)
    lights = r.AmbientLights(ambient_color=white)
    for shader in (r.HardPhongShader, r.SoftPhongShader, r.HardGouraudShader, r.HardFlatShader):
        blend = r.BlendParams(background_color=(0.5,) * 5)
        images = r.MeshRenderer(rasterizer, shader("cpu", cameras, lights, materials, blend))(ball)
        assert images.shape == (1, 8, 8, 6)
        assert images[0, 0, 0].tolist() == [0.5] * 5 + [0]
    depth = r.MeshRenderer(rasterizer, r.HardDepthShader(cameras=cameras))(ball)
    assert depth.shape == (1, 8, 8, 1)
    assert float(depth[0, 0, 0, 0]) == 100
    assert 1.6 < float(depth[0, 4, 4, 0]) < 1.9
    soft = r.MeshRenderer(rasterizer, r.SoftDepthShader(cameras=cameras))(ball)
    assert soft.shape == depth.shape


def test_lights_and_terms_by_themselves():
    normals = torch.tensor([[0.0, 0, 1]])
    lights = r.DirectionalLights(direction=((0, 0, 2),))
    torch.testing.assert_close(lights.diffuse(normals=normals), torch.full((1, 3), 0.3))
    color, towards = torch.tensor([[1.0, 0.5, 0]]), torch.tensor([[0.0, 1, 1]])
    assert r.diffuse(normals, color, towards)[0].tolist() == pytest.approx([0.5**0.5, 0.5**1.5, 0])
    shine = r.specular(
        torch.zeros(1, 3), normals, towards, color, torch.tensor([[0.0, -1, 1]]), torch.tensor([2.0])
    )
    assert shine[0].tolist() == pytest.approx([1, 0.5, 0], abs=1e-5)


def test_handles_and_warnings(tmp_path):
    verts, faces = ico_sphere(0).get_mesh_verts_faces(0)
    text = io.StringIO()
    save_obj(text, verts, faces)
    text.seek(0)
    assert torch.equal(load_obj(text)[1].verts_idx, faces)
    for ascii in (True, False):
        data = io.BytesIO()
        save_ply(data, verts, faces, ascii=ascii)
        data.seek(0)
        assert torch.equal(load_ply(data)[0], verts)
    (tmp_path / "a.obj").write_text("mtllib none.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.warns(UserWarning, match="Mtl file does not exist"):
        assert load_obj(tmp_path / "a.obj")[2].texture_images is None


def test_formats_of_ones_own():
    class Nothing(MeshFormatInterpreter):
        def read(self, path, include_textures, device, path_manager=None, **kwargs):
            return Meshes([], []) if path == "nothing" else None

    files = IO()
    files.register_meshes_format(Nothing())
    assert len(files.load_mesh("nothing")) == 0
    with pytest.raises(ValueError, match="No mesh interpreter found to read"):
        IO(include_default_formats=False).load_mesh("a.obj")


def test_cameras_of_opencv():
    R, T = random_rotations(2), torch.rand(2, 3) + 3
    K = torch.tensor([[[50.0, 0, 20], [0, 60, 14], [0, 0, 1]]]).expand(2, 3, 3)
    size = torch.tensor([[30, 40]] * 2)
    cameras = cameras_from_opencv_projection(R, T, K, size)
    points = torch.rand(2, 5, 3)
    seen = (points @ R.mT + T[:, None]) @ K.mT
    expected = seen[..., :2] / seen[..., 2:]
    torch.testing.assert_close(
        cameras.transform_points_screen(points)[..., :2], expected, rtol=1e-3, atol=1e-2
    )
    for found, given in zip(opencv_from_cameras_projection(cameras, size), (R, T, K), strict=True):
        torch.testing.assert_close(found, given)


def test_poses_and_batches_of_cameras():
    R, T = r.look_at_view_transform(dist=3, elev=20, azim=torch.tensor([30.0, 70]))
    cameras = r.FoVPerspectiveCameras(R=R, T=T, fov=50)
    eye, at, up = camera_to_eye_at_up(cameras.get_world_to_view_transform())
    again, _ = r.look_at_view_transform(eye=eye, at=at, up=up)
    torch.testing.assert_close(again, R)
    joined = r.join_cameras_as_batch([cameras[0], cameras[1]])
    assert torch.equal(joined.T, T)
    assert joined.fov.tolist() == [50, 50]
    turned, moved = r.rotate_on_spot(R, T, random_rotations(2))
    centers = r.FoVPerspectiveCameras(R=turned, T=moved).get_camera_center()
    torch.testing.assert_close(centers, cameras.get_camera_center(), atol=1e-5, rtol=1e-4)
    with pytest.warns(PendingDeprecationWarning):
        assert type(r.OpenGLPerspectiveCameras()) is r.FoVPerspectiveCameras


@pytest.mark.parametrize("mode", ["centers", "extrinsics"])
def test_alignment_of_cameras(mode):
    torch.manual_seed(0)
    cameras = r.PerspectiveCameras(R=random_rotations(6), T=torch.randn(6, 3))
    turn, shift, scale = random_rotations(1)[0], torch.rand(1, 3), 2.5
    moved = r.PerspectiveCameras(R=turn @ cameras.R, T=(shift @ cameras.R)[:, 0] + scale * cameras.T)
    found = corresponding_cameras_alignment(cameras, moved, mode=mode)
    torch.testing.assert_close(found.R, moved.R, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.T, moved.T, atol=1e-3, rtol=0)


def test_functions_of_rotations():
    vectors = torch.rand(4, 3)
    assert torch.equal(hat_inv(hat(vectors)), vectors)
    with pytest.raises(ValueError, match="not skew-symmetric"):
        hat_inv(torch.ones(1, 3, 3))
    x = torch.tensor([-2.0, 0.3, 1.0], requires_grad=True)
    values = acos_linear_extrapolation(x, (-0.5, 0.9))
    assert values[1].item() == pytest.approx(1.266104, abs=1e-5)
    values.sum().backward()
    assert x.grad.tolist() == pytest.approx([-1 / 0.75**0.5, -1 / 0.91**0.5, -1 / 0.19**0.5], rel=1e-4)


def test_the_rest(tmp_path):
    board = checkerboard(2)
    assert board.faces_packed().shape == (32, 3)
    own, shared = torch.rand(2, 5, 3), torch.rand(2, 4)
    layer = LinearWithRepeat(7, 6)
    whole = torch.cat([own, shared[:, None].expand(2, 5, 4)], -1)
    expected = torch.nn.functional.linear(whole, layer.weight, layer.bias)
    torch.testing.assert_close(layer((own, shared)), expected)
    assert get_camera_wireframe().shape == (15, 3)
    texture = r.TexturesUV(torch.rand(1, 4, 6, 3), torch.tensor([[[0, 1, 2]]]), torch.rand(1, 3, 2))
    assert texturesuv_image_PIL(texture).size == (6, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        triangle = Meshes([torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])], [torch.tensor([[0, 1, 2]])])
    cloud = Pointclouds([torch.tensor([[0.5, 0.0, 2.0]])])
    edges = [4.0, 4.125, 4.25]  # of the edge below, the diagonal, and the one beside it
    expected = 4.0 + sum(edges) / 3
    assert float(point_mesh_edge_distance(triangle, cloud)) == pytest.approx(expected)


def test_empty_members_without_columns():
    nothing, ball = torch.tensor([]), ico_sphere(0).get_mesh_verts_faces(0)
    meshes = Meshes([nothing, ball[0]], [nothing, ball[1]])
    assert meshes.valid.tolist() == [False, True]
    assert meshes.verts_padded().shape == (2, 12, 3)
    assert meshes.faces_padded().shape == (2, 20, 3)
    assert not Meshes([], []).verts_packed().numel()
    clouds = Pointclouds([nothing, torch.rand(2, 3)])
    assert clouds.points_padded().shape == (2, 2, 3)
    assert clouds.valid.tolist() == [False, True]


def test_what_does_not_fit_is_a_value_error():
    wrong = [
        lambda: r.TexturesVertex((1, 1, 1)),
        lambda: r.TexturesAtlas(torch.rand(5, 10, 3)),
        lambda: se3_log_map(torch.ones(3, 4, 4)),
        lambda: knn_gather(torch.rand(2, 3, 3), torch.zeros(3, 4, 5, dtype=torch.int64)),
        lambda: Volumes(torch.rand(2, 1, 3, 4, 5), voxel_size=torch.rand(3, 3)),
        lambda: padded_to_packed(torch.rand(2, 3, 4), split_size=[1, 2], pad_value=0),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match=r"takes|should|should be|size|trace"):
            call()
    assert padded_to_packed(torch.rand(2, 3, 4), split_size=[1, 2]).shape == (3, 4)


TWO_POINTS, RAYS = torch.rand(2, 5, 3), (torch.rand(3, 4, 3), torch.rand(3, 4, 3), torch.rand(3, 4, 6))
FLAT = Meshes([torch.full((3, 3), float("nan"))], [torch.tensor([[0, 1, 2]])])
PHRASES = {
    "shape has to be Nx3": lambda: so3_exp_map(torch.rand(5, 4)),
    "has to be a batch of 3x3": lambda: so3_log_map(torch.rand(3, 4, 3)),
    "trace outside valid range": lambda: so3_rotation_angle(5 * torch.eye(3)[None]),
    "batches of 2 and 3": lambda: (
        Translate(torch.rand(2, 3)).compose(Translate(torch.rand(3, 3))).get_matrix()
    ),
    r"x, y and z should be numbers or \[N\]": lambda: Translate(torch.rand(2, 3), torch.rand(2), 0.0),
    "x, y and z should be": lambda: Translate(torch.rand(3), torch.rand(2), 0.0),
    "`angle` should be": lambda: RotateAxisAngle(torch.rand(2, 3)),
    "K and points must have": lambda: sample_farthest_points(TWO_POINTS, K=[1, 2, 3]),
    "points and lengths must have": lambda: sample_farthest_points(TWO_POINTS, torch.tensor([1, 2, 3])),
    "Meshes contain nan or inf": lambda: sample_points_from_meshes(FLAT),
    "Meshes do not contain textures": lambda: sample_points_from_meshes(ico_sphere(0), return_textures=True),
    "Meshes are empty": lambda: sample_points_from_meshes(Meshes([], [])),
    "Pad size must": lambda: list_to_padded([torch.rand(2, 3)], pad_size=[4]),
    "Only one of": lambda: padded_to_packed(TWO_POINTS, split_size=[1, 2], pad_value=0),
    "Supports only": lambda: padded_to_packed(torch.rand(2, 3)),
    "same length as inputs first dimension": lambda: padded_to_packed(TWO_POINTS, split_size=[1]),
    "1-dimensional": lambda: padded_to_packed(
        TWO_POINTS, split_size=torch.ones(2, 2, dtype=torch.int64).unbind()
    ),
    "takes tensors": lambda: r.EmissionAbsorptionRaymarcher()(1.0, torch.rand(4, 5, 3)),
    "2 volumes for the rays of 3": lambda: r.VolumeSampler(Volumes(torch.rand(2, 1, 2, 2, 2)))(
        r.RayBundle(*RAYS, torch.rand(3, 4, 2))
    ),
    "rays should have": lambda: r.VolumeSampler(Volumes(torch.rand(3, 1, 2, 2, 2)))(
        r.RayBundle(RAYS[0], RAYS[1][:, 1:], RAYS[2], torch.rand(3, 4, 2))
    ),
    "3 numbers": lambda: Volumes(torch.rand(2, 1, 3, 4, 5), volume_translation=1.0),
    "should have the sizes": lambda: Volumes(torch.rand(2, 1, 3, 4, 5)).update_padded(
        torch.rand(2, 1, 3, 4, 6)
    ),
}


@pytest.mark.parametrize("phrase", PHRASES)
def test_errors_have_the_phrases_of_pytorch3d(phrase):
    with pytest.raises(ValueError, match=phrase):
        PHRASES[phrase]()


def test_textures_that_are_assigned_later_are_checked_when_they_are_used():
    meshes = Meshes([torch.rand(3, 3), torch.rand(4, 3)], [torch.tensor([[0, 1, 2]])] * 2)
    ids = torch.tensor([0, 1]).view(2, 1, 1, 1)
    fragments = r.Fragments(ids, ids.float(), torch.tensor([0.0, 0, 1]).expand(2, 1, 1, 1, 3), ids.float())
    colors = torch.rand(2, 4, 3)
    meshes.textures = r.TexturesVertex(colors)  # with a row of padding
    assert torch.equal(meshes.sample_textures(fragments)[:, 0, 0, 0], colors[:, 2])
    meshes.textures = r.TexturesVertex(colors[:1])
    with pytest.raises(ValueError, match="do not match the dimensions"):
        meshes.sample_textures(fragments)


@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_joined_textures_have_the_colors_of_their_parts(padding_mode, align_corners):
    torch.manual_seed(0)
    parts = [
        r.TexturesUV(
            torch.rand(1, height, 5, 3),
            [torch.arange(9).view(3, 3)],
            torch.rand(1, 9, 2) * 1.2 - 0.1,
            padding_mode=padding_mode,
            align_corners=align_corners,
        )
        for height in (5, 5)
    ]
    joined = parts[0].join_batch(parts[1:]).join_scene()
    expected = torch.cat([part.faces_verts_textures_packed() for part in parts])
    torch.testing.assert_close(joined.faces_verts_textures_packed(), expected)
    assert joined._num_faces_per_mesh == [6]
    mirrored = r.TexturesUV(*([t] for t in parts[0].maps_list()), [torch.zeros(1, 3)], [torch.zeros(1, 2)])
    mirrored.padding_mode = "reflection"
    with pytest.raises(ValueError, match="'border' or 'zeros'"):
        mirrored.join_scene()


def test_volumes_keep_their_transform_with_new_values():
    densities = [torch.rand(1, 2, 3, 4), torch.rand(1, 3, 2, 2)]
    volumes = Volumes(densities, voxel_size=2.0)
    others = volumes.update_padded(
        [2 * d for d in densities], [torch.rand(3, *d.shape[1:]) for d in densities]
    )
    assert others.features_list()[1].shape == (3, 3, 2, 2)
    assert volumes.get_local_to_world_coords_transform() is others.get_local_to_world_coords_transform()
    moved = torch.zeros(1, 3, requires_grad=True)
    volumes = Volumes(densities, volume_translation=moved)
    for _ in range(2):
        volumes.get_local_to_world_coords_transform().get_matrix().sum().backward()
    assert moved.grad.abs().sum() == 12
    assert len(copy.deepcopy(others)) == 2


@pytest.mark.parametrize("padding_mode", ["border", "reflection"])
def test_sampling_beyond_volumes(padding_mode):
    volumes = Volumes(torch.rand(1, 1, 2, 2, 2), torch.rand(1, 3, 2, 2, 2))
    rays = r.RayBundle(*torch.rand(2, 1, 5, 3), 9 * torch.rand(1, 5, 4), torch.rand(1, 5, 2))
    densities, features = r.VolumeSampler(volumes, padding_mode=padding_mode)(rays)
    assert densities.shape == (1, 5, 4, 1)
    assert features.shape == (1, 5, 4, 3)
    assert densities.min() >= volumes.densities().min()


def test_private_layouts_and_volumes_without_features():
    ball = ico_sphere(0)
    assert torch.equal(ball._verts_packed, ball.verts_packed())
    assert ball._num_faces_per_mesh.tolist() == [20]
    assert r.TexturesVertex(torch.rand(2, 3, 4))._verts_features_padded.shape == (2, 3, 4)
    with pytest.raises(AttributeError, match="_nothing_packed"):
        _ = ball._nothing_packed
    volumes = Volumes(torch.rand(1, 1, 2, 2, 2), torch.rand(1, 3, 2, 2, 2))
    assert volumes.update_padded(volumes.densities()).features() is None
    lights = r.PointLights(location=torch.rand(2, 3))
    assert lights.reshape_location(torch.rand(2, 4, 5, 3)).shape == (2, 1, 1, 3)
