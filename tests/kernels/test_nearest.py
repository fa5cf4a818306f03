import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from check_kernel import HAS_WARP, check_kernel, implementations, needs_warp
from unrender import InputError, ShapeError, index_points, nearest
from unrender.kernels.nearest import reference

if HAS_WARP:
    from unrender.kernels.nearest import gpu


def cloud(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(
    ("queries", "points"),
    [
        ((7, 3), (30, 3)),
        ((2, 3, 5, 2), (2, 3, 9, 2)),
        ((1, 3), (4, 3)),
        ((6, 1), (20, 1)),
        ((3, 16), (12, 16)),
    ],
)
def test_kernel_matches_the_reference(queries, points, k, norm):
    check_kernel(lambda a, b: nearest(a, b, k, norm=norm), [cloud(*queries), cloud(*points, seed=1)])


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("k", [1, 3])
def test_kernel_matches_on_many_points(norm, k):
    queries, points = cloud(3000, 3), cloud(2000, 3, seed=1)
    expected = reference.forward(queries, points, k, norm)
    found = nearest(queries, points, k, norm=norm)
    torch.testing.assert_close(found.distances, expected[0])
    assert torch.equal(found.ids, expected[1])


@pytest.mark.parametrize("norm", [1, 2])
def test_tree_and_brute_force_agree(norm):
    few, many = cloud(40, 3), cloud(2000, 3, seed=1)
    for searched, compared in (
        (nearest(few, index_points(many), norm=norm), nearest(few, many, norm=norm)),
        (nearest(many, torch.cat([few, many + 1000]), norm=norm), nearest(many, few, norm=norm)),
    ):
        assert torch.equal(searched.distances, compared.distances)
        assert torch.equal(searched.ids, compared.ids)


@given(
    st.integers(0, 300),
    st.integers(1, 300),
    st.integers(1, 16),
    st.integers(1, 9),
    st.sampled_from([1, 2]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 99),
)
def test_any_size_and_dimension(num_queries, num_points, dim, k, norm, dtype, seed):
    # whole numbers: many ties, many coincident points, and exact sums
    queries, points = (
        cloud(n, dim, seed=seed + i, dtype=dtype).mul(2).round()
        for i, n in enumerate((num_queries, num_points))
    )
    k = min(k, num_points)
    found = nearest(queries, points, k, norm=norm)
    all_distances = (queries[:, None] - points).abs().pow(norm).sum(-1)
    expected = all_distances.sort(dim=-1, stable=True)  # ties by the smaller id
    assert torch.equal(found.distances, expected.values[:, :k])
    assert torch.equal(found.ids, expected.indices[:, :k])


def test_ties_and_coincident_points():
    points = torch.zeros(40, 3)
    check_kernel(lambda a, b: nearest(a, b, 3), [torch.zeros(5, 3), points], ties=True)
    queries = torch.zeros(5, 3, requires_grad=True)
    found = nearest(queries, points, 3)
    assert found.ids.tolist() == [[0, 1, 2]] * 5
    found.distances.sum().backward()
    assert torch.equal(queries.grad, torch.zeros(5, 3))


def test_collinear_points():
    points = torch.arange(1000.0)[:, None] * torch.tensor([1.0, 0, 0])
    assert torch.equal(nearest(points + 0.25, points).ids[:, 0], torch.arange(1000))


@pytest.mark.parametrize("size", [1e-15, 1e15, 1e25])
def test_any_scale(size):
    queries, points = cloud(200, 3), cloud(300, 3, seed=1)
    if size < 1e20:
        assert torch.equal(nearest(queries * size, points * size).ids, nearest(queries, points).ids)
    else:  # squares overflow
        assert nearest(queries * size, points * size).distances.isinf().any()


@pytest.mark.parametrize("indexed", [(True, False), (False, True), (True, True)])
def test_point_index_on_either_side_gives_the_same_result(indexed):
    queries, points = cloud(2, 50, 3), cloud(2, 70, 3, seed=1)
    plain = nearest(queries, points, 2)
    tensors = queries.requires_grad_(), points.requires_grad_()
    sides = [index_points(t) if yes else t for t, yes in zip(tensors, indexed, strict=True)]
    found = nearest(*sides, 2)
    assert torch.equal(found.distances, plain.distances)
    assert torch.equal(found.ids, plain.ids)
    found.distances.sum().backward()
    assert queries.grad.abs().sum() > 0
    assert points.grad.abs().sum() > 0


def test_point_index_with_and_without_tree(monkeypatch):
    points, queries = cloud(30, 3), cloud(4, 3, seed=1)
    with_tree = index_points(points)
    monkeypatch.setenv("UNRENDER_KERNELS", "reference")
    without_tree = index_points(points)
    assert without_tree.boxes is None
    assert torch.equal(nearest(queries, with_tree).ids, nearest(queries, points).ids)
    monkeypatch.undo()
    assert torch.equal(nearest(queries, without_tree).ids, nearest(queries, with_tree).ids)


def test_point_index_survives_to_and_indexing():
    points, queries = cloud(2, 40, 3, dtype=torch.float64), cloud(2, 5, 3, seed=1)
    index = index_points(points).to(torch.float32)
    assert torch.equal(nearest(queries, index).ids, nearest(queries, points.float()).ids)
    assert torch.equal(nearest(queries[1], index[1]).ids, nearest(queries[1], points[1].float()).ids)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0, 5, 3)])
def test_no_queries(shape):
    points = torch.rand(*shape[:-2], 6, 3, requires_grad=True)
    queries = torch.rand(shape, requires_grad=True)
    found = nearest(queries, points, 2)
    assert found.distances.shape == (*shape[:-1], 2)
    assert found.ids.dtype == torch.int64
    found.distances.sum().backward()
    assert torch.equal(points.grad, torch.zeros_like(points))
    assert queries.grad.shape == shape


WITH_NAN = torch.tensor([[0.0, torch.nan, 0.0]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: nearest(torch.rand(4, 3), torch.rand(2, 3), 3),
            InputError,
            "nearest: `k` should be 1 to 2, the number of points, got 3",
        ),
        (
            lambda: nearest(torch.rand(4, 3), torch.rand(2, 3), 0),
            InputError,
            "nearest: `k` should be 1 to 2, the number of points, got 0",
        ),
        (
            lambda: nearest(torch.rand(4, 3), torch.rand(0, 3)),
            InputError,
            "nearest: `points` should have at least one point, got float32[0, 3]",
        ),
        (
            lambda: index_points(torch.rand(2, 0, 3)),
            InputError,
            "index_points: `points` should have at least one point, got float32[2, 0, 3]",
        ),
        (
            lambda: nearest(WITH_NAN, torch.rand(2, 3)),
            InputError,
            "nearest: `queries` has NaN or infinite coordinates; remove these points first",
        ),
        (
            lambda: nearest(torch.rand(2, 3), WITH_NAN / 0),
            InputError,
            "nearest: `points` has NaN or infinite coordinates; remove these points first",
        ),
        (
            lambda: index_points(WITH_NAN),
            InputError,
            "index_points: `points` has NaN or infinite coordinates; remove these points first",
        ),
        (
            lambda: nearest(torch.rand(4, 3), torch.rand(2, 3), norm=3),
            InputError,
            "nearest: `norm` should be 1 or 2, got 3",
        ),
        (
            lambda: nearest(torch.rand(4, 3), index_points(torch.rand(2, 2))),
            InputError,
            "nearest: batch shape, dimension, device and dtype (float32 or float64) should agree, "
            "got `queries` float32[4, 3] on cpu and `points` float32[2, 2] on cpu",
        ),
        (
            lambda: nearest(torch.rand(4, 3), torch.rand(4, 3).double()),
            InputError,
            "nearest: batch shape, dimension, device and dtype (float32 or float64) should agree, "
            "got `queries` float32[4, 3] on cpu and `points` float64[4, 3] on cpu",
        ),
        (
            lambda: nearest(torch.rand(4, 3).half(), torch.rand(4, 3).half()),
            InputError,
            "nearest: batch shape, dimension, device and dtype (float32 or float64) should agree, "
            "got `queries` float16[4, 3] on cpu and `points` float16[4, 3] on cpu",
        ),
        (
            lambda: nearest(torch.rand(4, 3), torch.rand(4, 2)),
            ShapeError,
            "nearest: `points` should be Float[Tensor, '*batch points dim'] or PointIndex, got float32[4, 2]",
        ),
        (
            lambda: nearest([[0.0]], torch.rand(4, 2)),
            ShapeError,
            "nearest: `queries` should be Float[Tensor, '*batch queries dim'] or PointIndex, got list",
        ),
    ],
)
def test_invalid_arguments_are_rejected(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_second_derivatives_are_rejected():
    queries = cloud(3, 3).requires_grad_()
    loss = nearest(queries, cloud(5, 3, seed=1)).distances.square().sum()
    (gradient,) = torch.autograd.grad(loss, queries, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@needs_warp
@pytest.mark.parametrize(("dim", "dtype"), [(2, torch.float32), (3, torch.float32), (3, torch.float64)])
@pytest.mark.parametrize("norm", [1, 2])
def test_gpu_trees_give_the_same_result(dim, dtype, norm):
    # whole numbers: many ties, many coincident points, and exact sums
    queries, points = (cloud(2, n, dim, seed=n, dtype=dtype).mul(3).round() for n in (90, 700))
    expected = (queries[:, :, None] - points[:, None]).abs().pow(norm).sum(-1).sort(dim=-1, stable=True)
    with implementations("warp"):
        for k in (1, 4):
            order, tree = index_points(queries).order, index_points(points)
            distances, ids = gpu.forward(queries, order, tree.ordered, tree.order, tree.boxes, k, norm)
            assert torch.equal(distances, expected.values[..., :k])
            assert torch.equal(ids, expected.indices[..., :k])


@needs_warp
def test_nan_queries_give_nan_distances_on_a_gpu():
    queries, points = cloud(3, 3), cloud(40, 3, seed=1)
    queries[1, 2] = torch.nan
    with implementations("warp"):
        tree = index_points(points)
        by_tree = gpu.forward(queries, torch.arange(3), tree.ordered, tree.order, tree.boxes, 1, 2)
        for distances, ids in (by_tree, gpu.compare_all(queries, points, 2)):
            assert distances[:, 0].isnan().tolist() == [False, True, False]
            gradients = gpu.backward(queries, points, ids, torch.ones_like(distances), 2, True)
            assert gradients[1].isnan().all()


@needs_warp
def test_tree_of_another_device_is_not_used():
    queries, points = cloud(20, 3), cloud(2000, 3, seed=1)
    found = nearest(queries, index_points(points), 2)
    with implementations("warp"):
        foreign = index_points(points)
    assert torch.equal(nearest(queries, foreign, 2).ids, found.ids)


@needs_warp
@pytest.mark.parametrize("norm", [1, 2])
def test_slices_of_many_points_are_compared_like_all_on_a_gpu(norm, monkeypatch):
    from unrender.kernels.nearest import gpu

    generator = torch.Generator().manual_seed(0)
    points = torch.randint(9, (2, 4200, 3), generator=generator).float()  # many at the same distance
    queries = torch.randint(9, (2, 30, 3), generator=generator) + 0.25
    queries[0, 3, 1] = torch.nan
    with implementations("warp"):
        found = gpu.compare_all(queries, points, norm)
        monkeypatch.setattr(gpu, "SLICED_FROM", 5000)
        expected = gpu.compare_all(queries, points, norm)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found[0][0, 3].isnan().all()
