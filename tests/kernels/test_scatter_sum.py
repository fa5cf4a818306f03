import pytest
import torch

from check_kernel import check_kernel, implementations, needs_warp
from unrender.kernels.scatter_sum import gather_columns, scatter_sum


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("columns", "index"), [((3, 40), (40,)), ((2, 3, 40), (40,)), ((2, 4, 3, 40), (2, 4, 40))]
)
def test_sums_and_what_they_are_the_transpose_of(columns, index):
    places = torch.randint(7, index, generator=torch.Generator().manual_seed(1))
    check_kernel(lambda x: scatter_sum(x, places, 9), [numbers(*columns)])
    check_kernel(lambda x: gather_columns(x, places), [numbers(*columns[:-1], 9)])


@needs_warp
def test_columns_are_differentiable_twice_on_a_gpu():
    places = torch.tensor([0, 2, 2, 1])
    columns = numbers(3, 4).double().requires_grad_()
    with implementations("warp"):
        assert torch.autograd.gradgradcheck(lambda x: scatter_sum(x.square(), places, 5), columns)
        assert torch.autograd.gradgradcheck(lambda x: gather_columns(x.square(), places), columns)


@needs_warp
def test_nothing_sums_to_nothing():
    with implementations("warp"):
        assert torch.equal(
            scatter_sum(torch.zeros(3, 0), torch.zeros(0, dtype=torch.int64), 2), torch.zeros(3, 2)
        )
