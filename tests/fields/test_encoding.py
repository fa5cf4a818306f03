"""Coordinates as sines and cosines."""

import math

import pytest
import torch

from unrender import InputError, harmonic_embedding


def test_embeddings_are_those_of_pytorch3d(golden):
    arrays = golden("harmonic_embedding")
    appended = harmonic_embedding(arrays["x"], 6, append_input=True)
    torch.testing.assert_close(appended, arrays["embedding_n6_omega1_append_input"], rtol=1e-4, atol=1e-5)
    lower = harmonic_embedding(arrays["x"], 10, lowest=0.1)
    torch.testing.assert_close(lower, arrays["embedding_n10_omega01"], rtol=1e-4, atol=1e-5)


def test_sines_come_first_and_frequencies_double():
    x, y = 0.3, -0.8
    found = harmonic_embedding(torch.tensor([x, y], dtype=torch.float64), 2, lowest=math.pi)
    angles = [math.pi * x, 2 * math.pi * x, math.pi * y, 2 * math.pi * y]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_gradients_are_exact():
    values = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: harmonic_embedding(v, 3, append_input=True), values)


def test_no_frequencies_leave_the_values_and_fewer_are_refused():
    values = torch.rand(4, 3)
    assert torch.equal(harmonic_embedding(values, 0, append_input=True), values)
    with pytest.raises(InputError, match="num_frequencies"):
        harmonic_embedding(values, -1)


@pytest.mark.filterwarnings("ignore:.*jit.script.*:DeprecationWarning")
def test_is_followed_by_all_kinds_of_differentiation():
    values = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def embed(x):
        return harmonic_embedding(x, 4, append_input=True)

    assert torch.equal(torch.vmap(embed)(values), embed(values))
    forward, backward = (take(embed)(values) for take in (torch.func.jacfwd, torch.func.jacrev))
    torch.testing.assert_close(forward, backward)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(values, torch.ones_like(values))
        slope = torch.autograd.forward_ad.unpack_dual(embed(dual)).tangent
    torch.testing.assert_close(slope[:, -3:], torch.ones(5, 3, dtype=torch.float64))
