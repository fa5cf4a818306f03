"""Notification when numba compiles, and its cache of compiled functions."""

import gc
from collections.abc import Callable

from numba.core import caching, dispatcher, event


class _Listener(event.Listener):  # type: ignore[misc]
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def on_start(self, event: object) -> None:
        self.call()

    def on_end(self, event: object) -> None:
        pass


def on_compilation(call: Callable[[], None]) -> None:
    """Register a callback for the start of every compilation by numba."""
    event.register("numba:compile", _Listener(call))


class _GarbagePause(event.Listener):  # type: ignore[misc]
    """Counts compilations, since functions are compiled while their callers are."""

    def __init__(self) -> None:
        self.depth, self.was_enabled = 0, False

    def on_start(self, event: object) -> None:
        if self.depth == 0:
            self.was_enabled = gc.isenabled()
            gc.disable()
        self.depth += 1

    def on_end(self, event: object) -> None:
        self.depth -= 1
        if self.depth == 0 and self.was_enabled:
            gc.enable()


def pause_garbage_collection() -> None:
    """Pause it while numba compiles: it takes a fifth of the time, since compilers allocate many small objects."""
    event.register("numba:compile", _GarbagePause())


def compile_without_cache(package: str) -> None:
    """Ignore `cache=True` for the functions of a package, for systems without a writable cache folder."""
    cached = dispatcher.Dispatcher.enable_caching

    def enable_caching(self: dispatcher.Dispatcher) -> None:
        if not self.py_func.__module__.startswith(f"{package}."):
            cached(self)

    dispatcher.Dispatcher.enable_caching = enable_caching  # type: ignore[method-assign]


def can_cache(function: Callable[..., object]) -> bool:
    """Return whether numba finds a cache folder for a compiled function."""
    try:
        caching.FunctionCache(function)
    except RuntimeError:  # "no locator available"
        return False
    return True


def tolerate_unwritable_cache(call: Callable[[OSError], None]) -> None:
    """Continue where numba cannot save a compiled function, as on a full disk; `call` gets the error."""
    save = caching.Cache.save_overload

    def save_overload(self: caching.Cache, signature: object, data: object) -> None:
        try:
            save(self, signature, data)
        except OSError as error:
            call(error)

    caching.Cache.save_overload = save_overload
