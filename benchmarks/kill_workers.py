"""Kill workers of a distributed training at random moments, check what the others do and leave, and resume.

    nice -n 15 python benchmarks/kill_workers.py --moments 20

Two workers train together, with one thread each, connected through a port of this machine, without torchrun, which
would end the others itself. At a random moment, a random one of them receives SIGKILL. Then the other one has to end
within 30 seconds with a message, every file has to be complete, and the training, resumed by one process, has to end
with the same bits as one that was never interrupted. With `--stop`, the worker receives SIGSTOP: it does not answer,
and the other one has to say so after UNRENDER_WORKER_TIMEOUT, here 10 seconds.
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
from pathlib import Path

from kill_fits import CHECKPOINT, RESULTS, Fits, damages, prepare, run_child, save_often

WORKERS = 2
TIMEOUT = 10
"""Seconds after which a worker that does not answer is given up."""
LIMIT = 30.0
"""Seconds within which the others have to end."""
PATIENCE = 300.0
MESSAGES = (
    "another worker ended without a message",
    "another worker did not answer in time",
    "cannot reach the others",
)


def start_workers(arguments: list[str], logs: list[Path]) -> list[int]:
    """Start workers of a command as forked processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"WORLD_SIZE": str(WORKERS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["UNRENDER_WORKER_TIMEOUT"] = str(TIMEOUT)
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


class Trial:
    """A training of two workers, one of which is hit by a signal."""

    def __init__(self, fits: Fits, folder: Path, number: int) -> None:
        self._fits, self._out, self._number = fits, folder, number
        self._logs = [folder.with_name(f"{folder.name}-{rank}.log") for rank in range(WORKERS)]
        self.problems: list[str] = []
        self.stopping, self.was_resumed = 0.0, False

    def run(self, seconds: float, victim: int, reference: bytes) -> None:
        """Send the signal at a moment, and check the rest."""
        workers = start_workers(self._fits.arguments(self._out), self._logs)
        time.sleep(seconds)
        os.kill(workers[victim], self._number)
        sent = time.monotonic()
        for rank, worker in enumerate(workers):
            if rank != victim:
                self._check_end(rank, wait(worker, LIMIT))
        self.stopping = time.monotonic() - sent
        os.kill(workers[victim], signal.SIGKILL)
        os.waitpid(workers[victim], 0)
        self.problems += damages(self._out, killed=True)
        if (self._out / CHECKPOINT).is_file():
            self._resume(reference)
        if not self.problems:
            shutil.rmtree(self._out, ignore_errors=True)

    def _check_end(self, rank: int, status: int | None) -> None:
        text = self._logs[rank].read_text(errors="replace")
        if status is None:
            self.problems.append(f"worker {rank} has not ended after {LIMIT:.0f} s: {text[-300:]}")
        elif status != 0 and (status != 1 or not any(message in text for message in MESSAGES)):
            self.problems.append(f"worker {rank} ended with status {status}: {text[-300:]}")

    def _resume(self, reference: bytes) -> None:
        self.was_resumed = True
        log = self._logs[0].with_suffix(".resumed.log")
        status, _ = self._fits.run(self._fits.arguments(self._out, resume=True), log)
        if status != 0:
            self.problems.append(f"resume: status {status}: {log.read_text(errors='replace')[-300:]}")
        elif (self._out / RESULTS[self._fits.command]).read_bytes() != reference:
            self.problems.append("resume: another result")


def main() -> None:
    """Run all moments and print one line for each command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--commands", nargs="+", choices=["fit-nerf", "fit-volume"], default=["fit-nerf"])
    parser.add_argument("--stop", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-workers-"))
    sources, problems = prepare(folder), 0
    save_often()
    from unrender.cli.main import main as run_here

    for command in options.commands:
        fits = Fits(command, sources[command], folder, whole_runs=False, options=["--shards", "2"])
        run_here(fits.arguments(folder / f"warm-{command}"))
        whole, logs = (
            folder / f"whole-{command}",
            [folder / f"whole-{command}-{n}.log" for n in range(WORKERS)],
        )
        begin = time.monotonic()
        statuses = [wait(worker, PATIENCE) for worker in start_workers(fits.arguments(whole), logs)]
        seconds = time.monotonic() - begin
        if any(statuses):
            raise SystemExit("\n".join(log.read_text() for log in logs))
        reference = (whole / RESULTS[command]).read_bytes()
        chance, trials = random.Random(f"{options.seed} {command}"), []
        for index in range(options.moments):
            trial = Trial(
                fits, folder / f"run-{command}-{index}", signal.SIGSTOP if options.stop else signal.SIGKILL
            )
            moment, victim = chance.uniform(0, seconds), chance.randrange(WORKERS)
            trial.run(moment, victim, reference)
            trials.append(trial)
            for problem in trial.problems:
                print(f"  {command}: worker {victim} at {moment:.2f} s: {problem}", flush=True)
        failed = sum(bool(trial.problems) for trial in trials)
        problems += failed
        print(
            f"{command}: {len(trials)} moments of {seconds:.1f} s: {failed} with problems, "
            f"{sum(trial.was_resumed for trial in trials)} resumed; the other one ended within "
            f"{max(trial.stopping for trial in trials):.1f} s",
            flush=True,
        )
    if not problems:
        shutil.rmtree(folder)
    print(f"{problems} moments with problems" + (f": {folder}" if problems else ""))
    sys.exit(problems > 0)


if __name__ == "__main__":
    main()
