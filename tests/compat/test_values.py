"""Values of PyTorch3D 0.7.9 where unrender's own conventions would give others."""

import math

import pytest
import torch

from unrender.compat.pytorch3d.io import IO, load_obj
from unrender.compat.pytorch3d.loss import mesh_laplacian_smoothing
from unrender.compat.pytorch3d.ops import SubdivideMeshes
from unrender.compat.pytorch3d.renderer import (
    EmissionAbsorptionRaymarcher,
    FoVPerspectiveCameras,
    Materials,
    NDCMultinomialRaysampler,
    PointLights,
    TexturesUV,
    TexturesVertex,
    VolumeRenderer,
    rasterize_meshes,
)
from unrender.compat.pytorch3d.renderer.mesh.textures import TexturesAtlas
from unrender.compat.pytorch3d.structures import Meshes, Volumes
from unrender.compat.pytorch3d.transforms import (
    matrix_to_quaternion,
    matrix_to_rotation_6d,
    quaternion_to_axis_angle,
    random_rotations,
)
from unrender.compat.pytorch3d.utils import ico_sphere, torus


def test_material_properties_are_those_of_the_file(tmp_path):
    text = "newmtl a\nKa 0.1 0.2 0.3\nKd 0.4 0.5 0.6\nKs 0.7 0.8 0.9\nNs 10\nnewmtl b\n"
    (tmp_path / "m.mtl").write_text(text)
    (tmp_path / "m.obj").write_text(
        "mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl a\nf 1 2 3\nusemtl b\nf 1 2 3\n"
    )
    colors = load_obj(tmp_path / "m.obj")[2].material_colors
    assert colors["b"] == {}
    found = {name: [round(x, 6) for x in value.tolist()] for name, value in colors["a"].items()}
    assert found == {
        "ambient_color": [0.1, 0.2, 0.3],
        "diffuse_color": [0.4, 0.5, 0.6],
        "specular_color": [0.7, 0.8, 0.9],
        "shininess": [10.0],
    }


def test_local_coordinates_do_not_depend_on_align_corners():
    point = torch.tensor([[[-2.0, 3, -2]]])
    for aligned in (False, True):
        volumes = Volumes(torch.zeros(1, 1, 5, 7, 5), align_corners=aligned)
        torch.testing.assert_close(volumes.world_to_local_coords(point), torch.tensor([[[-1.0, 1, -1]]]))
        grid = volumes.get_coord_grid(world_coordinates=False)
        outermost = 1.0 if aligned else 1 - 1 / 7
        torch.testing.assert_close(grid[..., 1].max(), torch.tensor(outermost))


def _render(volumes):
    cameras = FoVPerspectiveCameras(R=torch.eye(3).expand(2, 3, 3), T=torch.tensor([[0.0, 0, 4]] * 2))
    sampler = NDCMultinomialRaysampler(
        image_width=3, image_height=3, n_pts_per_ray=9, min_depth=2.0, max_depth=6.0
    )
    return VolumeRenderer(sampler, EmissionAbsorptionRaymarcher())(cameras, volumes)[0]


def test_gradient_of_an_expanded_leaf():
    given = torch.full((1, 1, 4, 4, 4), 0.3)
    leaf = given.expand(2, 1, 4, 4, 4).requires_grad_()
    _render(Volumes(leaf, leaf.detach() * 2)).sum().backward()
    copied = given.repeat(2, 1, 1, 1, 1).requires_grad_()
    _render(Volumes(copied, copied.detach() * 2)).sum().backward()
    torch.testing.assert_close(leaf.grad, copied.grad)
    assert float(leaf.grad.abs().sum()) > 0


PLY = """ply\nformat ascii 1.0\nelement vertex 4
property float x\nproperty float y\nproperty float z\nproperty float nx\nproperty float ny\nproperty float nz
property float red\nproperty float green\nproperty float blue
element face 1\nproperty list uchar int vertex_index\nend_header
0 0 0 0 0 2 1.5 2 3\n1 0 0 0 0 2 .12346 0 0\n1 1 0 0 0 2 0 0 0\n.2 .1 0 0 0 2 0 0 0\n4 0 1 2 3\n"""


def test_ply_values_are_kept(tmp_path):
    path = tmp_path / "a.ply"
    path.write_text(PLY)
    cloud = IO().load_pointcloud(path)
    assert cloud.points_packed().shape == (4, 3)
    assert cloud.normals_packed()[0].tolist() == [0, 0, 2]
    torch.testing.assert_close(cloud.features_packed()[0], torch.tensor([1.5, 2, 3]))
    for binary in (True, False):
        IO().save_pointcloud(cloud, tmp_path / "b.ply", binary=binary)
        again = IO().load_pointcloud(tmp_path / "b.ply")
        for name in ("points_packed", "normals_packed", "features_packed"):
            assert torch.equal(getattr(again, name)(), getattr(cloud, name)())
    mesh = IO().load_mesh(path)
    assert mesh.has_verts_normals()
    torch.testing.assert_close(mesh.textures.verts_features_packed(), cloud.features_packed())
    assert mesh.faces_packed().tolist() == [[0, 1, 2], [0, 2, 3]]


def test_off_has_colors(tmp_path):
    path = tmp_path / "a.off"
    path.write_text("off\n4 1 0\n0 0 0 255 0 0\n1 0 0 0 255 0\n1 1 0 0 0 51\n.2 .1 0 0 0 0\n4 0 1 2 3\n")
    path.write_text(path.read_text().replace("0 0 0 255", "0. 0. 0. 255"))
    mesh = IO().load_mesh(path)
    assert isinstance(mesh.textures, TexturesVertex)
    assert mesh.textures.verts_features_packed()[0].tolist() == [1, 0, 0]
    path.write_text("OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n.2 .1 0\n4 0 1 2 3 0.5 0.25 1.0\n")
    mesh = IO().load_mesh(path)
    assert isinstance(mesh.textures, TexturesAtlas)
    assert mesh.textures.atlas_packed()[:, 0, 0].tolist() == [[0.5, 0.25, 1]] * 2
    IO().save_mesh(mesh, tmp_path / "b.off")
    again = IO().load_mesh(tmp_path / "b.off")
    assert torch.equal(again.textures.atlas_packed(), mesh.textures.atlas_packed())
    assert torch.equal(again.faces_packed(), mesh.faces_packed())


def test_assignment_to_members():
    lights = PointLights(ambient_color=[[0.1, 0.1, 0.1]], location=torch.zeros(3, 3))
    lights[1].ambient_color = torch.tensor([0.9, 0.8, 0.7])
    torch.testing.assert_close(lights.ambient_color[1], torch.tensor([0.9, 0.8, 0.7]))
    torch.testing.assert_close(lights.ambient_color[2], torch.tensor([0.1, 0.1, 0.1]))
    materials = Materials(shininess=torch.tensor([1.0, 2.0]))
    materials[1].shininess = 7
    assert materials.shininess.tolist() == [1, 7]
    assert float(materials[0].shininess) == 1


def test_rotation_values():
    turns = random_rotations(3)
    matrix_to_rotation_6d(turns).mul_(0)
    assert float(turns.abs().sum()) > 1
    turned = quaternion_to_axis_angle(torch.tensor([-0.6, 0.8, 0, 0]))
    torch.testing.assert_close(turned, torch.tensor([2 * math.atan2(0.8, -0.6), 0, 0]))
    assert round(float(turned[0]), 2) == 4.43
    eye = torch.eye(3).requires_grad_()
    matrix_to_quaternion(eye)[0].backward()
    torch.testing.assert_close(eye.grad, torch.eye(3) / 8)


def test_pixel_centers_on_an_edge_are_not_covered():
    verts = torch.tensor([[-0.5, -0.5, 1], [0.5, -0.5, 1], [0, 0.6, 1]])
    pix_to_face = rasterize_meshes(Meshes([verts], [torch.tensor([[0, 1, 2]])]), 10, faces_per_pixel=1)[0]
    covered = (pix_to_face[0, ..., 0] >= 0).sum(1).tolist()
    assert covered[7] == 0
    assert covered[6] > 0
    layered = rasterize_meshes(Meshes([verts], [torch.tensor([[0, 1, 2]] * 2)]), 10, faces_per_pixel=3)[0]
    assert torch.equal((layered[0] >= 0).sum(-1), (pix_to_face[0, ..., 0] >= 0) * 2)


@pytest.mark.parametrize("method", ["uniform", "cot"])
def test_vertices_without_faces_are_smoothed_towards_the_origin(method):
    verts, faces = ico_sphere(0).get_mesh_verts_faces(0)
    far = torch.cat([verts, torch.tensor([[0.0, 16.25, 0]])])
    loss, without = (float(mesh_laplacian_smoothing(Meshes([v], [faces]), method)) for v in (far, verts))
    assert loss == pytest.approx((without * 12 + 16.25) / 13, rel=1e-5)


def test_order_of_faces():
    tube = torus(0.1, 1.0, 3, 4)
    assert tube.faces_packed()[:3].tolist() == [[11, 2, 0], [0, 9, 11], [9, 0, 1]]
    one = Meshes([torch.eye(3)], [torch.tensor([[0, 1, 2]])])
    finer = SubdivideMeshes()(one)  # the edges are 0–1, 0–2, 1–2: midpoints 3, 4, 5
    assert finer.faces_packed().tolist() == [[0, 3, 4], [1, 5, 3], [2, 4, 5], [5, 4, 3]]
    ball = ico_sphere(1)
    assert ball.faces_packed()[:20, 0].tolist() == ico_sphere(0).faces_packed()[:, 0].tolist()


def test_maps_of_different_size_are_resized():
    big, small = torch.rand(4, 6, 3), torch.ones(2, 2, 3)
    corners, uvs = [torch.tensor([[0, 1, 2]])] * 2, [torch.rand(3, 2)] * 2
    textures = TexturesUV([big, small], corners, uvs)
    assert textures.maps_padded().shape == (2, 4, 6, 3)
    torch.testing.assert_close(textures.maps_padded()[1], torch.ones(4, 6, 3))
    assert textures.maps_list()[1].shape == (2, 2, 3)
