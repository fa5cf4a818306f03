"""Which implementation of a kernel runs: chosen by the device of the tensors, once, here.

``UNRENDER_KERNELS=reference`` forces the plain-torch reference of every kernel.
"""

import contextlib
import functools
import importlib
import logging
import os
import threading
from collections.abc import Iterator
from types import ModuleType

import torch

from unrender.errors import KernelError

_import_lock = threading.Lock()
_cpu_lock = threading.RLock()
_forked = threading.Event()
"""Set in a process forked after OpenMP has run: its threads are gone, and to ask for them ends the process.
The reference serves there. Processes started by "spawn" have no such limit."""
ITEMS_PER_THREAD = 512


def implementation(kernel: str, device: torch.device) -> ModuleType | None:
    """Return the fast implementation of `kernel` for `device`, or None where its reference has to serve."""
    choice = os.environ.get("UNRENDER_KERNELS", "fast")
    if choice not in ("fast", "reference"):
        raise KernelError(f"UNRENDER_KERNELS should be 'fast' or 'reference', got {choice!r}")
    if choice == "reference" or device.type != "cpu" or _forked.is_set():
        return None
    with _import_lock:  # numba deadlocks when two threads import it at once
        _prepare_numba()
        return importlib.import_module(f"unrender.kernels.{kernel}.cpu")


@contextlib.contextmanager
def cpu_threads(num_items: int) -> Iterator[None]:
    """Let one Python thread at a time run parallel CPU kernels, on as many cores as torch may use.

    Few items run on one core: to wake a second one costs more than it helps. Some of numba's threading layers abort
    the process when two Python threads enter them at once.
    """
    import numba

    with _cpu_lock:
        useful = 1 + num_items // ITEMS_PER_THREAD
        numba.set_num_threads(min(useful, torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        yield


@functools.cache
def _prepare_numba() -> None:
    """Say, when a kernel has to be compiled, that this is what takes the time; and watch for forks."""
    import numba
    from numba.core import event

    def after_fork() -> None:
        with contextlib.suppress(ValueError):  # raised where no parallel kernel has run yet: then all is well
            if numba.threading_layer() == "omp":
                _forked.set()
                torch.set_num_threads(1)  # as torch's own workers do: its threads are gone too

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=after_fork)
    announced = threading.Event()

    class Announcer(event.Listener):  # type: ignore[misc]
        def on_start(self, event: object) -> None:
            if not announced.is_set():
                announced.set()
                logging.getLogger("unrender").info("compiling CPU kernels: once on each machine, then cached")

        def on_end(self, event: object) -> None:
            pass

    event.register("numba:compile", Announcer())
