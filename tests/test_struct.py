import dataclasses

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender import ShapeError
from unrender._struct import TensorStruct


class Poses(TensorStruct):
    points: Float[Tensor, "*batch points 3"]
    faces: Int[Tensor, "faces 3"]
    weights: Float[Tensor, "*batch points"] | None = None
    scale: Float[Tensor, "*batch"] | None = None
    name: str = "poses"


class Shared(TensorStruct):
    faces: Int[Tensor, "faces 3"]


def poses(*batch):
    return Poses(
        torch.rand(*batch, 5, 3), torch.tensor([[0, 1, 2]]), torch.rand(*batch, 5), torch.rand(batch)
    )


def test_values_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        poses().name = "other"


def test_fields_are_checked_when_made_and_when_replaced():
    with pytest.raises(
        ShapeError, match=r"^Poses: `points` should be Float\[Tensor, '\*batch points 3'\], got str$"
    ):
        Poses("no tensor", torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"^Poses: `weights` should be .* or None, got float32\[4\]$"):
        poses().replace(weights=torch.rand(4))


def test_precision_changes_for_floating_point_only():
    moved = poses().to(torch.float64)
    assert (moved.points.dtype, moved.weights.dtype, moved.faces.dtype) == (
        torch.float64,
        torch.float64,
        torch.int64,
    )
    assert poses().to("meta").faces.device.type == "meta"


def test_map_and_detach_reach_every_tensor_and_nothing_else():
    doubled = poses().map(lambda tensor: tensor * 2)
    assert doubled.faces.tolist() == [[0, 2, 4]]
    assert doubled.name == "poses"
    tracked = poses().replace(points=torch.rand(5, 3, requires_grad=True))
    assert not tracked.detach().points.requires_grad


@pytest.mark.parametrize(
    ("index", "batch"),
    [
        (1, (3,)),
        ((1, -1), ()),
        (slice(1), (1, 3)),
        ((..., 0), (2,)),
        (None, (1, 2, 3)),
        (torch.tensor([[True, False, True], [False, False, True]]), (3,)),
        (torch.tensor([1, 1, 0, 1]), (4, 3)),
    ],
)
def test_indexing_applies_to_batch_axes_only(index, batch):
    value = poses(2, 3)
    taken = value[index]
    assert taken.points.shape == (*batch, 5, 3)
    assert taken.scale.shape == batch
    assert torch.equal(taken.scale, value.scale[index])
    assert torch.equal(taken.points[..., 4, 2], value.points[..., 4, 2][index])
    assert taken.faces is value.faces


def test_iteration_is_over_the_first_batch_axis():
    value = poses(2)
    assert [torch.equal(one.points, points) for one, points in zip(value, value.points, strict=True)] == [
        True
    ] * 2


@pytest.mark.parametrize("value", [poses(), Shared(torch.zeros(1, 3, dtype=torch.int64))])
def test_indexing_without_batch_axes_is_an_error(value):
    with pytest.raises(
        TypeError, match=f"^{type(value).__name__}: cannot be indexed, as it has no batch axes$"
    ):
        value[0]


def test_index_beyond_the_batch_is_an_error():
    with pytest.raises(IndexError):
        poses(2)[2]
    with pytest.raises(IndexError):
        poses(2)[0, 0]


class Nested(TensorStruct):
    weights: Float[Tensor, "*batch 2"]
    own: Poses
    shared: Poses


def test_indexing_applies_to_nested_values_with_the_same_batch_shape():
    nested = Nested(torch.rand(4, 2), poses(4), poses())
    assert nested.batch_shape == (4,)
    torch.testing.assert_close(nested[1:3].own.points, nested.own.points[1:3])
    assert nested[2].shared is nested.shared
