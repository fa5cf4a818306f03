import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from unrender.errors import InputError
from unrender.geometry.demo_object import demo_object
from unrender.geometry.mesh import Mesh, enclosed_volume, face_areas, face_normals, surface_area
from unrender.geometry.remesh import remesh_isotropic
from unrender.geometry.sample import sample_points_from_mesh
from unrender.geometry.shapes import cube, ico_sphere, torus
from unrender.geometry.topology import (
    connected_components,
    euler_characteristic,
    genus,
    is_manifold,
    is_watertight,
    keep_faces,
    topology,
)


def random_solid(seed, smoothness, size=12):
    """Create the surface of a random blob with handles and several components."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((size,) * 3), smoothness)
    field = np.pad(field / field.std(), 1, constant_values=-3)
    vertices, faces, _, _ = marching_cubes(field.astype(np.float32), 0.5)
    return Mesh(torch.tensor(vertices.copy()), torch.tensor(faces[:, ::-1].astype(np.int64)))


def edge_lengths(mesh):
    ends = mesh.vertices[topology(mesh.faces).edges]
    return (ends[:, 0] - ends[:, 1]).norm(dim=-1)


def num_parts(mesh):
    return len(connected_components(mesh.faces, len(mesh.vertices)).unique())


@given(
    seed=st.integers(0, 10_000),
    smoothness=st.floats(0.8, 2.5),
    edge_length=st.floats(1, 6),
    noise=st.sampled_from([0.0, 0.3, 1.0]),
    squash=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=15)
def test_closed_manifolds_stay_closed_manifolds(seed, smoothness, edge_length, noise, squash):
    mesh = random_solid(seed, smoothness)
    assume(is_watertight(mesh) and is_manifold(mesh))
    random = noise * torch.randn(mesh.vertices.shape, generator=torch.Generator().manual_seed(seed))
    mesh = mesh.replace(vertices=(mesh.vertices + random) * torch.tensor([1, 1, squash]))
    result = remesh_isotropic(mesh, edge_length, iterations=2)
    assert is_watertight(result)
    assert is_manifold(result)
    assert genus(result) == genus(mesh)
    assert num_parts(result) == num_parts(mesh)
    assert result.vertices.isfinite().all()


@given(seed=st.integers(0, 10_000), edge_length=st.floats(1, 6), height=st.floats(3, 10))
def test_open_manifolds_keep_their_boundaries(seed, edge_length, height):
    mesh = random_solid(seed, 1.5)
    mesh = keep_faces(mesh, mesh.vertices[mesh.faces].mean(1)[:, 2] < height)
    assume(is_manifold(mesh))
    result = remesh_isotropic(mesh, edge_length, iterations=2)
    assert is_manifold(result)
    assert not is_watertight(result)
    assert euler_characteristic(result) == euler_characteristic(mesh)
    assert num_parts(result) == num_parts(mesh)


@pytest.mark.parametrize("edge_length", [0.05, 0.1, 0.2])
def test_sphere_gets_regular_triangles_and_stays_round(edge_length):
    mesh = ico_sphere(4)
    result = remesh_isotropic(mesh, edge_length)
    lengths = edge_lengths(result) / edge_length
    assert 0.7 < lengths.mean() < 1.1
    assert lengths.std() < 0.15
    assert lengths.max() < 1.5
    assert (result.vertices.norm(dim=-1) - 1).abs().mean() < 0.02 * edge_length
    torch.testing.assert_close(enclosed_volume(result), enclosed_volume(mesh), rtol=0.03, atol=0)
    quality = 4 * 3**0.5 * face_areas(result) / edge_squares(result)
    assert quality.mean() > 0.95
    assert quality.min() > 0.5
    assert ((result.vertices[result.faces].mean(1) * face_normals(result)).sum(-1) > 0.9).all()


def test_demo_object_keeps_its_surface():
    mesh, edge_length = demo_object(64), 0.04
    result = remesh_isotropic(mesh, edge_length)
    assert genus(result) == 1
    dense = sample_points_from_mesh(mesh, 100_000, generator=torch.Generator().manual_seed(0)).points
    distance = torch.from_numpy(cKDTree(dense).query(result.vertices)[0])
    assert distance.mean() < 0.2 * edge_length
    assert distance.max() < edge_length
    assert edge_lengths(result).mean() == pytest.approx(edge_length, rel=0.2)


def edge_squares(mesh):
    triangles = mesh.vertices[mesh.faces]
    return (triangles - triangles.roll(1, 1)).square().sum((1, 2))


@pytest.mark.parametrize("mesh", [cube(), torus(1.0, 0.3, 12, 6)])
def test_coarse_input_is_refined(mesh):
    result = remesh_isotropic(mesh, 0.1)
    assert genus(result) == genus(mesh)
    assert edge_lengths(result).mean() == pytest.approx(0.1, rel=0.2)
    torch.testing.assert_close(surface_area(result), surface_area(mesh), rtol=0.03, atol=0)


def test_edge_length_may_vary_over_the_surface():
    mesh = ico_sphere(3)
    result = remesh_isotropic(mesh, 0.1 + 0.1 * (mesh.vertices[:, 2] > 0))
    height = result.vertices[topology(result.faces).edges].mean(1)[:, 2]
    lengths = edge_lengths(result)
    assert lengths[height < -0.3].mean() == pytest.approx(0.1, rel=0.25)
    assert lengths[height > 0.3].mean() == pytest.approx(0.2, rel=0.25)


def test_boundary_is_preserved():
    sphere = ico_sphere(3)
    mesh = sphere.replace(faces=sphere.faces[(sphere.vertices[sphere.faces][..., 2] > 0).all(1)])
    result = remesh_isotropic(mesh, 0.25)
    rim = rim_of(mesh)
    assert len(result.faces) < len(mesh.faces)
    assert is_manifold(result)
    assert torch.equal(torch.unique(rim_of(result), dim=0), torch.unique(rim, dim=0))


def rim_of(mesh):
    found = topology(mesh.faces)
    return mesh.vertices[found.edges[found.edge_faces == 1].unique()]


def test_colors_and_dtypes_are_preserved():
    mesh = ico_sphere(2)
    mesh = Mesh(mesh.vertices.double(), mesh.faces.int(), mesh.vertices / 2 + 0.5)
    result = remesh_isotropic(mesh, 0.1, iterations=2)
    assert result.vertices.dtype == torch.float64
    assert result.faces.dtype == torch.int32
    torch.testing.assert_close(result.vertex_colors, result.vertices.float() / 2 + 0.5, atol=0.1, rtol=0)


def test_deterministic():
    mesh = random_solid(0, 1.5)
    one, two = (remesh_isotropic(mesh, 1.5) for _ in range(2))
    assert torch.equal(one.vertices, two.vertices)
    assert torch.equal(one.faces, two.faces)


def test_tetrahedron_is_not_collapsed():
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    mesh = Mesh(torch.cat([torch.zeros(1, 3), torch.eye(3)]), faces)
    assert len(remesh_isotropic(mesh, 100.0).faces) == 4


def test_empty_mesh_and_single_point():
    empty = Mesh(torch.rand(4, 3), torch.empty(0, 3, dtype=torch.int64))
    assert len(remesh_isotropic(empty, 0.1).faces) == 0
    point = ico_sphere(1).replace(vertices=torch.ones(42, 3))
    assert is_watertight(remesh_isotropic(point, 0.1))


def test_invalid_arguments_are_rejected():
    mesh = cube()
    with pytest.raises(InputError, match=r"`mesh` should not be batched, got batch shape \[2\]"):
        remesh_isotropic(mesh.replace(vertices=mesh.vertices.expand(2, -1, -1)), 0.1)
    with pytest.raises(InputError, match="finite vertices, and `edge_length` should be positive"):
        remesh_isotropic(mesh, 0.0)
    with pytest.raises(InputError, match="finite vertices"):
        remesh_isotropic(mesh.replace(vertices=mesh.vertices * torch.nan), 0.1)
    with pytest.raises(InputError, match=r"too short: the result would have about 1e\+13 faces"):
        remesh_isotropic(mesh, 1e-6)
