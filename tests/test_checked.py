from collections.abc import Sequence

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unrender import ShapeError
from unrender._checked import checked


@checked
def weigh(
    points: Float[Tensor, "*batch points 3"], weights: Float[Tensor, "*batch points"] | None = None
) -> str:
    """Return a description of the arguments."""
    return f"{list(points.shape)}"


@checked
def aim(target: Float[Tensor, "3"] | Sequence[float] | float, ids: Int[Tensor, " ids"] | None = None) -> str:
    return type(target).__name__


def test_matching_shapes_pass():
    assert weigh(torch.rand(2, 5, 3), torch.rand(2, 5)) == "[2, 5, 3]"
    assert weigh(points=torch.rand(0, 3)) == "[0, 3]"
    assert weigh.__doc__ == "Return a description of the arguments."


@pytest.mark.parametrize("target", [torch.rand(3), [1.0, 2.0, 3.0], (1, 2, 3), 1.5, 1])
def test_each_member_of_a_union_passes(target):
    assert aim(target) == type(target).__name__


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: weigh(torch.rand(5, 2)),
            "weigh: `points` should be Float[Tensor, '*batch points 3'], got float32[5, 2]",
        ),
        (
            lambda: weigh(torch.zeros(5, 3, dtype=torch.int64)),
            "weigh: `points` should be Float[Tensor, '*batch points 3'], got int64[5, 3]",
        ),
        (
            lambda: weigh(torch.rand(5, 3), torch.rand(4)),
            "weigh: `weights` should be Float[Tensor, '*batch points'] or None, got float32[4]",
        ),
        (
            lambda: weigh(torch.rand(2, 5, 3), torch.rand(3, 5)),
            "weigh: `weights` should be Float[Tensor, '*batch points'] or None, got float32[3, 5]",
        ),
        (
            lambda: weigh(np.zeros((5, 3))),
            "weigh: `points` should be Float[Tensor, '*batch points 3'], got ndarray",
        ),
        (lambda: weigh(None), "weigh: `points` should be Float[Tensor, '*batch points 3'], got NoneType"),
        (
            lambda: aim(np.zeros(3)),
            "aim: `target` should be Float[Tensor, '3'] or Sequence or float, got ndarray",
        ),
        (
            lambda: aim(torch.rand(4)),
            "aim: `target` should be Float[Tensor, '3'] or Sequence or float, got float32[4]",
        ),
        (lambda: aim(1.0, torch.rand(2)), "aim: `ids` should be Int[Tensor, 'ids'] or None, got float32[2]"),
    ],
)
def test_mismatches_are_reported(call, message):
    with pytest.raises(ShapeError) as caught:
        call()
    assert str(caught.value) == message


def test_missing_arguments_raise_type_error():
    with pytest.raises(TypeError, match="missing a required argument: 'points'"):
        weigh()


def test_axis_names_are_bound_per_call():
    assert weigh(torch.rand(4, 3)) != weigh(torch.rand(5, 3))
