import pytest
import torch

from unrender import packed_from_padded, padded_from_packed
from unrender.errors import InputError


def test_there_and_back():
    rows = torch.rand(7, 2, requires_grad=True)
    first = torch.tensor([0, 3, 3])
    padded = padded_from_packed(rows, first, 5)
    assert padded.shape == (3, 5, 2)
    assert torch.equal(padded[0, :3], rows[:3])
    assert not padded[1].any()
    assert torch.equal(padded[2, :4], rows[3:])
    assert torch.equal(packed_from_padded(padded, first, 7), rows)
    padded.sum().backward()
    assert torch.equal(rows.grad, torch.ones(7, 2))


def test_no_columns_and_no_rows():
    assert padded_from_packed(torch.arange(3.0), torch.tensor([0, 1]), 2).tolist() == [[0, 0], [1, 2]]
    assert padded_from_packed(torch.zeros(0, 3), torch.tensor([0]), 2).shape == (1, 2, 3)
    assert packed_from_padded(torch.zeros(0, 2, 3), torch.zeros(0, dtype=torch.int64), 0).shape == (0, 3)


def test_says_what_is_wrong():
    with pytest.raises(InputError, match="`length` should be at least 4"):
        padded_from_packed(torch.rand(7, 2), torch.tensor([0, 3]), 3)
    with pytest.raises(InputError, match="a member has 4 rows"):
        packed_from_padded(torch.rand(2, 3, 1), torch.tensor([0, 3]), 7)
    with pytest.raises(InputError, match="ascend"):
        padded_from_packed(torch.rand(7, 2), torch.tensor([0, 5, 3]), 9)
