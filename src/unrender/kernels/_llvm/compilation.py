"""When numba compiles."""

from collections.abc import Callable

from numba.core import event


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
