"""A short run of the fuzzer. A longer one: `cd tests; python -m fuzzing run`."""

import math

import numpy as np
import pytest
import torch

from fuzzing import layouts, mutations
from fuzzing.cases import FINE, Outcome, Subject
from fuzzing.kinds import Kind, all_kinds
from fuzzing.pool import Worker
from unrender import FileFormatError, PointCloud

SLOW = ("checkpoint-fit-nerf", "checkpoint-fit-volume", "video-mp4", "scene-tum", "scene-tum-list")
"""Kinds that take a second to make or to read."""
SEEDS = range(2)


@pytest.mark.parametrize("name", all_kinds())
def test_damaged_files_are_read_or_refused(name, tmp_path):
    if name in SLOW:
        pytest.skip("part of the long run")
    subject = Subject(all_kinds()[name], tmp_path / "files")
    subject.read_valid()
    for seed in SEEDS:
        outcome = subject.read_damaged(seed)
        assert outcome.answer in FINE, f"python -m fuzzing replay {name} {seed}: {outcome.what}"


@pytest.mark.parametrize("name", [name for name in all_kinds() if name not in SLOW])
def test_layouts_keep_what_they_take_apart(name, tmp_path):
    kind = all_kinds()[name]
    kind.make(tmp_path)
    parts = kind.layout.open((tmp_path / kind.file).read_bytes())
    closed = kind.layout.close([part.data for part in parts])
    assert [part.data for part in kind.layout.open(closed)] == [part.data for part in parts]


def test_damage_depends_on_the_seed_alone():
    data = bytes(range(256))
    files = [
        mutations.damage(data, layouts.BINARY, np.random.default_rng(seed)) for seed in (1, 1, *range(20))
    ]
    assert files[0] == files[1]
    assert len({*files}) > 15


def answer_of(read, tmp_path) -> Outcome:
    kind = Kind("k", "f", lambda folder: (folder / "f").write_bytes(b"x") and None, read, layouts.BINARY)
    return Subject(kind, tmp_path / "files").read_bytes(b"")


def fail(error: Exception, cause: Exception | None = None):
    def read(_):
        raise error from cause

    return read


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda _: 1.0, "value"),
        (lambda _: {"a": [torch.ones(2), (math.nan,)]}, "impossible"),
        (lambda _: PointCloud(torch.tensor([[0.0, math.inf, 0.0]])), "impossible"),
        (fail(FileFormatError("damaged")), "refused"),
        (fail(ValueError("x")), "foreign"),
        (fail(FileFormatError("large"), MemoryError()), "memory"),
    ],
)
def test_answers(tmp_path, read, expected):
    assert answer_of(read, tmp_path).answer == expected


@pytest.mark.slow
def test_other_processes_find_the_same(tmp_path):
    here = Subject(all_kinds()["mesh-off"], tmp_path / "files").read_damaged(7)
    with Worker() as worker:
        there = worker.read(("mesh-off", 7))
        ended = worker.read(("no such kind", 0))
        assert worker.read(("mesh-off", 7)).answer == here.answer
    assert (there.answer, there.what.split(": ", 1)[-1]) == (here.answer, here.what.split(": ", 1)[-1])
    assert ended.answer == "ended"
