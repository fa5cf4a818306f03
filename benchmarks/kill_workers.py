"""Kill workers at random moments, check what the others do and leave, and continue.

    nice -n 15 python benchmarks/kill_workers.py --moments 20 --commands fit-nerf render

Two workers train or render together, with one thread each, connected through a port of this machine, without torchrun,
which would end the others itself. At a random moment, a random one of them receives SIGKILL. Then the other one has to
end within 30 seconds with a message, and every file has to be complete. A training that has a checkpoint is resumed by
one process, and has to end with the same bits as one that was never interrupted; one without is not counted. A
rendering is started again in the same folder, and has to end with the images and the video of one process. With
`--stop`, the worker receives SIGSTOP: it does not answer, and the other one has to say so after
UNRENDER_WORKER_TIMEOUT, here 10 seconds.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kill_fits import CHECKPOINT, RESULTS, Fits, damages, prepare, run_child, save_often

WORKERS = 2
TIMEOUTS = {signal.SIGSTOP: 10, signal.SIGKILL: 25}
"""Seconds after which a worker that does not answer is given up: after SIGKILL, this is for those not yet connected."""
LIMIT = 30.0
"""Seconds within which the others have to end."""
PATIENCE = 600
MESSAGES = {
    signal.SIGKILL: ("another worker ended without a message", "cannot reach the others"),
    signal.SIGSTOP: ("another worker did not answer in time", "cannot reach the others"),
}
VIEWS = ("--views", "12", "--size", "48")
MAX_TRIALS = 3
"""Per moment asked for: a training that was killed before its first checkpoint cannot be resumed."""


class Rendering:
    """Renderings of a run, continued by the same command."""

    command = "render"

    def __init__(self, run: Path) -> None:
        self._run = run

    def arguments(self, output: Path, *, resume: bool = False) -> list[str]:
        """Return the arguments of a rendering; `resume` changes nothing."""
        return [self.command, str(self._run), *VIEWS, "--output", str(output)]

    def run(self, arguments: Sequence[str], log: Path) -> tuple[int | None, float]:
        """Run a rendering to its end in one process; return its status and its time."""
        begin, process = time.perf_counter(), os.fork()
        if process == 0:
            run_child(arguments, log)
        return wait(process, PATIENCE), time.perf_counter() - begin


def results(command: str, folder: Path) -> dict[str, bytes]:
    """Read the results of a run that have to be the same."""
    patterns = ["view_*.png", "video.mp4"] if command == "render" else [RESULTS[command]]
    return {path.name: path.read_bytes() for pattern in patterns for path in sorted(folder.glob(pattern))}


def can_be_continued(command: str, folder: Path) -> bool:
    """Say whether a training has a checkpoint, or a rendering is not finished."""
    if command == "render":
        return not (folder / "metrics.json").is_file()
    return (folder / CHECKPOINT).is_file()


def start_workers(arguments: list[str], logs: list[Path], timeout: int = PATIENCE) -> list[int]:
    """Start workers of a command as forked processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"WORLD_SIZE": str(WORKERS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["UNRENDER_WORKER_TIMEOUT"] = str(timeout)
    workers = []
    for rank, log in enumerate(logs):
        worker = os.fork()
        if worker == 0:
            os.environ |= shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            run_child(arguments, log)
        workers.append(worker)
    return workers


def wait(worker: int, seconds: float) -> int | None:
    """Wait for a worker; return its status, or None if it has not ended in time, and was killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(worker, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    return None


class Hit(NamedTuple):
    """A signal to a worker."""

    number: signal.Signals
    seconds: float
    victim: int


class Trial:
    """A command of two workers, one of which is hit by a signal."""

    def __init__(self, fits: Fits | Rendering, folder: Path, hit: Hit) -> None:
        self._fits, self._out, self._hit = fits, folder, hit
        self._logs = [folder.with_name(f"{folder.name}-{rank}.log") for rank in range(WORKERS)]
        self.problems: list[str] = []
        self.stopping, self.was_continued = 0.0, False

    def run(self, reference: dict[str, bytes]) -> None:
        """Send the signal at its moment, and check the rest."""
        hit = self._hit
        workers = start_workers(self._fits.arguments(self._out), self._logs, TIMEOUTS[hit.number])
        time.sleep(hit.seconds)
        os.kill(workers[hit.victim], hit.number)
        sent = time.monotonic()
        for rank, worker in enumerate(workers):
            if rank != hit.victim:
                self._check_end(rank, wait(worker, LIMIT))
        self.stopping = time.monotonic() - sent
        os.kill(workers[hit.victim], signal.SIGKILL)
        os.waitpid(workers[hit.victim], 0)
        self.problems += damages(self._out, killed=True)
        if can_be_continued(self._fits.command, self._out):
            self._continue(reference)
        if not self.problems:
            shutil.rmtree(self._out, ignore_errors=True)

    def _check_end(self, rank: int, status: int | None) -> None:
        text = self._logs[rank].read_text(errors="replace")
        expected = any(message in text for message in MESSAGES[self._hit.number])
        if status is None:
            self.problems.append(f"worker {rank} has not ended after {LIMIT:.0f} s: {text[-300:]}")
        elif status != 0 and (status != 1 or not expected):
            self.problems.append(f"worker {rank} ended with status {status}: {text[-300:]}")

    def _continue(self, reference: dict[str, bytes]) -> None:
        self.was_continued = True
        log = self._logs[0].with_suffix(".continued.log")
        status, _ = self._fits.run(self._fits.arguments(self._out, resume=True), log)
        if status != 0:
            self.problems.append(f"continued: status {status}: {log.read_text(errors='replace')[-300:]}")
        elif results(self._fits.command, self._out) != reference:
            self.problems.append("continued: another result")


def run_trials(fits: Fits | Rendering, folder: Path, options: argparse.Namespace) -> list[Trial]:
    """Hit workers at random moments, until enough of the commands could be continued."""
    alone, whole = folder / f"alone-{fits.command}", folder / f"whole-{fits.command}"
    status, _ = fits.run(fits.arguments(alone), alone.with_suffix(".log"))
    logs = [folder / f"whole-{fits.command}-{rank}.log" for rank in range(WORKERS)]
    begin = time.monotonic()
    statuses = [wait(worker, PATIENCE) for worker in start_workers(fits.arguments(whole), logs)]
    seconds = time.monotonic() - begin
    if status or any(statuses):
        raise SystemExit("\n".join(log.read_text() for log in logs))
    reference = results(fits.command, alone)
    if results(fits.command, whole) != reference:
        raise SystemExit(f"{fits.command}: two workers and one process have different results: {folder}")
    number = signal.SIGSTOP if options.stop else signal.SIGKILL
    chance, trials = random.Random(f"{options.seed} {fits.command}"), list[Trial]()
    while sum(trial.was_continued for trial in trials) < options.moments:
        if len(trials) == MAX_TRIALS * options.moments:
            break
        hit = Hit(number, chance.uniform(0, seconds), chance.randrange(WORKERS))
        trials.append(Trial(fits, folder / f"run-{fits.command}-{len(trials)}", hit))
        trials[-1].run(reference)
        for problem in trials[-1].problems:
            print(f"  {fits.command}: worker {hit.victim} at {hit.seconds:.2f} s: {problem}", flush=True)
    failed = sum(bool(trial.problems) for trial in trials)
    print(
        f"{fits.command}: {len(trials)} moments of {seconds:.1f} s: {failed} with problems, "
        f"{sum(trial.was_continued for trial in trials)} continued; the other one ended within "
        f"{max(trial.stopping for trial in trials):.1f} s",
        flush=True,
    )
    return trials


def main() -> None:
    """Run all moments and print one line for each command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument(
        "--commands", nargs="+", choices=["fit-nerf", "fit-volume", "render"], default=["fit-nerf"]
    )
    parser.add_argument("--stop", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-workers-"))
    sources, problems = prepare(folder), 0
    save_often()
    from unrender.cli.main import main as run_here

    for command in options.commands:
        name = "fit-volume" if command == "render" else command
        fits = Fits(name, sources[name], folder, whole_runs=False, options=["--shards", "2"])
        warm = folder / f"warm-{command}"
        run_here(fits.arguments(warm))
        trials = run_trials(Rendering(warm) if command == "render" else fits, folder, options)
        problems += sum(bool(trial.problems) for trial in trials)
    if not problems:
        shutil.rmtree(folder)
    print(f"{problems} moments with problems" + (f": {folder}" if problems else ""))
    sys.exit(problems > 0)


if __name__ == "__main__":
    main()
