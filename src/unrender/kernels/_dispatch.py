"""Dispatch of kernels to an implementation, by the device of the tensors.

CPU tensors go to ``cpu.py`` (numba), CUDA tensors to ``gpu.py`` (NVIDIA Warp) where Warp is installed and the kernel
has one; everything else to ``reference.py`` (plain torch). ``UNRENDER_KERNELS`` forces a choice: ``reference`` for
every device, or ``warp``, which runs ``gpu.py`` for CPU tensors too, on Warp's CPU device (one thread: for tests).
"""

import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import threading
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from unrender.errors import KernelError

_log = logging.getLogger("unrender")
_import_lock = threading.Lock()
_cpu_lock = threading.RLock()
_forked = threading.Event()
"""Set in a process forked after OpenMP has run: its threads are gone, and using them aborts the process.
Such processes use the reference. Processes started by "spawn" have no such limit."""
ITEMS_PER_THREAD = 512
CHOICES = ("fast", "reference", "warp")


def implementation(kernel: str, device: torch.device) -> ModuleType | None:
    """Return the fast implementation of `kernel` for `device`, or None where the reference is used."""
    choice = os.environ.get("UNRENDER_KERNELS", "fast")
    if choice not in CHOICES:
        raise KernelError(f"UNRENDER_KERNELS should be 'fast', 'reference' or 'warp', got {choice!r}")
    if choice == "reference":
        return None
    if device.type == "cpu" and choice == "fast":
        return None if _forked.is_set() else _load(kernel, "cpu")
    if device.type == "cpu" or (device.type == "cuda" and torch.version.hip is None):
        return _gpu(kernel, device.type)
    if device.type != "meta":
        _warn_once(f"{device.type}: no fast kernels for this device; plain torch is used")
    return None


def can_read(tensor: Tensor) -> bool:
    """Return whether values can be read without synchronization, which on a GPU takes longer than many kernels."""
    return tensor.device.type == "cpu"


def _gpu(kernel: str, device: str) -> ModuleType | None:
    if not _has_gpu_kernel(kernel):
        return None
    if not _has_warp():
        _warn_once(
            "NVIDIA Warp is not installed; plain torch is used on the GPU: pip install 'unrender[gpu]'"
        )
        return None
    module = _load(kernel, "gpu")
    if device == "cuda":
        _check_process()
    return module


@functools.cache
def _has_gpu_kernel(kernel: str) -> bool:
    return importlib.util.find_spec(f"unrender.kernels.{kernel}.gpu") is not None


@functools.cache
def _has_warp() -> bool:
    return importlib.util.find_spec("warp") is not None


@functools.cache
def _load(kernel: str, file: str) -> ModuleType:
    with _import_lock:  # numba deadlocks when two threads import it at once
        if file == "cpu":
            _prepare_numba()
        return importlib.import_module(f"unrender.kernels.{kernel}.{file}")


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)


@functools.cache
def _cuda_process() -> int:
    """Return the process that ran the first kernel on a GPU."""
    return os.getpid()


def _check_process() -> None:
    if _cuda_process() != os.getpid():
        raise KernelError("a forked process cannot use the GPU its parent uses: start processes with 'spawn'")


@contextlib.contextmanager
def cpu_threads(num_items: int) -> Iterator[None]:
    """Let one Python thread at a time run parallel CPU kernels, on as many cores as torch may use.

    Few items run on one core, since waking a second one would take longer. Some of numba's threading layers abort
    the process when two Python threads enter them at once.
    """
    import numba

    with _cpu_lock:
        useful = 1 + num_items // ITEMS_PER_THREAD
        numba.set_num_threads(min(useful, torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        yield


@functools.cache
def _prepare_numba() -> None:
    """Log when kernels have to be compiled, and detect forks."""
    import numba

    from unrender.kernels._llvm.compilation import (
        can_cache,
        compile_without_cache,
        on_compilation,
        pause_garbage_collection,
        tolerate_unwritable_cache,
    )

    def after_fork() -> None:
        with contextlib.suppress(ValueError):  # no parallel kernel has run yet
            if numba.threading_layer() == "omp":
                _forked.set()
                torch.set_num_threads(1)  # as torch's own workers do: its threads are gone too

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=after_fork)
    pause_garbage_collection()
    if can_cache(implementation):
        on_compilation(_announce)
        tolerate_unwritable_cache(lambda error: _warn_once(f"compiled kernels are not cached: {error}"))
    else:
        compile_without_cache("unrender")
        _log.warning(
            "no writable folder for compiled kernels: every process compiles its own; set NUMBA_CACHE_DIR to one"
        )


@functools.cache
def _announce() -> None:
    _log.info("compiling CPU kernels: once on each machine, then cached")
