"""The workers of a distributed computation: processes that torchrun started together, on one machine or on many.

Everything here also works in a single process, which is then the only worker.
"""

import contextlib
import dataclasses
import datetime
import importlib
import itertools
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from unrender.errors import InputError, WorkerError

Value = TypeVar("Value")
TIMEOUT_VARIABLE, TIMEOUT_SECONDS = "UNRENDER_WORKER_TIMEOUT", 1800
"""Environment variable, and its default: how long workers wait for one that does not answer, in seconds."""
FAILURE = "unrender/failure"
"""Key of the store under which the first worker that fails says why."""
SECONDS_FOR_REASON = 2.0
"""How long others wait for that reason once a connection broke: a worker that was killed gives none."""


@dataclasses.dataclass(frozen=True)
class Workers:
    """All workers, seen from one of them. Each method has to be called by all workers, in the same order."""

    rank: int = 0
    """Number of this worker."""
    count: int = 1
    """Number of workers."""

    @property
    def is_first(self) -> bool:
        """Whether this worker writes what all have computed."""
        return self.rank == 0

    def items(self, count: int) -> range:
        """Return which of `count` items are this worker's: every one is exactly one worker's."""
        return range(self.rank, count, self.count)

    def claims(self, count: int, name: str) -> Iterator[int]:
        """Yield which of `count` items are this worker's, whenever it is free for the next one.

        name: of this work, for which no worker has claimed any before.
        """
        if self.count == 1:
            yield from range(count)
            return
        while True:
            with _connection():
                index = _count(f"unrender/claims/{name}") - 1
            if index >= count:
                return
            yield index

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all workers, by rank."""
        if self.count == 1:
            return [value]
        values: list[Value | None] = [None] * self.count
        with _connection():
            dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def collect(self, value: Value) -> list[Value]:
        """Return the values of all workers, by rank, on the first one; nothing on the others."""
        if self.count == 1:
            return [value]
        values: list[Value | None] | None = [None] * self.count if self.is_first else None
        with _connection():
            dist.gather_object(value, values)
        return values or []  # type: ignore[return-value]

    def of_first(self, value: Value) -> Value:
        """Return the value of the first worker."""
        if self.count == 1:
            return value
        values: list[Value] = [value]
        with _connection():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def numbers_of_first(self, *values: float) -> tuple[float, ...]:
        """Return the numbers of the first worker."""
        if self.count == 1:
            return values
        numbers = torch.tensor(values, dtype=torch.float64)
        with _connection():
            dist.broadcast(numbers, src=0)
        return tuple(numbers.tolist())

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum over workers; of integers, so that it does not depend on their number."""
        if self.count > 1:
            with _connection():
                dist.all_reduce(tensor, dist.ReduceOp.SUM)

    def maximum(self, tensor: Tensor) -> None:
        """Replace a tensor by the elementwise maximum over workers."""
        if self.count > 1:
            with _connection():
                dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def exchange(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Send each worker `counts` of the rows, in the order of ranks; return those of all workers for this one.

        The result has one more axis in front: the worker that sent them.
        """
        if self.count == 1:
            return rows[None]
        received = rows.new_empty((self.count, counts[self.rank], *rows.shape[1:]))
        with _connection():
            dist.all_to_all_single(
                received.flatten(0, 1), rows, [counts[self.rank]] * self.count, list(counts)
            )
        return received

    def share_parts(self, values: Tensor, ends: Sequence[int]) -> None:
        """Complete a tensor of which each worker has computed one part, in place.

        ends: where the part of each worker ends along the first axis; the next one begins there.
        """
        if self.count == 1:
            return
        with _connection():
            sent = [
                dist.broadcast(values[begin:end], src=rank, async_op=True)
                for rank, (begin, end) in enumerate(itertools.pairwise([0, *ends]))
                if end > begin
            ]
            for work in sent:
                work.wait()

    def any(self, condition: bool) -> bool:
        """Return whether a condition holds on any worker."""
        if self.count == 1:
            return condition
        found = torch.tensor(float(condition))
        self.maximum(found)
        return bool(found)

    def require_same(self, what: str, value: str) -> None:
        """Raise InputError on all workers unless `value` is the same on all."""
        found = self.gather((value, name_of(self.rank)))
        for other, name in found:
            if other != found[0][0]:
                raise InputError(
                    f"workers differ in {what}: {found[0][0]} on {found[0][1]}, {other} on {name}; all of them need "
                    "the same installation and the same files"
                )


ALONE = Workers()
"""One process, without others."""


def current_workers() -> Workers:
    """Return the workers of this computation; without `torch.distributed`, this process alone."""
    if dist.is_available() and dist.is_initialized():
        return Workers(dist.get_rank(), dist.get_world_size())
    return ALONE


def is_launched() -> bool:
    """Say whether a launcher of distributed computations, such as torchrun, started this process."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def name_of(rank: int) -> str:
    """Name a worker and its machine in messages."""
    return f"worker {rank} ({socket.gethostname()})"


@contextlib.contextmanager
def joined_workers() -> Iterator[Workers]:
    """Connect the processes that torchrun started together; if one fails, the others end with its reason.

    Without torchrun, or if it started one process only, this process is the only worker.
    Raises WorkerError if the others cannot be reached.
    """
    if not is_launched() or os.environ["WORLD_SIZE"] == "1" or dist.is_initialized():
        yield current_workers()
        return
    _connect()
    workers = current_workers()
    try:
        yield workers
    except BaseException as error:
        _leave_reason(workers.rank, error)
        raise
    finally:
        with contextlib.suppress(RuntimeError):  # of connections that broke
            dist.destroy_process_group()


def _connect() -> None:
    seconds = _timeout()
    # Its functions take the process group as a default argument. Imported later, by an optimizer, they would keep the
    # group alive after it is destroyed, and its threads would abort this process while Python exits.
    importlib.import_module("torch.distributed.nn")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=seconds))
    except (RuntimeError, ValueError) as error:
        raise WorkerError(
            f"{name_of(int(os.environ['RANK']))} cannot reach the others at {address}: {_first_line(error)}; the port "
            "may be in use (choose another: torchrun --master-port N), or a machine may not be reachable"
        ) from error


def _count(name: str) -> int:
    """Add 1 to a number that all workers share, and return it; RuntimeError if that takes longer than the timeout."""
    found: list[int | RuntimeError] = []

    def add() -> None:
        try:
            found.append(dist.distributed_c10d._get_default_store().add(name, 1))
        except RuntimeError as error:
            found.append(error)

    # of its own, as adding never ends if the worker that holds the store hangs
    adding = threading.Thread(target=add, daemon=True)
    adding.start()
    adding.join(_timeout())
    if not found:
        raise RuntimeError("timed out")
    if isinstance(found[0], RuntimeError):
        raise found[0]
    return found[0]


def _timeout() -> int:
    """Return how many seconds workers wait for another one."""
    seconds = os.environ.get(TIMEOUT_VARIABLE, str(TIMEOUT_SECONDS))
    if not (seconds.isascii() and seconds.isdigit() and int(seconds) > 0):
        raise InputError(f"{TIMEOUT_VARIABLE}={seconds}: must be a number of seconds")
    return int(seconds)


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """Turn a broken connection into the reason why it broke."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerError(_reason(error)) from error


def _reason(error: RuntimeError) -> str:
    found: list[str] = []
    # of its own, as waiting never ends if the worker that holds the store hangs
    reader = threading.Thread(target=_read_reason, args=(found,), daemon=True)
    reader.start()
    reader.join(SECONDS_FOR_REASON + 1)
    if found:
        return found[0]
    if "timed out" in str(error).lower():
        return (
            f"another worker did not answer in time ({TIMEOUT_VARIABLE} seconds, by default {TIMEOUT_SECONDS}): it may "
            "hang, or be much slower"
        )
    return f"another worker ended without a message; it may have been killed ({_first_line(error)})"


def _read_reason(found: list[str]) -> None:
    with contextlib.suppress(RuntimeError, ValueError):  # no reason was left, or the store is gone
        store = dist.distributed_c10d._get_default_store()
        store.wait([FAILURE], datetime.timedelta(seconds=SECONDS_FOR_REASON))
        found.append(store.get(FAILURE).decode())


def _leave_reason(rank: int, error: BaseException) -> None:
    """Say why this worker fails, unless it only follows another one."""
    if isinstance(error, WorkerError):
        return
    text = str(error) or type(error).__name__
    with contextlib.suppress(RuntimeError, ValueError):
        store = dist.distributed_c10d._get_default_store()
        store.compare_set(FAILURE, "", f"{name_of(rank)}: {text}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
