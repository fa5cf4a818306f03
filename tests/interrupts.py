"""Signals in tests mean what they mean to a program that nobody runs in the background."""

import signal
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def default_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
