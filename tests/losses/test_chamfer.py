import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from unrender import (
    InputError,
    Mesh,
    PointCloud,
    ShapeError,
    chamfer_distance,
    cube,
    index_points,
    point_to_mesh_distance,
)


def cloud(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def oriented(*shape, seed=0, **fields):
    normals = normalize(cloud(*shape, seed=seed + 100), dim=-1)
    return PointCloud(cloud(*shape, seed=seed), normals, **fields)


def by_definition(x, y, norm=2):
    """Return Σ|x − y|^norm of each x to its nearest y, and the index of that y."""
    distances = (x[..., :, None, :] - y[..., None, :, :]).abs().pow(norm).sum(-1)
    return distances.min(-1)


def test_golden(golden):
    arrays = golden("chamfer")
    x = PointCloud(arrays["x"].requires_grad_(), arrays["x_normals"])
    y = PointCloud(arrays["y"], arrays["y_normals"])
    result = chamfer_distance(x, y)
    torch.testing.assert_close(result.distance, arrays["loss"])
    torch.testing.assert_close(result.normals, arrays["loss_normals"])
    chamfer_distance(x.points, y.points).distance.backward()
    torch.testing.assert_close(x.points.grad, arrays["grad_x"])
    for name, options in {
        "loss_norm1": {"norm": 1},
        "loss_single_directional": {"single_directional": True},
        "loss_sum_sum": {"point_reduction": "sum", "batch_reduction": "sum"},
        "loss_max": {"point_reduction": "max"},
    }.items():
        torch.testing.assert_close(chamfer_distance(x, y, **options).distance, arrays[name])


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("point_reduction", ["mean", "sum", "max", "none"])
@pytest.mark.parametrize("batch_reduction", ["mean", "sum", "none"])
def test_reductions(norm, point_reduction, batch_reduction):
    x, y = cloud(3, 20, 3), cloud(3, 30, 3, seed=1)
    there, back = by_definition(x, y, norm).values, by_definition(y, x, norm).values
    expected = {
        "mean": there.mean(-1) + back.mean(-1),
        "sum": there.sum(-1) + back.sum(-1),
        "max": torch.maximum(there.amax(-1), back.amax(-1)),
        "none": torch.cat([there, back], -1),
    }[point_reduction]
    if point_reduction != "none" and batch_reduction != "none":
        expected = expected.mean() if batch_reduction == "mean" else expected.sum()
    options = {"norm": norm, "point_reduction": point_reduction, "batch_reduction": batch_reduction}
    torch.testing.assert_close(chamfer_distance(x, y, **options).distance, expected)


@pytest.mark.parametrize("abs_cosine", [True, False])
@pytest.mark.parametrize("point_reduction", ["mean", "max", "none"])
def test_normals(abs_cosine, point_reduction):
    x, y = oriented(20, 3), oriented(25, 3, seed=1)
    terms = []
    for a, b in ((x, y), (y, x)):
        cosine = (a.normals * b.normals[by_definition(a.points, b.points).indices]).sum(-1)
        terms.append(1 - (cosine.abs() if abs_cosine else cosine))
    expected = {
        "mean": terms[0].mean() + terms[1].mean(),
        "max": torch.maximum(terms[0].amax(), terms[1].amax()),
        "none": torch.cat(terms),
    }[point_reduction]
    result = chamfer_distance(x, y, abs_cosine=abs_cosine, point_reduction=point_reduction)
    torch.testing.assert_close(result.normals, expected)
    assert chamfer_distance(x, y.points).normals is None


def test_single_directional():
    x, y = oriented(20, 3), oriented(25, 3, seed=1)
    found = by_definition(x.points, y.points)
    result = chamfer_distance(x, y, single_directional=True)
    torch.testing.assert_close(result.distance, found.values.mean())
    assert chamfer_distance(x, y, single_directional=True, point_reduction="none").normals.shape == (20,)


@pytest.mark.parametrize("point_reduction", ["mean", "sum", "max"])
def test_padded_batch_matches_single_clouds(point_reduction):
    lengths = torch.tensor([5, 12, 1])
    x = oriented(3, 12, 3, lengths=lengths)
    x = x.replace(points=x.points.masked_fill(torch.arange(12)[:, None] >= lengths[:, None, None], 1e9))
    y = oriented(3, 9, 3, seed=1)
    options = {"point_reduction": point_reduction, "batch_reduction": "none"}
    together = chamfer_distance(x, y, **options)
    for i, length in enumerate(lengths):
        one = PointCloud(x.points[i, :length], x.normals[i, :length])
        alone = chamfer_distance(one, y[i], **options)
        torch.testing.assert_close(together.distance[i], alone.distance)
        torch.testing.assert_close(together.normals[i], alone.normals)
    swapped = chamfer_distance(y, x, **options)
    torch.testing.assert_close(swapped.distance, together.distance)


def test_padding_has_no_value_and_no_gradient():
    points = cloud(2, 4, 3).requires_grad_()
    x = PointCloud(points, lengths=torch.tensor([4, 2]))
    values = chamfer_distance(x, cloud(2, 3, 3, seed=1), point_reduction="none").distance
    assert values.shape == (2, 7)
    assert values[1, 2:4].tolist() == [0, 0]
    values.sum().backward()
    assert points.grad[1, 2:].abs().sum() == 0


def test_weights():
    x, y = cloud(10, 3), cloud(8, 3, seed=1)
    weights = torch.rand(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    there, back = by_definition(x, y).values, by_definition(y, x).values
    weighted = PointCloud(x, weights=weights)
    result = chamfer_distance(weighted, y).distance
    torch.testing.assert_close(result, (weights * there).sum() / weights.sum() + back.mean())
    whole = PointCloud(x, weights=(weights > 0.5).double())
    torch.testing.assert_close(
        chamfer_distance(whole, y, single_directional=True).distance, there[weights > 0.5].mean()
    )
    nothing = PointCloud(x, weights=torch.zeros(10, dtype=torch.float64))
    assert chamfer_distance(nothing, y, single_directional=True).distance == 0


def test_batch_weights():
    x, y = cloud(3, 10, 3), cloud(3, 8, 3, seed=1)
    weights = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    each = chamfer_distance(x, y, batch_reduction="none").distance
    for reduction, expected in {
        "none": weights * each,
        "sum": (weights * each).sum(),
        "mean": (weights * each).sum() / 4,
    }.items():
        result = chamfer_distance(x, y, batch_weights=weights, batch_reduction=reduction)
        torch.testing.assert_close(result.distance, expected)
    assert chamfer_distance(x, y, batch_weights=weights * 0).distance == 0


def test_huber_is_linear_far_away():
    x, y = cloud(50, 3), cloud(40, 3, seed=1)
    squared = by_definition(x, y).values
    limit = float(squared.median().sqrt())
    expected = torch.where(squared > limit**2, 2 * limit * squared.sqrt() - limit**2, squared)
    result = chamfer_distance(x, y, huber=limit, single_directional=True, point_reduction="none").distance
    torch.testing.assert_close(result, expected)
    assert chamfer_distance(x, y, huber=1e9).distance == chamfer_distance(x, y).distance


@pytest.mark.parametrize(("trim", "kept"), [(0.0, 10), (0.1, 9), (0.25, 8), (0.9, 1), (0.99, 1)])
def test_trim_ignores_the_farthest_pairs(trim, kept):
    x, y = cloud(10, 3), cloud(8, 3, seed=1)
    nearest = by_definition(x, y).values.sort().values[:kept]
    result = chamfer_distance(x, y, trim=trim, single_directional=True).distance
    torch.testing.assert_close(result, nearest.mean())


def test_huber_and_trim_reduce_the_influence_of_outliers():
    x = cloud(200, 3)
    y = torch.cat([x, torch.full((4, 3), 100.0, dtype=torch.float64)])
    assert chamfer_distance(x, y, trim=0.05).distance == 0
    assert chamfer_distance(x, y, huber=0.1).distance < chamfer_distance(x, y).distance / 100


@pytest.mark.parametrize(
    "options",
    [{}, {"norm": 1}, {"huber": 0.4}, {"trim": 0.3}, {"point_reduction": "max"}, {"abs_cosine": False}],
)
def test_gradients(options):
    x, y = oriented(2, 7, 3), oriented(2, 9, 3, seed=1)
    weights = torch.linspace(0.5, 2, 7, dtype=torch.float64).expand(2, 7).clone()

    def losses(points, normals, weights, target):
        a = x.replace(points=points, normals=normals, weights=weights)
        return tuple(chamfer_distance(a, y.replace(points=target), **options))

    inputs = [t.requires_grad_() for t in (x.points, x.normals, weights, y.points)]
    assert gradcheck(losses, inputs)


def test_gradients_are_finite_where_points_coincide():
    x = PointCloud(torch.zeros(5, 3, requires_grad=True), torch.zeros(5, 3, requires_grad=True))
    for options in ({}, {"norm": 1}, {"huber": 0.1}, {"trim": 0.5}):
        result = chamfer_distance(x, PointCloud(torch.zeros(4, 3), torch.zeros(4, 3)), **options)
        (result.distance + result.normals).backward()
    assert x.points.grad.isfinite().all()
    assert x.normals.grad.isfinite().all()


def test_point_index_gives_the_same_result():
    x, y = cloud(40, 3), cloud(50, 3, seed=1)
    expected = chamfer_distance(x, y).distance
    assert chamfer_distance(x, index_points(y)).distance == expected
    assert chamfer_distance(index_points(x), index_points(y)).distance == expected


def test_any_dimension():
    for dimension, norm, expected in ((2, 2, 4.0), (7, 1, 14.0)):
        found = chamfer_distance(torch.zeros(4, dimension), torch.ones(3, dimension), norm=norm).distance
        assert found.item() == pytest.approx(expected, rel=1e-6)


def test_point_to_mesh_distance():
    box = cube()
    points = torch.tensor([[0.0, 0, 0], [2.5, 0, 0], [1.5, 1.5, 1.5], [0.5, 0.1, 0.2]])
    torch.testing.assert_close(point_to_mesh_distance(points, box), torch.tensor([0.25, 4, 3, 0]))
    triangle = Mesh(cloud(3, 3), torch.tensor([[0, 1, 2]]))
    inputs = [cloud(6, 3, seed=1).requires_grad_(), triangle.vertices.requires_grad_()]
    assert gradcheck(lambda p, v: point_to_mesh_distance(p, triangle.replace(vertices=v)), inputs)


POINTS = torch.rand(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: chamfer_distance(POINTS, POINTS, trim=1),
            InputError,
            "chamfer_distance: `trim` should be a fraction, 0 ≤ trim < 1, got 1",
        ),
        (
            lambda: chamfer_distance(POINTS, POINTS, huber=0.0),
            InputError,
            "chamfer_distance: `huber` should be a positive distance, with norm 2; got 0.0 with norm 2",
        ),
        (
            lambda: chamfer_distance(POINTS, POINTS, huber=0.1, norm=1),
            InputError,
            "chamfer_distance: `huber` should be a positive distance, with norm 2; got 0.1 with norm 1",
        ),
        (
            lambda: chamfer_distance(POINTS, POINTS, huber=math.nan),
            InputError,
            "chamfer_distance: `huber` should be a positive distance, with norm 2; got nan with norm 2",
        ),
        (
            lambda: chamfer_distance(POINTS, POINTS, norm=3),
            InputError,
            "chamfer_distance: `norm` should be 1 or 2, got 3",
        ),
        (
            lambda: chamfer_distance(POINTS, POINTS, point_reduction="median"),
            InputError,
            "chamfer_distance: `point_reduction` should be 'mean', 'sum', 'max' or 'none', "
            "`batch_reduction` 'mean', 'sum' or 'none'; got 'median' and 'mean'",
        ),
        (
            lambda: chamfer_distance(POINTS, POINTS[:0]),
            InputError,
            "chamfer_distance: `y` should have at least one point, got float32[0, 3]",
        ),
        (
            lambda: chamfer_distance(PointCloud(POINTS / 0), POINTS),
            InputError,
            "chamfer_distance: `x` has NaN or infinite coordinates; remove these points first",
        ),
        (
            lambda: chamfer_distance(PointCloud(POINTS[None], lengths=torch.tensor([0])), POINTS[None]),
            InputError,
            "chamfer_distance: `x.lengths` should be 1 to 4, got 0 to 0",
        ),
        (
            lambda: chamfer_distance(PointCloud(POINTS[None]), POINTS),
            InputError,
            "chamfer_distance: batch shape, dimension, device and dtype (float32 or float64) should agree, "
            "got `x` float32[1, 4, 3] on cpu and `y` float32[4, 3] on cpu",
        ),
        (
            lambda: chamfer_distance(POINTS, POINTS[:, :2]),
            ShapeError,
            "chamfer_distance: `y` should be Float[Tensor, '*batch y dim'] or PointCloud or PointIndex, "
            "got float32[4, 2]",
        ),
    ],
)
def test_invalid_arguments_are_rejected(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
