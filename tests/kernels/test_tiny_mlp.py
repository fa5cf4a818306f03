import itertools

import pytest
import torch
from torch import Tensor

from check_kernel import Op, assert_same_bits, check_kernel, num_threads, run
from unrender import InputError, ShapeError, tiny_mlp


def scene(*widths: int, num: int = 300) -> list[Tensor]:
    """Create inputs, weights and biases of layers, in transposed layout."""
    generator = torch.Generator().manual_seed(0)
    layers = list(itertools.pairwise(widths))
    weights = [torch.randn(o, i, generator=generator) / i**0.5 for i, o in layers]
    biases = [torch.randn(o, 1, generator=generator) / 4 for _, o in layers]
    return [torch.randn(num, widths[0], generator=generator), *weights, *biases]


def perceptron(hidden: str = "relu", output: str = "none") -> Op:
    def evaluate(inputs: Tensor, *layers: Tensor) -> Tensor:
        half = len(layers) // 2
        return tiny_mlp(inputs, layers[:half], [b[:, 0] for b in layers[half:]], hidden=hidden, output=output)

    return evaluate


@pytest.mark.parametrize("hidden", ["relu", "softplus"])
@pytest.mark.parametrize("output", ["none", "relu", "softplus", "exp", "sigmoid"])
def test_matches_the_reference(hidden, output):
    check_kernel(perceptron(hidden, output), scene(5, 16, 9, 3))


@pytest.mark.parametrize(
    "widths", [(1, 1), (3, 128), (128, 1, 128), (32, 64, 16), (32, 64, 64, 3), (7, 9, 17, 2, 5)]
)
def test_any_widths(widths):
    check_kernel(perceptron("softplus"), scene(*widths, num=100))


@pytest.mark.parametrize("num", [0, 1, 240, 241])
def test_few_points(num):
    check_kernel(perceptron(output="sigmoid"), scene(4, 8, 3, num=num))


def test_results_do_not_depend_on_the_number_of_threads():
    results = []
    for threads in (1, 2):
        with num_threads(threads):
            results.append(run(perceptron(), scene(8, 32, 32, 3, num=20_000)))
    assert_same_bits(*results)


def test_matches_torch_modules():
    inputs, *_ = scene(6, 4)
    first, second = torch.nn.Linear(6, 20), torch.nn.Linear(20, 4)
    found = tiny_mlp(inputs, [first.weight, second.weight], [first.bias, second.bias])
    torch.testing.assert_close(found, second(first(inputs).relu()))


def test_transposed_inputs_and_outputs():
    inputs, *layers = scene(6, 20, 4)
    inputs = inputs.mT.contiguous().mT.requires_grad_()
    found = perceptron()(inputs, *layers)
    assert found.mT.is_contiguous()
    found.square().sum().backward()
    assert inputs.grad.mT.is_contiguous()
    assert layers[0].grad is None


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_exp_is_exact_and_its_gradient_bounded(monkeypatch, kernels):
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    inputs = torch.tensor([[-200.0], [-40], [0], [14], [40], [88], [200]], requires_grad=True)
    found = tiny_mlp(inputs, [torch.ones(1, 1)], [torch.zeros(1)], output="exp")
    torch.testing.assert_close(found, inputs.exp())
    found.backward(torch.ones_like(found))
    torch.testing.assert_close(inputs.grad, inputs.detach().clamp(max=15).exp())


@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize("output", ["softplus", "sigmoid"])
def test_activations_and_gradients_far_from_zero(monkeypatch, kernels, output):
    monkeypatch.setenv("UNRENDER_KERNELS", kernels)
    inputs = torch.tensor(
        [[-1000.0], [-60], [-20], [-1e-3], [0], [1e-3], [20], [90], [1000]], requires_grad=True
    )
    exact = inputs.detach().double().requires_grad_()
    found = tiny_mlp(inputs, [torch.ones(1, 1)], [torch.zeros(1)], output=output)
    theirs = exact.exp().log1p().where(exact < 100, exact) if output == "softplus" else exact.sigmoid()
    torch.testing.assert_close(found, theirs.float(), rtol=1e-6, atol=1e-30)
    found.backward(torch.ones_like(found))
    assert bool(inputs.grad.isfinite().all())
    derivatives = exact.sigmoid() if output == "softplus" else exact.sigmoid() * (-exact).sigmoid()
    torch.testing.assert_close(inputs.grad, derivatives.float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("output", ["none", "relu", "softplus", "exp", "sigmoid"])
def test_nan_is_propagated_to_its_own_point_only(output):
    inputs, *layers = scene(3, 8, 2, num=50)
    inputs[20, 1] = torch.nan
    found = perceptron(output=output)(inputs, *layers)
    assert found.isnan().any(1).nonzero().flatten().tolist() == [20]


def test_invalid_layers_are_rejected():
    inputs, weight, bias = scene(4, 3)
    bias = bias[:, 0]
    with pytest.raises(
        ShapeError, match=r"`weights\[0\]` should be \[outputs, 5\] and `biases\[0\]` \[outputs\]"
    ):
        tiny_mlp(torch.rand(2, 5), [weight], [bias])
    with pytest.raises(ShapeError, match=r"got float64\[3, 4\] and float32\[3\]"):
        tiny_mlp(inputs, [weight.double()], [bias])
    with pytest.raises(
        ShapeError, match="`weights` and `biases` should have one entry per layer, at least one, got 1 and 0"
    ):
        tiny_mlp(inputs, [weight], [])
    with pytest.raises(ShapeError, match=r"1 to 128 wide, got \[4, 200\]"):
        tiny_mlp(inputs, [torch.rand(200, 4)], [torch.rand(200)])
    with pytest.raises(InputError, match="`hidden` should be one of relu, softplus"):
        tiny_mlp(inputs, [weight], [bias], hidden="tanh")
