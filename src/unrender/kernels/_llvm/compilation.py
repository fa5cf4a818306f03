"""When numba compiles, and where it keeps what it has compiled."""

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
    """Call a function whenever numba begins to compile one."""
    event.register("numba:compile", _Listener(call))


def compile_without_cache(package: str) -> None:
    """Let `cache=True` mean nothing for functions of a package, where no folder can be written to."""
    cached = dispatcher.Dispatcher.enable_caching

    def enable_caching(self: dispatcher.Dispatcher) -> None:
        if not self.py_func.__module__.startswith(f"{package}."):
            cached(self)

    dispatcher.Dispatcher.enable_caching = enable_caching  # type: ignore[method-assign]


def can_cache(function: Callable[..., object]) -> bool:
    """Tell whether numba finds a folder for what it compiles of a function."""
    try:
        caching.FunctionCache(function)
    except RuntimeError:  # "no locator available"
        return False
    return True
