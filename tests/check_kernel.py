"""What every kernel has to hold, checked against its reference."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

Op = Callable[..., Tensor | tuple[Tensor, ...]]


def check_kernel(op: Op, inputs: Sequence[Tensor], *, ties: bool = False) -> None:
    """Check a function of floating-point tensors, in single precision, whose fast version runs by default.

    Values and gradients (of a random weighting of the outputs) agree with the reference; they have the same bits
    for 1 and 2 threads and for inputs that are not contiguous; gradcheck holds in double precision.
    With `ties`, where several answers are right, only the first output and finite gradients are asked for.
    """
    fast = run(op, inputs)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("UNRENDER_KERNELS", "reference")
        reference = run(op, inputs)
    compared = 1 if ties else None
    torch.testing.assert_close(fast[:compared], reference[:compared], rtol=1e-4, atol=2e-5)
    assert all(bool(torch.isfinite(result).all()) for result in (*fast, *reference))
    assert_same_bits(fast, run(op, [scattered(tensor) for tensor in inputs]))
    for threads in (1, 2):
        with num_threads(threads):
            assert_same_bits(fast, run(op, inputs))
    if not ties:
        doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
        assert gradcheck(op, doubles, fast_mode=True)


def run(op: Op, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the outputs, then the gradients of Σ cotangent · output for fixed random cotangents."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    result = op(*leaves)
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)
    smooth = [output for output in outputs if output.requires_grad]
    generator = torch.Generator().manual_seed(0)
    cotangents = [torch.randn(output.shape, generator=generator, dtype=output.dtype) for output in smooth]
    gradients = torch.autograd.grad(smooth, leaves, cotangents)
    return *(output.detach() for output in outputs), *gradients


def scattered(tensor: Tensor) -> Tensor:
    """Return the same values with gaps between them and with the last two axes swapped in memory."""
    room = torch.full(
        (*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2], 2), torch.nan, dtype=tensor.dtype
    )
    view = room[..., 0].mT
    view.copy_(tensor)
    return view


def assert_same_bits(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    """Compare every bit."""
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Run with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)
