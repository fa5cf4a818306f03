"""Ctrl-C in tests means what it means to a program that nobody runs in the background."""

import signal
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def default_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
