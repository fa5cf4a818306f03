"""Count the operations that the rows of bench_gpu.py start on a GPU, on a machine without one.

    python benchmarks/count_operations.py [parts of the names of rows]

Where kernels are short, the time of a row is that of starting them. Kernels run on Warp's CPU device, at tiny sizes and
without the checks that a GPU would have to be waited for. A line holds torch's operations (of which those that only
make views), launches of kernels, the synchronizations that a GPU would need, and the host's time in µs, that of the
tiny kernels included.
"""

import collections
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["UNRENDER_KERNELS"] = "warp"

import torch
from gpu_rows import ROWS, Bench
from torch.utils._python_dispatch import TorchDispatchMode

from unrender.geometry import camera, columns
from unrender.kernels import _dispatch, _warp, nearest, rasterize
from unrender.render import blend

WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero")


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()
        self.views = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.counts[func.overloadpacket.__str__()] += 1
        self.views += func.is_view
        return func(*args, **kwargs or {})


def count(work: Callable[[], object]) -> tuple[Operations, collections.Counter[str]]:
    """Return the operations and launches of one call."""
    launches: collections.Counter[str] = collections.Counter()
    call = _warp._Recorded.__call__

    def counted(self: Any, *arguments: Any) -> None:
        launches[self.key] += 1
        call(self, *arguments)

    _warp._Recorded.__call__ = counted  # type: ignore[method-assign]
    try:
        with Operations() as operations:
            work()
    finally:
        _warp._Recorded.__call__ = call  # type: ignore[method-assign]
    return operations, launches


def microseconds(work: Callable[[], object], calls: int = 30) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def main() -> None:
    for module in (_dispatch, nearest, rasterize, blend, camera, columns):
        module.can_read = lambda _: False  # as on a GPU
    sys.path.insert(0, str(Path(__file__).parent))
    import gpu_field_rows  # noqa: F401
    import gpu_mesh_rows  # noqa: F401
    import gpu_task_rows  # noqa: F401

    captured: list[Callable[[], object]] = []

    class Counting(Bench):
        def time(self, work: Callable[[], object], seconds: float = 0.6) -> dict[str, Any]:
            captured.append(work)
            return {"ms": 0.0}

    bench = Counting(torch.device("cpu"), None, tiny=True)
    verbose, parts = "-v" in sys.argv, [part for part in sys.argv[1:] if part != "-v"]
    print(f"{'':62}{'torch':>7}{'views':>7}{'launch':>7}{'waits':>7}{'µs':>8}")
    for row in sorted(ROWS, key=lambda row: row.order):
        if (
            row.order > 150
            or row.name.startswith(("check", "first use"))
            or (parts and not any(part in row.name for part in parts))
        ):
            continue
        captured.clear()
        if "find-pose" in row.name:
            continue
        row.run(bench)
        for work in captured:
            for _ in range(3):
                work()
            operations, launches = count(work)
            torch_ops, waits = operations.counts.total(), sum(operations.counts[name] for name in WAITS)
            print(
                f"{row.name:62}{torch_ops - operations.views:7}{operations.views:7}{launches.total():7}{waits:7}"
                f"{microseconds(work):8.0f}",
                flush=True,
            )
            if verbose:
                print("   ", dict(operations.counts.most_common()))
                print("   ", dict(launches))


main()
