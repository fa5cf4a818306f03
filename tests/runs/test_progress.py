"""Ctrl-C and requests to terminate, once and twice."""

import signal
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from unrender.runs.interruption import handled_signals
from unrender.runs.progress import run_steps


class Step(NamedTuple):
    index: int
    last_index: int = 9


def interrupted(*, at: int, times: int, by: int = signal.SIGINT) -> Iterator[Step]:
    """Take steps, at one of which somebody presses Ctrl-C."""
    for index in range(10):
        for _ in range(times * (index == at)):
            signal.raise_signal(by)
        yield Step(index)


def indices(steps: list[Step]) -> list[int]:
    return [step.index for step in steps]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_current_step(by: int) -> None:
    before = signal.getsignal(by)
    with handled_signals() as interruption:
        assert indices(run_steps(interrupted(at=2, times=1, by=by), str)) == [0, 1, 2]
        assert interruption.exit_status() == 128 + by
    assert signal.getsignal(by) is before


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_immediately(by: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_steps(interrupted(at=2, times=2, by=by), str)
    with handled_signals():  # also after the loop
        run_steps(interrupted(at=2, times=1, by=by), str)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(by)


def test_a_signal_in_the_last_step_leaves_nothing_incomplete() -> None:
    with handled_signals() as interruption:
        assert len(run_steps(interrupted(at=9, times=1), str)) == 10
        assert interruption.exit_status() == 0


def test_a_signal_while_results_are_saved_skips_what_follows() -> None:
    with handled_signals() as interruption:
        assert len(run_steps(interrupted(at=0, times=0), str)) == 10
        signal.raise_signal(signal.SIGTERM)
        assert run_steps(interrupted(at=0, times=0), str, allow_empty=True) == []
        assert interruption.exit_status() == 143


def test_a_signal_before_the_first_step() -> None:
    with handled_signals(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_steps(interrupted(at=0, times=2), str)


def test_other_signal_handlers_are_kept(monkeypatch) -> None:
    pressed = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        assert len(run_steps(interrupted(at=2, times=1), str)) == 10
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [signal.SIGINT]


def test_steps_without_a_result_are_not_kept(caplog):
    with handled_signals(), pytest.raises(KeyboardInterrupt):
        run_steps(interrupted(at=2, times=1), str, has_result=lambda step: step.index > 5)
    assert "saved" not in caplog.text
