"""Kill fits at random moments, check what they leave, and resume them.

    nice -n 15 python benchmarks/kill_fits.py --moments 50

Each fit runs in a process of its own, with one thread, forked from one that has imported everything and compiled the
kernels. At a random moment of its time it receives a signal. Then every file that it left has to be complete, and the
resumed fit has to end with the same bits as one that was never interrupted. Checkpoints are written twice a second;
the work lost is the time between the last complete checkpoint and the signal. With `--whole-runs`, processes start
afresh, and checkpoints are written as often as usual.
"""

import argparse
import contextlib
import dataclasses
import faulthandler
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # a process with threads of OpenMP cannot be forked
os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")

CHECKPOINT = "checkpoint.safetensors"
RESULTS = {"fit-nerf": "field.safetensors", "fit-volume": "volume.safetensors", "fit-mesh": "mesh.ply"}
OPTIONS = {
    "fit-nerf": ["--steps", "40", "--samples", "2048", "--table-log2", "10"],
    "fit-volume": ["--steps", "150", "--rays", "512", "--resolution", "32", "--degree", "1"],
    "fit-mesh": ["--edge-length", "0.2", "--start", "hull"],
}  # fmt: skip
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
INTERVAL = 0.5
"""Seconds between two checkpoints here."""
PATIENCE, MOST_CPU = 60.0, 300.0
"""Seconds without work after which a fit counts as hanging, and seconds of CPU after which it does not end.

A busy machine can hold a process up for minutes: that is no fault of it, so wall-clock time does not count.
"""
HANGING = 71
"""Status of a fit that had to be killed; its threads write their stacks into its log."""


class Outcome(NamedTuple):
    """What a signal at one moment did."""

    seconds: float
    """When the signal came, after the start."""
    status: int
    stopping: float
    """Seconds from the signal to the end of the process."""
    problems: list[str]
    lost: float | None
    """Seconds between the last checkpoint and the signal; None where the result was complete or nothing had begun."""
    was_resumed: bool


class Fits:
    """Fits of one command, in processes of their own."""

    def __init__(
        self, command: str, source: Path, folder: Path, *, whole_runs: bool, options: Sequence[str] = ()
    ) -> None:
        self.command, self._source, self._folder, self._is_whole = command, source, folder, whole_runs
        self._options = [*OPTIONS[command], *options]

    def arguments(self, output: Path, *, resume: bool = False) -> list[str]:
        """Return the arguments of a run, or of a resumed one."""
        if resume:
            return [self.command, str(self._source), "--resume", str(output)]
        views = [] if self.command == "fit-mesh" else ["--no-video", "--no-mesh"]
        return [self.command, str(self._source), *self._options, *views, "--output", str(output)]

    def start(self, arguments: Sequence[str], log: Path) -> int:
        """Start a fit; return its process."""
        if self._is_whole:
            line = [sys.executable, "-X", "faulthandler", "-m", "unrender", *arguments]
            with log.open("wb") as out:
                return subprocess.Popen(line, stdout=out, stderr=subprocess.STDOUT).pid
        pid = os.fork()
        if pid == 0:
            run_child(arguments, log)
        return pid

    def run(self, arguments: Sequence[str], log: Path) -> tuple[int, float]:
        """Run a fit to its end; return its status and its time."""
        begin = time.perf_counter()
        return _wait(self.start(arguments, log)), time.perf_counter() - begin

    def interrupt(self, number: int, seconds: float, reference: bytes, label: str) -> Outcome:
        """Send a signal at a moment, check what is left, and resume."""
        out, log = self._folder / f"run-{label}", self._folder / f"run-{label}.log"
        pid = self.start(self.arguments(out), log)
        time.sleep(seconds)
        sent = time.time()
        os.kill(pid, number)
        status = _wait(pid)
        stopping = time.time() - sent
        problems = damages(out, killed=number == signal.SIGKILL)
        if status not in (0, -number, 128 + number) or "Traceback" in log.read_text(errors="replace"):
            problems.append(f"status {status}: {log.read_text(errors='replace')[-300:]}")
        lost, checkpoint, result = None, out / CHECKPOINT, out / RESULTS[self.command]
        if number == signal.SIGKILL and checkpoint.is_file() and not (out / "metrics.json").is_file():
            lost = max(0.0, sent - checkpoint.stat().st_mtime)
        if checkpoint.is_file():
            again, _ = self.run(self.arguments(out, resume=True), log)
            if again != 0:
                problems.append(f"resume: status {again}: {log.read_text(errors='replace')[-300:]}")
            elif result.read_bytes() != reference:
                problems.append("resume: another result")
            problems += damages(out, killed=False)
        was_resumed = checkpoint.is_file()
        if not problems:
            shutil.rmtree(out, ignore_errors=True)
        return Outcome(seconds, status, stopping, problems, lost, was_resumed)


def run_child(arguments: Sequence[str], log: Path) -> None:
    """Run a command in a forked process, which ends here."""
    from unrender.cli.main import main

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable()
    status = 70
    try:
        status = main(arguments)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(pid: int) -> int:
    """Wait for a process; return its status, or minus the signal that ended it."""
    worked, last = time.monotonic(), -1.0
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        cpu, is_idle = _activity(pid)
        if cpu != last or not is_idle:
            worked, last = time.monotonic(), cpu
        if time.monotonic() - worked > PATIENCE or cpu > MOST_CPU:
            break
        time.sleep(0.02)
    os.kill(pid, signal.SIGABRT)  # faulthandler writes the stacks
    os.waitpid(pid, 0)
    print(f"  no end after {cpu:.0f} s of CPU, {'idle' if is_idle else 'busy'}", flush=True)
    return HANGING


def _activity(pid: int) -> tuple[float, bool]:
    """Return the CPU seconds of a process, and whether all its threads sleep (Linux)."""
    states, ticks = set(), 0
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # threads end
            fields = stat.read_text().rpartition(")")[2].split()
            states.add(fields[0])
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), states <= {"S"}


def damages(folder: Path, *, killed: bool) -> list[str]:
    """Read every file of a run; list those that are not complete."""
    return [
        problem for path in sorted(folder.rglob("*")) if path.is_file() for problem in _damage(path, killed)
    ]


def _damage(path: Path, killed: bool) -> Iterator[str]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from unrender.errors import UnrenderError
    from unrender.io import load_image, load_mesh

    readers = {
        ".json": lambda: json.loads(path.read_text()),
        ".safetensors": lambda: load_file(path),
        ".ply": lambda: load_mesh(path) if path.name == "mesh.ply" else None,
        ".png": lambda: load_image(path),
        ".html": lambda: None if path.read_text().rstrip().endswith("</html>") else 1 / 0,
    }
    if (path.suffix == ".part" and killed) or path.suffix == ".mp4":
        return
    try:
        readers[path.suffix]()
    except (ArithmeticError, OSError, SafetensorError, UnrenderError, ValueError) as error:
        yield f"{path.name}: {type(error).__name__}: {error}"


def prepare(folder: Path) -> dict[str, Path]:
    """Make the input, and checkpoints frequent; return the input of each command."""
    import torch

    import unrender
    from unrender.data.demo_scene import save_demo_scene
    from unrender.geometry.points import PointCloud
    from unrender.geometry.sample import sample_points_from_mesh
    from unrender.geometry.shapes import torus

    save_demo_scene(folder / "scene", size=24, num_train=4, num_test=1)
    generator = torch.Generator().manual_seed(0)
    points = sample_points_from_mesh(torus(), 1500, generator=generator).points
    unrender.save_cloud(
        PointCloud(points + 0.01 * torch.randn(points.shape, generator=generator)), folder / "scan.ply"
    )
    return {"fit-nerf": folder / "scene", "fit-volume": folder / "scene", "fit-mesh": folder / "scan.ply"}


def save_often() -> None:
    """Shorten the time between two checkpoints."""
    import unrender.reports.mesh_report
    import unrender.tasks.mesh.checkpoints
    import unrender.tasks.nerf.fit_nerf
    import unrender.tasks.volume.fit_volume
    from unrender.training.schedule import Schedule

    often = dataclasses.replace(
        Schedule(), first_checkpoint_seconds=INTERVAL, checkpoint_seconds=INTERVAL, checkpoint_fraction=1.0
    )
    for fit in (unrender.tasks.nerf.fit_nerf.fit_nerf, unrender.tasks.volume.fit_volume.fit_volume):
        fit.__kwdefaults__["schedule"] = often
    unrender.tasks.mesh.checkpoints.SECONDS_BETWEEN_CHECKPOINTS = INTERVAL
    unrender.reports.mesh_report.NUM_VIEWS = 1  # the report would take longer than the fit


def main() -> None:
    """Run all moments and print one line a command and signal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--commands", nargs="+", choices=list(RESULTS), default=list(RESULTS))
    parser.add_argument("--signals", nargs="+", choices=list(SIGNALS), default=list(SIGNALS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole-runs", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-fits-"))
    sources, problems = prepare(folder), 0
    if not options.whole_runs:
        save_often()
    for command in options.commands:
        fits = Fits(command, sources[command], folder, whole_runs=options.whole_runs)
        if not options.whole_runs:
            from unrender.cli.main import main as run_here

            run_here(fits.arguments(folder / f"warm-{command}"))
        whole, log = folder / f"whole-{command}", folder / f"whole-{command}.log"
        status, seconds = fits.run(fits.arguments(whole), log)
        if status:
            raise SystemExit(log.read_text())
        reference = (whole / RESULTS[command]).read_bytes()
        chances = {name: random.Random(f"{options.seed} {command} {name}") for name in options.signals}
        outcomes: dict[str, list[Outcome]] = {name: [] for name in options.signals}
        try:
            for index, name in itertools.product(range(options.moments), options.signals):
                moment = chances[name].uniform(0, seconds)
                outcome = fits.interrupt(SIGNALS[name], moment, reference, f"{name}-{index}")
                outcomes[name].append(outcome)
                for problem in outcome.problems:
                    print(f"  {command} {name} at {outcome.seconds:.2f} s: {problem}", flush=True)
        finally:  # also after Ctrl-C
            for name, found in outcomes.items():
                _print_summary(command, name, seconds, found)
        problems += sum(bool(outcome.problems) for found in outcomes.values() for outcome in found)
    if not problems:
        shutil.rmtree(folder)
    print(f"{problems} moments with problems" + (f": {folder}" if problems else ""))
    raise SystemExit(problems > 0)


def _print_summary(command: str, name: str, seconds: float, outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        return
    lost = [outcome.lost for outcome in outcomes if outcome.lost is not None]
    resumed = sum(outcome.was_resumed for outcome in outcomes)
    statuses = {
        status: sum(o.status == status for o in outcomes) for status in sorted({o.status for o in outcomes})
    }
    damaged = sum(bool(outcome.problems) for outcome in outcomes)
    print(
        f"{command:10s} {name:4s} {len(outcomes)} moments of {seconds:.1f} s: {damaged} damaged, {resumed} resumed; "
        f"work lost {max(lost, default=0):.1f} s at most; stopped within {max(o.stopping for o in outcomes):.1f} s; "
        f"statuses {statuses}",
        flush=True,
    )


if __name__ == "__main__":
    main()
