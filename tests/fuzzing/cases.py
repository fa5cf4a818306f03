"""One damaged file: made from its kind and seed, read, and judged."""

import dataclasses
import os
import resource
import shutil
import signal
import time
import traceback
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from fuzzing.finite import ImpossibleError, check
from fuzzing.kinds import Kind
from fuzzing.mutations import damage
from unrender import UnrenderError

SECONDS = 20.0
"""Processor time after which a case is ended."""
MEMORY = 3 << 29
"""1.5 GiB: memory beyond what the process had before."""
SLACK = 1 << 28
"""Address space that is not memory: stacks and arenas."""
Answer = Literal["value", "refused", "foreign", "impossible", "memory", "ended"]
FINE: tuple[Answer, ...] = ("value", "refused")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a reader answered to a damaged file."""

    kind: str
    seed: int
    answer: Answer
    what: str = ""
    seconds: float = 0.0
    """Processor time."""
    mib: int = 0


def damaged(kind: Kind, data: bytes, seed: int) -> bytes:
    """Return the file of a kind with the damage of a seed."""
    rng = np.random.default_rng([seed, zlib.crc32(kind.name.encode())])
    return damage(data, kind.layout, rng)


class Subject:
    """The files of a kind in a folder, of which one is replaced again and again."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        folder.mkdir(parents=True)
        kind.make(folder)
        self._valid = (folder / kind.file).read_bytes()

    def read_valid(self) -> None:
        """Read the undamaged files, which compiles kernels, too."""
        check(self.kind.read(self.folder))

    def read_damaged(self, seed: int) -> Outcome:
        """Damage the file, and read it."""
        return self.read_bytes(damaged(self.kind, self._valid, seed), seed)

    def read_bytes(self, data: bytes, seed: int = -1) -> Outcome:
        """Read these bytes in place of the file."""
        (self.folder / self.kind.file).write_bytes(data)
        begin, before = time.process_time(), _start_measuring()
        answer, what = _answer(self.kind, self.folder)
        mib = max(0, _status("VmHWM") - before) >> 20
        if mib << 20 > MEMORY:
            answer, what = "memory", f"took {mib} MiB"
        return Outcome(self.kind.name, seed, answer, what, round(time.process_time() - begin, 3), mib)

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)


def _answer(kind: Kind, folder: Path) -> tuple[Answer, str]:
    try:
        check(kind.read(folder))
    except UnrenderError as error:
        return ("memory", _describe(error)) if _lacks_memory(error) else ("refused", str(error)[:200])
    except ImpossibleError as error:
        return "impossible", str(error)
    except Exception as error:  # noqa: BLE001 — finding them is the purpose
        return ("memory" if _lacks_memory(error) else "foreign"), _describe(error)
    return "value", ""


def _lacks_memory(error: BaseException | None) -> bool:
    """Return whether an allocation failed, which means that it was tried."""
    while error is not None:
        if isinstance(error, MemoryError) or "alloc" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _describe(error: BaseException) -> str:
    """Say what was raised, and where in unrender, if it was there."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__ or error.__traceback__)
    ours = [frame for frame in frames if "/unrender/" in frame.filename] or frames
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(ours[-3:]))
    return f"{type(error).__name__} at {where}: {str(error)[:300]}"


def limit_next() -> None:
    """Limit the next case: the kernel ends the process after so much processor time, and refuses so much memory."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MEMORY + SLACK, most))


def lift_limits() -> None:
    """Lift the limits of `limit_next`."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _start_measuring() -> int:
    """Reset the peak of the memory in use, where the system allows it, and return what is in use."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return _status("VmHWM")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Return a figure of this process in bytes; 0 where there is no /proc."""
    if not os.path.exists("/proc/self/status"):
        return 0
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)
