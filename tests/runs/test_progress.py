"""Ctrl-C, once and twice."""

import os
import signal
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from unrender.runs.progress import run_steps


class Step(NamedTuple):
    index: int
    last_index: int = 9


def interrupted(*, at: int, times: int) -> Iterator[Step]:
    """Take steps, at one of which somebody presses Ctrl-C."""
    for index in range(10):
        for _ in range(times * (index == at)):
            os.kill(os.getpid(), signal.SIGINT)
        yield Step(index)


def test_ctrl_c_finishes_the_current_step() -> None:
    assert [step.index for step in run_steps(interrupted(at=2, times=1), str)] == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_stops_immediately() -> None:
    assert [step.index for step in run_steps(interrupted(at=2, times=2), str)] == [0, 1]


def test_ctrl_c_before_the_first_step() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_steps(interrupted(at=0, times=2), str)
    assert run_steps(interrupted(at=0, times=2), str, allow_empty=True) == []


def test_other_signal_handlers_are_kept(monkeypatch) -> None:
    pressed = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        assert len(run_steps(interrupted(at=2, times=1), str)) == 10
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [signal.SIGINT]
