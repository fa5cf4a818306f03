import gc
import weakref

import pytest
import torch

from unrender.errors import InputError, ShapeError
from unrender.geometry.mesh import Mesh, join_meshes
from unrender.geometry.shapes import cube, ico_sphere, torus
from unrender.geometry.topology import (
    connected_components,
    euler_characteristic,
    genus,
    is_manifold,
    is_watertight,
    keep_faces,
    keep_largest_component,
    separate_fans,
    topology,
)

NO_FACES = torch.empty(0, 3, dtype=torch.int64)
FAN = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])  # three faces around the edge 0 1
BOW_TIE = torch.tensor([[0, 1, 2], [0, 3, 4]])


def surface(faces):
    return Mesh(torch.rand(int(faces.max()) + 1, 3), faces)


def test_edges_of_two_triangles():
    found = topology(torch.tensor([[0, 1, 2], [2, 1, 3]]))
    assert found.edges.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    assert found.face_edges.tolist() == [[0, 2, 1], [2, 3, 4]]
    assert found.edge_faces.tolist() == [1, 1, 2, 1, 1]
    assert found.forward.tolist() == [[True, True, False], [False, True, False]]
    assert found.hinge_sides.tolist() == [[1, 3]]
    assert found.hinge_signs.tolist() == [1]


def test_edge_of_three_faces_makes_three_hinges():
    assert topology(FAN).hinge_sides.tolist() == [[0, 3], [3, 6], [0, 6]]
    assert topology(FAN).hinge_signs.tolist() == [1, 1, -1]


def test_edges_agree_with_counting_by_hand():
    faces = torch.randint(0, 30, (50, 3), generator=torch.Generator().manual_seed(0))
    found = topology(faces)
    by_hand = {}
    for side in range(150):
        edge = tuple(sorted((faces.flatten()[side].item(), faces.roll(-1, 1).flatten()[side].item())))
        by_hand.setdefault(edge, []).append(side)
    assert [tuple(edge) for edge in found.edges.tolist()] == sorted(by_hand)
    assert found.edge_faces.tolist() == [len(by_hand[edge]) for edge in sorted(by_hand)]
    hinges = sorted((a, b) for sides in by_hand.values() for i, a in enumerate(sides) for b in sides[i + 1 :])
    assert sorted((a, b) for a, b in found.hinge_sides.tolist()) == hinges


def test_topology_is_cached_until_the_faces_change():
    faces = cube().faces
    known = topology(faces)
    assert topology(faces) is known
    faces[0] = faces[0].flip(0)
    assert topology(faces) is not known
    gone = weakref.ref(topology(faces))
    del faces
    gc.collect()
    assert gone() is None


def test_inference_tensors_are_not_cached():
    with torch.inference_mode():
        assert len(topology(cube().faces).edges) == 18


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match=r"topology: `faces` should be Int\[Tensor, 'faces 3'\]"):
        topology(torch.zeros(3, 4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("mesh", "handles"), [(cube(), 0), (ico_sphere(2), 0), (torus(), 1), (join_meshes([torus(), torus()]), 2)]
)
def test_closed_shapes(mesh, handles):
    assert is_watertight(mesh)
    assert is_manifold(mesh)
    assert genus(mesh) == handles
    stray = mesh.replace(vertices=torch.cat([mesh.vertices, torch.rand(5, 3)]))
    assert genus(stray) == handles
    turned = mesh.replace(faces=torch.cat([mesh.faces[:1].flip(1), mesh.faces[1:]]))
    assert not is_watertight(turned)
    opened = mesh.replace(faces=mesh.faces[1:])
    assert not is_watertight(opened)
    assert is_manifold(opened)
    with pytest.raises(InputError, match="genus: `mesh` should be a closed manifold"):
        genus(opened)


def test_is_manifold_checks_edges_and_vertices():
    assert not is_manifold(surface(FAN))
    assert not is_manifold(surface(BOW_TIE))
    assert is_manifold(surface(FAN[:2]))
    pinched = join_meshes([cube(), cube()])
    faces = torch.where(pinched.faces == 8, 0, pinched.faces)  # two cubes with one common corner
    assert is_watertight(pinched.replace(faces=faces))
    assert not is_manifold(pinched.replace(faces=faces))


def test_empty_mesh_is_not_watertight():
    mesh = Mesh(torch.rand(2, 3), NO_FACES)
    assert not is_watertight(mesh)
    assert is_manifold(mesh)
    assert euler_characteristic(mesh) == 0
    assert connected_components(NO_FACES, 2).tolist() == [0, 1]
    assert len(keep_largest_component(mesh).vertices) == 0


def test_components():
    mesh = join_meshes([cube(), torus(), ico_sphere(0)])
    labels = connected_components(mesh.faces, len(mesh.vertices) + 1)
    sizes = labels.unique_consecutive(return_counts=True)[1]
    assert sizes.tolist() == [8, 48 * 24, 12, 1]
    largest = keep_largest_component(mesh.replace(vertex_colors=torch.rand(len(mesh.vertices), 3)))
    assert genus(largest) == 1
    assert torch.equal(largest.vertices, torus().vertices)
    assert largest.vertex_colors.shape == largest.vertices.shape
    assert euler_characteristic(keep_faces(mesh, labels[mesh.faces[:, 0]] != 1)) == 4


def test_surfaces_that_touch_are_separated():
    one = cube()
    two = one.replace(vertices=one.vertices + 2 * one.vertices.max() * torch.tensor([1.0, 1.0, 0.0]))
    both = join_meshes([one, two])
    points, merged = both.vertices.unique(dim=0, return_inverse=True)
    touching = Mesh(points, merged[both.faces], points)  # along an edge
    assert len(points) == 14
    assert not is_manifold(touching)
    found = separate_fans(touching)
    assert is_manifold(found)
    assert is_watertight(found)
    assert len(found.vertices) == 16
    assert torch.equal(found.vertices, found.vertex_colors)
    assert torch.equal(found.vertices[found.faces], both.vertices[both.faces])
    assert separate_fans(one).faces.shape == one.faces.shape
