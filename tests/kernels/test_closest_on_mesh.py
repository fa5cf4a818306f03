import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from check_kernel import check_kernel
from unrender import InputError, closest_on_mesh, cube, ico_sphere, index_points
from unrender.kernels.closest_on_mesh import index_faces, reference

TRIANGLE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
FACE = torch.tensor([[0, 1, 2]])


def cloud(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(seed=0):
    return torch.linalg.qr(cloud(3, 3, seed=seed))[0]


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_kernel_matches_the_reference(batch):
    sphere = ico_sphere(1)
    vertices = sphere.vertices + 0.1 * cloud(*batch, *sphere.vertices.shape, seed=1)
    # not the faces: where the nearest point is a vertex, any of those around it is right
    check_kernel(
        lambda q, v: closest_on_mesh(q, v, sphere.faces).squared_distances, [cloud(*batch, 20, 3), vertices]
    )


def test_kernel_matches_on_one_face_and_one_point():
    faces = FACE  # check_kernel takes what an operation encloses to the GPU, but no globals
    check_kernel(lambda q, v: closest_on_mesh(q, v, faces), [torch.tensor([[0.3, 0.2, 0.5]]), TRIANGLE])


def test_kernel_matches_on_many_faces():
    sphere = ico_sphere(3)
    vertices, queries = sphere.vertices * torch.tensor([3.0, 1, 0.2]), cloud(500, 3)
    found = closest_on_mesh(queries, vertices, sphere.faces)
    expected = reference.forward(queries, vertices, sphere.faces)
    torch.testing.assert_close(found.squared_distances, expected[0], rtol=1e-4, atol=1e-7)
    corners = vertices[sphere.faces[found.face_ids]]
    offset = queries - (found.barycentrics[..., None] * corners).sum(-2)
    torch.testing.assert_close(offset.square().sum(-1), found.squared_distances, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("query", "squared_distance", "barycentrics"),
    [
        ([0.25, 0.25, 2.0], 4.0, [0.5, 0.25, 0.25]),  # above the face
        ([0.25, 0.25, 0.0], 0.0, [0.5, 0.25, 0.25]),  # on it
        ([0.5, -1.0, 0.0], 1.0, [0.5, 0.5, 0.0]),  # beside each edge
        ([-2.0, 0.25, 0.0], 4.0, [0.75, 0.0, 0.25]),
        ([1.0, 1.0, 0.0], 0.5, [0.0, 0.5, 0.5]),
        ([0.5, 0.0, 0.0], 0.0, [0.5, 0.5, 0.0]),  # on edges
        ([0.5, 0.5, 0.0], 0.0, [0.0, 0.5, 0.5]),
        ([-1.0, -1.0, 1.0], 3.0, [1.0, 0.0, 0.0]),  # beyond each vertex
        ([3.0, -1.0, 0.0], 5.0, [0.0, 1.0, 0.0]),
        ([-1.0, 3.0, 0.0], 5.0, [0.0, 0.0, 1.0]),
        ([1.0, 0.0, 0.0], 0.0, [0.0, 1.0, 0.0]),  # on a vertex
    ],
)
@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_each_region_of_a_triangle(query, squared_distance, barycentrics, kernels, monkeypatch):
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    queries, vertices = torch.tensor([query], requires_grad=True), TRIANGLE.clone().requires_grad_()
    found = closest_on_mesh(queries, vertices, FACE)
    assert found.squared_distances.tolist() == [squared_distance]
    assert found.barycentrics.tolist() == [barycentrics]
    found.squared_distances.sum().backward()
    offset = queries.detach() - torch.tensor([barycentrics]) @ TRIANGLE
    assert torch.equal(queries.grad, 2 * offset)
    assert torch.equal(vertices.grad, -2 * torch.tensor(barycentrics)[:, None] * offset)


@pytest.mark.parametrize(
    "vertices",
    [
        torch.zeros(3, 3),  # a point
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]),  # segments
        torch.tensor([[1.0, 1, 1], [1, 1, 1], [0, 2, 3]]),
        torch.tensor([[0.0, 2, 3], [1, 1, 1], [1, 1, 1]]),
        torch.tensor([[1.0, 1, 1], [0, 2, 3], [1, 1, 1]]),
    ],
)
def test_degenerate_faces_are_segments_and_points(vertices):
    queries, faces = cloud(30, 3), FACE
    check_kernel(lambda q, v: closest_on_mesh(q, v, faces), [queries, vertices], ties=True)
    share = torch.linspace(0, 1, 10_001)[:, None]
    ends = max(((a, b) for a in vertices for b in vertices), key=lambda pair: (pair[0] - pair[1]).norm())
    expected = torch.cdist(queries, ends[0] + share * (ends[1] - ends[0])).amin(1)
    torch.testing.assert_close(closest_on_mesh(queries, vertices, FACE).squared_distances.sqrt(), expected)


@given(st.floats(1e-7, 1.0), st.floats(0, 1), st.integers(0, 99))
def test_slivers_are_accurate(height, foot, seed):
    axes = rotation(seed)
    vertices = torch.stack([torch.zeros(3), axes[0], foot * axes[0] + height * axes[1]]) + cloud(
        1, 3, seed=seed
    )
    queries = vertices[0] + torch.rand(20, 1) * axes[0] + 0.2 * cloud(20, 3, seed=seed)
    single = closest_on_mesh(queries, vertices, FACE).squared_distances.sqrt()
    double = closest_on_mesh(queries.double(), vertices.double(), FACE).squared_distances.sqrt()
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-6)


def test_ties_are_resolved_by_face_index():
    box = cube()
    found = closest_on_mesh(torch.zeros(1, 3), box.vertices, box.faces)
    assert found.squared_distances.tolist() == [0.25]
    assert found.face_ids.tolist() == [0]
    outside = torch.tensor([[1.0, 1.0, 1.0]])
    assert closest_on_mesh(outside, box.vertices, box.faces).face_ids.item() == min(
        i for i, face in enumerate(box.faces.tolist()) if 7 in face
    )


def test_face_order_remains_valid_while_vertices_move():
    sphere = ico_sphere(3)
    order = index_faces(sphere.vertices, sphere.faces)
    moved = sphere.vertices @ rotation() * torch.tensor([4.0, 0.1, 1.0]) + 5
    queries = cloud(500, 3) + 5
    for query in (queries, index_points(queries)):
        found = closest_on_mesh(query, moved, sphere.faces, face_order=order)
        fresh = closest_on_mesh(queries, moved, sphere.faces)
        assert all(torch.equal(a, b) for a, b in zip(found, fresh, strict=True))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_int32_and_int64_faces(dtype):
    box = cube()
    vertices = box.vertices.requires_grad_()
    closest_on_mesh(cloud(9, 3), vertices, box.faces.to(dtype)).squared_distances.sum().backward()
    assert vertices.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0, 5, 3)])
def test_no_queries(shape):
    vertices = torch.rand(*shape[:-2], 3, 3, requires_grad=True)
    found = closest_on_mesh(torch.rand(shape), vertices, FACE)
    assert found.squared_distances.shape == shape[:-1]
    found.squared_distances.sum().backward()
    assert torch.equal(vertices.grad, torch.zeros_like(vertices))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: closest_on_mesh(torch.rand(4, 3), TRIANGLE, FACE[:0]),
            "closest_on_mesh: `faces` should have at least one face, got none",
        ),
        (
            lambda: closest_on_mesh(torch.rand(4, 3), TRIANGLE, FACE + 1),
            "closest_on_mesh: `faces` should index vertices 0 to 2, got indices 1 to 3",
        ),
        (
            lambda: closest_on_mesh(torch.rand(4, 3), TRIANGLE, FACE.to("meta")),
            "closest_on_mesh: `faces` should be on the device of the vertices, cpu, got meta",
        ),
        (
            lambda: index_faces(TRIANGLE, FACE - 1),
            "index_faces: `faces` should index vertices 0 to 2, got indices -1 to 1",
        ),
        (
            lambda: closest_on_mesh(TRIANGLE / 0, TRIANGLE, FACE),
            "closest_on_mesh: `queries` has NaN or infinite coordinates; remove these points first",
        ),
        (
            lambda: closest_on_mesh(TRIANGLE, TRIANGLE / 0, FACE),
            "closest_on_mesh: `vertices` has NaN or infinite coordinates; remove these points first",
        ),
        (
            lambda: closest_on_mesh(index_points(torch.rand(2, 4, 3)), TRIANGLE, FACE),
            "closest_on_mesh: batch shape, dimension, device and dtype (float32 or float64) should agree, "
            "got `queries` float32[2, 4, 3] on cpu and `vertices` float32[3, 3] on cpu",
        ),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message
