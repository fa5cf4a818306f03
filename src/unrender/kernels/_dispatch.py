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


def implementation(kernel: str, device: torch.device) -> ModuleType | None:
    """Return the fast implementation of `kernel` for `device`, or None where its reference has to serve."""
    choice = os.environ.get("UNRENDER_KERNELS", "fast")
    if choice not in ("fast", "reference"):
        raise KernelError(f"UNRENDER_KERNELS should be 'fast' or 'reference', got {choice!r}")
    if choice == "reference" or device.type != "cpu":
        return None
    with _import_lock:  # numba deadlocks when two threads import it at once
        _prepare_numba()
        return importlib.import_module(f"unrender.kernels.{kernel}.cpu")


@contextlib.contextmanager
def cpu_threads() -> Iterator[None]:
    """Let one Python thread at a time run parallel CPU kernels, on as many cores as torch may use.

    The threading layer that outlives a fork aborts the process when two Python threads enter it at once.
    """
    import numba

    with _cpu_lock:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        yield


@functools.cache
def _prepare_numba() -> None:
    """Choose the threading layer, and say, when a kernel has to be compiled, that this is what takes the time.

    OpenMP, numba's first choice, kills a forked process (a torch DataLoader's worker) at its first kernel.
    """
    import numba
    from numba.core import event

    if "NUMBA_THREADING_LAYER" not in os.environ:
        numba.config.THREADING_LAYER = "workqueue"

    announced = threading.Event()

    class Announcer(event.Listener):  # type: ignore[misc]
        def on_start(self, event: object) -> None:
            if not announced.is_set():
                announced.set()
                logging.getLogger("unrender").info("compiling CPU kernels: once on each machine, then cached")

        def on_end(self, event: object) -> None:
            pass

    event.register("numba:compile", Announcer())
