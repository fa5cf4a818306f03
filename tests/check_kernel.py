"""What every kernel has to hold, checked against its reference, for each of its implementations."""

import importlib.util
import os
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from unrender._struct import TensorStruct
from unrender.kernels import _dispatch

Op = Callable[..., Tensor | tuple[Tensor, ...]]
HAS_WARP = importlib.util.find_spec("warp") is not None
needs_warp = pytest.mark.skipif(
    not HAS_WARP, reason="NVIDIA Warp is not installed: pip install unrender[gpu]"
)
needs_cuda = pytest.mark.skipif(
    not (HAS_WARP and torch.cuda.is_available()), reason="there is no NVIDIA GPU, or Warp is not installed"
)

ONLY_CUDA = os.environ.get("UNRENDER_TEST_DEVICE") == "cuda"
"""Whether `check_kernel` leaves out the CPU: set by on_device.py, where time on a GPU is short."""

either_kernel = pytest.mark.parametrize("kernels", ["fast", pytest.param("warp", marks=needs_warp)])
"""Runs a test that asks for `kernels` in numba, and in Warp on the CPU."""


def check_kernel(op: Op, inputs: Sequence[Tensor], *, ties: bool = False) -> None:
    """Check a function of floating-point tensors, in single precision, in numba, in Warp on the CPU and on a GPU.

    Values and gradients (of a random weighting of the outputs) agree with the reference; they have the same bits
    for 1 and 2 threads, from run to run, and for inputs that are not contiguous; gradcheck holds in double precision.
    With `ties`, where several answers are right, only the first output and finite gradients are asked for.
    Tensors that the function refers to are taken to the GPU with it.
    """
    with implementations("reference"):
        reference = run(op, inputs)
    if not ONLY_CUDA:
        check_implementation("fast", op, inputs, reference, ties)
        results = run(op, inputs)
        for threads in (1, 2):
            with num_threads(threads):
                assert_same_bits(results, run(op, inputs))
        if HAS_WARP:
            check_implementation("warp", op, inputs, reference, ties)
    if HAS_WARP and torch.cuda.is_available():
        on_gpu = [tensor.detach().cuda() for tensor in inputs]
        check_implementation("fast", moved(op, torch.device("cuda")), on_gpu, reference, ties)


def check_implementation(
    choice: str, op: Op, inputs: Sequence[Tensor], reference: Sequence[Tensor], ties: bool
) -> None:
    """Check one implementation; where only the reference serves, there is nothing to check."""
    with implementations(choice) as loaded:
        results = run(op, inputs)
        if not loaded:
            return
        compared = 1 if ties else None
        on_cpu = tuple(result.cpu() for result in results)
        torch.testing.assert_close(on_cpu[:compared], tuple(reference[:compared]), rtol=1e-4, atol=2e-5)
        assert all(bool(torch.isfinite(result).all()) for result in (*results, *reference))
        assert_same_bits(results, run(op, [scattered(tensor) for tensor in inputs]))
        if not ties and os.environ.get("UNRENDER_TEST_DOUBLE") != "0":
            doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
            assert gradcheck(op, doubles, fast_mode=True)


@contextmanager
def implementations(choice: str) -> Iterator[list[tuple[str, str]]]:
    """Force a choice of kernels; yield a list that grows by those which are used: their names and files."""
    loaded: list[tuple[str, str]] = []
    load = _dispatch._load

    def record(kernel: str, file: str) -> types.ModuleType:
        loaded.append((kernel, file))
        return load(kernel, file)

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("UNRENDER_KERNELS", choice)
        environment.setattr(_dispatch, "_load", record)
        yield loaded


def moved(op: Any, device: torch.device) -> Any:
    """Return a function with the tensors, and functions, that it refers to on another device."""
    if not isinstance(op, types.FunctionType):
        return op

    def on_device(value: Any) -> Any:
        return value.to(device) if hasattr(value, "to") else moved(value, device)

    cells = tuple(types.CellType(on_device(cell.cell_contents)) for cell in op.__closure__ or ())
    values = {
        name: value for name, value in op.__globals__.items() if isinstance(value, Tensor | TensorStruct)
    }
    known = op.__globals__ | {name: value.to(device) for name, value in values.items()}
    function = types.FunctionType(op.__code__, known, op.__name__, op.__defaults__, cells)
    function.__kwdefaults__ = op.__kwdefaults__
    return function


def run(op: Op, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the outputs, then the gradients of Σ cotangent · output for fixed random cotangents."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    result = op(*leaves)
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)
    smooth = [output for output in outputs if output.requires_grad]
    generator = torch.Generator().manual_seed(0)
    cotangents = [
        torch.randn(output.shape, generator=generator, dtype=output.dtype).to(output.device)
        for output in smooth
    ]
    gradients = torch.autograd.grad(smooth, leaves, cotangents)
    return *(output.detach() for output in outputs), *gradients


def scattered(tensor: Tensor) -> Tensor:
    """Return the same values with gaps between them and with the last two axes swapped in memory."""
    room = tensor.new_full((*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2], 2), torch.nan)
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
