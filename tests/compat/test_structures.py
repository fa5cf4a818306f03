import pytest
import torch

from unrender.compat.pytorch3d.renderer import TexturesUV, TexturesVertex
from unrender.compat.pytorch3d.structures import (
    Meshes,
    Pointclouds,
    Volumes,
    join_meshes_as_batch,
    join_meshes_as_scene,
)
from unrender.compat.pytorch3d.structures.volumes import VolumeLocator
from unrender.compat.pytorch3d.utils import ico_sphere, torus
from unrender.errors import InputError


@pytest.fixture
def two():
    """A sphere and a torus."""
    return join_meshes_as_batch([ico_sphere(1), torus(0.3, 1.0, 5, 7)])


def test_layouts_hold_the_same(two):
    assert two.num_verts_per_mesh().tolist() == [42, 35]
    assert two.num_faces_per_mesh().tolist() == [80, 70]
    assert two.verts_padded().shape == (2, 42, 3)
    assert two.faces_padded().shape == (2, 80, 3)
    assert (two.faces_padded()[1, 70:] == -1).all()
    packed = two.verts_packed()
    assert torch.equal(two.verts_padded().view(-1, 3)[two.verts_padded_to_packed_idx()], packed)
    assert torch.equal(packed[two.faces_packed()[80:]], two.verts_list()[1][two.faces_list()[1]])
    assert two.verts_packed_to_mesh_idx().tolist() == [0] * 42 + [1] * 35
    assert two.mesh_to_faces_packed_first_idx().tolist() == [0, 80]
    leaf = torch.zeros_like(packed, requires_grad=True)
    two.update_padded(two.verts_padded()).offset_verts(leaf).verts_padded().sum().backward()
    assert leaf.grad.allclose(torch.ones(77, 3))
    from_padded = Meshes(two.verts_padded()[1:, :35], two.faces_padded()[1:])
    assert torch.equal(from_padded.faces_list()[0], two.faces_list()[1])
    assert two.faces_areas_packed().shape == (150,)
    assert two.verts_normals_padded().shape == (2, 42, 3)
    assert two.faces_normals_packed().norm(dim=1).allclose(torch.ones(150))
    assert two.get_bounding_boxes()[1, 0, 1].item() == pytest.approx(1.3)


def test_edges_lie_across_from_corners(two):
    faces, edges = two.faces_packed(), two.edges_packed()
    assert len(edges) == int(two.num_edges_per_mesh().sum()) == 120 + 105
    across = edges[two.faces_packed_to_edges_packed()].sort(-1).values
    for k, (a, b) in enumerate(((1, 2), (2, 0), (0, 1))):
        assert torch.equal(across[:, k], faces[:, [a, b]].sort(-1).values)


def test_changes_leave_the_original_alone(two):
    before = two.verts_packed().clone()
    offsets = torch.ones_like(before, requires_grad=True)
    moved = two.offset_verts(offsets)
    assert torch.equal(moved.verts_packed(), before + 1)
    moved.verts_packed().sum().backward()
    assert offsets.grad.allclose(torch.ones(77, 3))
    assert two.scale_verts(torch.tensor([2.0, 3.0])).verts_list()[1].allclose(3 * before[42:])
    assert two.update_padded(two.verts_padded() - 1).verts_packed().allclose(before - 1)
    assert torch.equal(two.verts_packed(), before)
    many = two.extend(3)
    assert len(many) == 6
    assert torch.equal(many.verts_list()[2], two.verts_list()[0])
    many.verts_list()[2].mul_(0)
    assert torch.equal(two.verts_packed(), before)
    assert len(many[4:]) == len(many[[1, 2]]) == 2
    assert [len(part) for part in many.split([2, 4])] == [2, 4]
    clone = two.clone()
    clone.offset_verts_(torch.tensor([1.0, 0.0, 0.0]))
    assert torch.equal(two.verts_packed(), before)
    assert not two.detach().verts_packed().requires_grad


def test_normals_that_were_given_are_kept_until_the_shape_changes():
    ball = ico_sphere(0)
    up = torch.tensor([0.0, 0.0, 1.0]).expand(12, 3)
    meshes = Meshes(ball.verts_list(), ball.faces_list(), verts_normals=[up])
    assert torch.equal(meshes.offset_verts(torch.ones(3)).verts_normals_packed(), up)
    assert not torch.equal(meshes.offset_verts(torch.rand(12, 3)).verts_normals_packed(), up)


def test_joins(two):
    scene = join_meshes_as_scene(two)
    assert (len(scene), len(scene.verts_packed()), int(scene.faces_packed().max())) == (1, 77, 76)
    colored = [
        Meshes(m.verts_list(), m.faces_list(), TexturesVertex([torch.rand(len(m.verts_packed()), 3)]))
        for m in (two[0], two[1])
    ]
    whole = join_meshes_as_scene(colored)
    assert whole.textures.verts_features_packed().shape == (77, 3)
    with pytest.raises(InputError, match="all meshes should have textures of one kind"):
        join_meshes_as_batch([colored[0], two])


def test_says_what_is_wrong(two):
    with pytest.raises(InputError, match="1 sets of vertices, but 2 of faces"):
        Meshes(two.verts_list()[:1], two.faces_list())
    with pytest.raises(InputError, match="a row for each vertex"):
        two.offset_verts(torch.zeros(5, 3))
    with pytest.raises(InputError, match="rows of −1"):
        Meshes(torch.rand(1, 3, 3), torch.tensor([[[-1, -1, -1], [0, 1, 2]]]))
    with pytest.raises(InputError, match="do not match the dimensions"):
        Meshes(two.verts_list(), two.faces_list(), TexturesVertex(torch.ones(1, 42, 3)))
    with pytest.raises(InputError, match="textures for"):
        Meshes(two.verts_list(), two.faces_list(), TexturesVertex([torch.ones(40, 3), torch.ones(35, 3)]))
    with pytest.raises(InputError, match="TexturesUV"):
        TexturesUV(torch.rand(1, 4, 4, 3), two.faces_list(), [torch.rand(3, 2)])
    with pytest.raises(InputError, match="`N` should be at least 1"):
        two.extend(0)
    with pytest.raises(InputError, match="a row for each point"):
        Pointclouds([torch.rand(5, 3)], features=[torch.rand(4, 3)])
    with pytest.raises(InputError, match="sizes of the volumes"):
        Volumes(torch.rand(1, 1, 3, 4, 5), torch.rand(1, 3, 3, 4, 4))
    with pytest.raises(IndexError):
        _ = two[7]


def test_subsample_keeps_whole_rows():
    clouds = Pointclouds(
        [torch.rand(9, 3), torch.rand(3, 3)], features=[torch.arange(9.0)[:, None], torch.rand(3, 1)]
    )
    fewer = clouds.subsample(4)
    assert fewer.num_points_per_cloud().tolist() == [4, 3]
    assert torch.equal(fewer.points_list()[0], clouds.points_list()[0][fewer.features_list()[0][:, 0].long()])
    assert clouds.subsample([2, 1]).num_points_per_cloud().tolist() == [2, 1]
    with pytest.raises(InputError, match="1 number or 2, got 3"):
        clouds.subsample([1, 2, 3])


def test_clouds():
    clouds = Pointclouds([torch.rand(5, 3), torch.rand(3, 3)], features=[torch.rand(5, 2), torch.rand(3, 2)])
    assert clouds.points_padded().shape == (2, 5, 3)
    assert clouds.features_packed().shape == (8, 2)
    assert clouds.normals_packed() is None
    assert clouds.packed_to_cloud_idx().tolist() == [0] * 5 + [1] * 3
    assert clouds.cloud_to_packed_first_idx().tolist() == [0, 5]
    assert clouds.scale(2.0).points_packed().allclose(2 * clouds.points_packed())
    assert clouds.offset(torch.ones(3)).points_list()[1].allclose(clouds.points_list()[1] + 1)
    assert (
        clouds.update_padded(clouds.points_padded() + 1).points_packed().allclose(clouds.points_packed() + 1)
    )
    assert len(clouds.extend(2)) == 4
    assert clouds.core().lengths.tolist() == [5, 3]


@pytest.mark.parametrize("align_corners", [True, False])
def test_volumes_lie_where_theirs_do(align_corners):
    volumes = Volumes(
        torch.rand(2, 1, 3, 4, 5),
        voxel_size=0.5,
        volume_translation=(1.0, 0.0, -1.0),
        align_corners=align_corners,
    )
    world = volumes.get_coord_grid()
    assert world.shape == (2, 3, 4, 5, 3)
    half = torch.tensor([1.0, 0.75, 0.5])  # half the way along each axis, between centers or sides
    half = half if align_corners else half * (1 - 1 / torch.tensor([5.0, 4, 3]))
    torch.testing.assert_close(world[0, 0, 0, 0], torch.tensor([-1.0, 0, 1]) - half)
    torch.testing.assert_close(world[0, -1, -1, -1], torch.tensor([-1.0, 0, 1]) + half)
    local = volumes.get_coord_grid(world_coordinates=False)
    found = torch.nn.functional.grid_sample(volumes.densities(), local, align_corners=align_corners)
    torch.testing.assert_close(found, volumes.densities())
    torch.testing.assert_close(volumes.local_to_world_coords(local), world)
    assert volumes.update_padded(volumes.densities() * 2).densities().mean() > volumes.densities().mean()


def test_volumes_of_two_sizes():
    volumes = Volumes([torch.rand(1, 2, 3, 4), torch.rand(1, 3, 3, 2)])
    assert volumes.densities().shape == (2, 1, 3, 3, 4)
    assert [tuple(d.shape) for d in volumes.densities_list()] == [(1, 2, 3, 4), (1, 3, 3, 2)]
    assert volumes.get_grid_sizes().tolist() == [[2, 3, 4], [3, 3, 2]]
    assert len(volumes[1]) == 1


def test_locators_are_the_volumes_without_values():
    densities = [torch.rand(1, 2, 3, 4), torch.rand(1, 3, 3, 2)]
    places = {"voxel_size": 0.5, "volume_translation": (1.0, 2.0, 3.0), "align_corners": False}
    volumes = Volumes(densities, **places)
    locator = VolumeLocator(2, [(2, 3, 4), (3, 3, 2)], "cpu", **places)
    assert torch.equal(locator.get_coord_grid(), volumes.get_coord_grid())
    assert torch.equal(locator.get_grid_sizes(), volumes.get_grid_sizes())
    assert locator.to("cpu") is locator
    assert locator.clone() is not locator
    assert VolumeLocator(2, (2, 3, 4), "cpu").get_coord_grid(False).shape == (2, 2, 3, 4, 3)
    with pytest.raises(InputError, match="grid_sizes"):
        VolumeLocator(2, [(2, 3, 4)], "cpu")
    assert len(volumes[1].locator) == 1
    assert volumes[1].get_coord_grid().shape == (1, 3, 3, 4, 3)
    copied = volumes.to("cpu", copy=True)
    assert copied.densities().data_ptr() != volumes.densities().data_ptr()
