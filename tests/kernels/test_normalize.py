import pytest
import torch

from check_kernel import HAS_WARP, check_kernel, implementations
from unrender.kernels.normalize import norm, normalize


@pytest.mark.parametrize("function", [norm, normalize, lambda c: (normalize(c), norm(c))])
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 4, 6), (9, 3, 1), (3, 0)])
def test_kernel_agrees_with_the_reference(function, shape):
    check_kernel(function, [torch.randn(shape, generator=torch.Generator().manual_seed(0))])


@pytest.mark.parametrize("choice", ["reference", "fast", *["warp"] * HAS_WARP])
def test_short_vectors_have_no_direction(choice):
    columns = torch.tensor([[0.0, 1e-16, 1e-12, 1e15]] * 3, requires_grad=True)
    with implementations(choice):
        units, lengths = normalize(columns), norm(columns)
        (of_units,) = torch.autograd.grad(units[0].sum(), columns)
        (of_lengths,) = torch.autograd.grad(lengths.sum(), columns)
    diagonal = 3**-0.5
    torch.testing.assert_close(units[0], torch.tensor([0, 0, diagonal, diagonal]))
    torch.testing.assert_close(of_lengths[0], torch.tensor([0, diagonal, diagonal, diagonal]))
    expected = torch.tensor([0, 0, 2, -1, -1]) / 3
    torch.testing.assert_close(of_units[0, :3] * 1e-12, torch.stack([*expected[:2], diagonal * expected[2]]))


@pytest.mark.parametrize("choice", ["reference", "fast", *["warp"] * HAS_WARP])
def test_not_a_number_stays(choice):
    with implementations(choice):
        assert normalize(torch.tensor([[torch.nan], [1.0]])).isnan().any()
