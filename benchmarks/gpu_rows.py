"""Rows of bench_gpu.py: what a row is, and what it may ask for.

Files gpu_*_rows.py add theirs with `check`, `timing` and `measurement`:

@check("nearest")
def nearest_agrees(bench):            # raises, or returns what to note
    return bench.agree(lambda q, p: nearest(q, p).distances, [bench.randn(2000, 3), bench.randn(3000, 3)])

@timing("chamfer 1k", reach=0.5, pytorch3d=1.43)
def chamfer(bench):                   # returns the work to be timed
    ...
    return lambda: chamfer_distance(x, y).distance.backward()
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Result = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A named piece of the benchmark: `run` takes a Bench and returns what to write down."""

    name: str
    run: Callable[["Bench"], Result]
    order: int
    """Rows run in this order; checks come first."""


ROWS: list[Row] = []


def check(name: str, *, order: int = 0) -> Callable[[Callable[["Bench"], Result]], Any]:
    """Add a row that compares with a reference on the device: it raises, or returns what to note."""

    def add(function: Callable[["Bench"], Result]) -> Any:
        ROWS.append(Row(f"check {name}", function, order))
        return function

    return add


def timing(
    name: str, *, reach: float | None = None, pytorch3d: float | None = None, order: int = 100
) -> Callable[[Callable[["Bench"], Callable[[], object]]], Any]:
    """Add a row that times the work a function returns; `reach` and `pytorch3d` are ms to compare with."""

    def add(function: Callable[["Bench"], Callable[[], object]]) -> Any:
        def run(bench: "Bench") -> Result:
            return bench.time(function(bench)) | {"reach_ms": reach, "pytorch3d_ms": pytorch3d}

        ROWS.append(Row(name, run, order))
        return function

    return add


def measurement(name: str, *, order: int = 200) -> Callable[[Callable[["Bench"], Result]], Any]:
    """Add a row that measures by itself and returns its figures."""

    def add(function: Callable[["Bench"], Result]) -> Any:
        ROWS.append(Row(name, function, order))
        return function

    return add


@dataclass
class Bench:
    """The device, the data, and a clock."""

    device: torch.device
    data: Path | None
    tiny: bool
    """Whether sizes are to be as small as they can be: a rehearsal."""
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    kept: dict[str, Any] = field(default_factory=dict)
    """What rows share, such as loaded meshes."""

    def size(self, full: int, tiny: int) -> int:
        """Return a size, or its stand-in in a rehearsal."""
        return tiny if self.tiny else full

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator).to(self.device)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def file(self, name: str) -> Path | None:
        """Return a file of the shared data, or None where it is not there."""
        path = None if self.data is None else self.data / name
        return path if path is not None and path.exists() else None

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def time(self, work: Callable[[], object], seconds: float = 0.6) -> Result:
        """Time work: median with launch and synchronisation (ms), and one after another without (stream_ms)."""
        first = self._once(work)
        times = [self._once(work) for _ in range(1 if self.tiny else 3)]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        end = time.perf_counter() + seconds
        while not self.tiny and len(times) < 100 and (time.perf_counter() < end or len(times) < 7):
            times.append(self._once(work))
        result: Result = {
            "first_ms": first,
            "ms": statistics.median(times),
            "min_ms": min(times),
            "runs": len(times),
        }
        if self.device.type == "cuda":
            result["peak_mib"] = (torch.cuda.max_memory_allocated(self.device) - before) / 2**20
            result["stream_ms"] = self._in_a_row(work, 20)
        return result

    def _once(self, work: Callable[[], object]) -> float:
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return 1000 * (time.perf_counter() - start)

    def _in_a_row(self, work: Callable[[], object], count: int) -> float:
        """Return the ms per call of calls that nothing waits between, on the device's clock."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(count):
            work()
        end.record()
        self.synchronize()
        return start.elapsed_time(end) / count

    def agree(
        self,
        op: Callable[..., Tensor | tuple[Tensor, ...]],
        inputs: Sequence[Tensor],
        *,
        tolerance: float = 1e-4,
        outputs_only: bool = False,
    ) -> Result:
        """Compare outputs and gradients with the reference's, as |a − b| / |b|, and the bits of two runs.

        Raises AssertionError where one differs by more than `tolerance`, is not finite, or bits differ.
        """
        got, again = (results_of(op, inputs, outputs_only) for _ in range(2))
        with kernels("reference"):
            expected = results_of(op, inputs, outputs_only)
        errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
        same = all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
        assert all(error <= tolerance for error in errors), f"differs from the reference: {errors}"
        assert same, "two runs differ in their bits"
        return {"errors": errors, "same_bits": same}


def results_of(op: Callable[..., Any], inputs: Sequence[Tensor], outputs_only: bool) -> list[Tensor]:
    """Return the outputs but None, then the gradients of Σ cotangent · output for fixed random cotangents."""
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in inputs]
    result = op(*leaves)
    outputs = [result] if isinstance(result, Tensor) else [output for output in result if output is not None]
    smooth = [output for output in outputs if output.requires_grad]
    results = [output.detach() for output in outputs]
    if smooth and not outputs_only:
        generator = torch.Generator().manual_seed(1)
        cotangents = [torch.randn(t.shape, generator=generator).to(t) for t in smooth]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = torch.autograd.grad(smooth, wanted, cotangents, allow_unused=True)
        results += [gradient for gradient in gradients if gradient is not None]
    return results


def relative_error(a: Tensor, b: Tensor) -> float:
    """Return |a − b| / |b|; NaN is not forgiven."""
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@contextlib.contextmanager
def kernels(choice: str) -> Iterator[None]:
    """Force the implementation of kernels."""
    before = os.environ.get("UNRENDER_KERNELS")
    os.environ["UNRENDER_KERNELS"] = choice
    try:
        yield
    finally:
        if before is None:
            del os.environ["UNRENDER_KERNELS"]
        else:
            os.environ["UNRENDER_KERNELS"] = before
