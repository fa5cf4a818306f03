"""Ctrl-C and termination: the first signal ends the work early and saves it, the second one ends the command."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

log = logging.getLogger("unrender")
HANDLED = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, the request to terminate (`kill`, job schedulers, containers), and a terminal that was closed."""


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command at once."""


class Interruption:
    """Signals that a command received, and what they did to its work."""

    def __init__(self) -> None:
        self._signals: list[int] = []
        self._is_deferred = False
        self.is_requested = False
        """Whether a signal asked to end the work early, which no loop has done yet."""
        self.is_incomplete = False
        """Whether work ended early."""

    def defer(self) -> None:
        """From here on, there is work to save: the first signal is a request to end early, and raises nothing."""
        self._is_deferred = True

    def end_early(self) -> None:
        """Record that a loop ended before its last step."""
        self.is_requested, self.is_incomplete = False, True

    def exit_status(self) -> int:
        """Return 128 plus the number of the signal, as shells do, for incomplete work; 0 otherwise."""
        return 128 + (self._signals[-1] if self._signals else signal.SIGINT) if self.is_incomplete else 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Record a signal; end the command if it is the second one, or if there is nothing to save."""
        self._signals.append(number)
        if len(self._signals) > 1 or not self._is_deferred:
            self.is_incomplete = True
            signal.signal(number, signal.SIG_DFL)  # a third one ends the process, whatever it does
            raise Interrupted(signal.Signals(number).name)
        self.is_requested = True
        with contextlib.suppress(RuntimeError, OSError):  # interrupted while printing; no terminal
            log.warning("stopping after this step; press Ctrl-C again to stop immediately")

    @contextlib.contextmanager
    def of_command(self) -> Iterator[None]:
        """Run a command within a command: what it defers, it defers for itself."""
        before = self._is_deferred
        try:
            yield
        finally:
            self._is_deferred = before


_current: Interruption | None = None


@contextlib.contextmanager
def handled_signals() -> Iterator[Interruption]:
    """Handle signals for a block; a block within shares the handlers of the outer one.

    Handlers of a program that calls this are kept, and only the main thread has any.
    """
    global _current
    if threading.current_thread() is not threading.main_thread():
        yield Interruption()
        return
    if _current is not None:
        yield _current
        return
    _current = interruption = Interruption()
    default = (signal.default_int_handler, signal.SIG_DFL)
    numbers = [getattr(signal, name) for name in HANDLED if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) in default}
    for number in before:
        signal.signal(number, interruption.handle)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _current = None
