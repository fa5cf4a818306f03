"""Time rendering and training with several workers of one core each against one.

    python benchmarks/bench_workers.py render RUN --views 32 --size 400
    python benchmarks/bench_workers.py fit-volume SCENE
    python benchmarks/bench_workers.py fit-nerf SCENE

Workers start as torchrun starts them, with one thread each on a core of its own. Of a rendering, the time of the whole
command counts, imports, video and report included; of a training, that of a few steps at full resolution, after the
others have been taken once and saved. "CPU" is the time of the worker that computes most: on a busy machine, its ratio
says what the wall clock would say on a quiet one, but for the time that workers wait for one another.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

STEPS, WARM_STEPS = 10, 2
"""Steps that are timed, and those before that are not."""
SAVED_STEP = {"fit-volume": 62, "fit-nerf": 42}
"""Number of the step that is saved."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of a command, or of a step."""

    wall: float
    cpu: float


def run_workers(arguments: Sequence[str], count: int) -> tuple[Cost, list[str]]:
    """Run workers of `python ARGUMENTS`, each on its own core; return their cost, and what each has printed."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    if count > 1:
        shared |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(tempfile.TemporaryFile("w+")) for _ in range(count)]
        begin, workers = time.perf_counter(), []
        for rank, file in enumerate(files):
            process = os.fork()
            if process == 0:
                os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
                os.dup2(file.fileno(), 1)
                own = shared | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {})
                os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **own})
            workers.append(process)
        ended = [os.wait4(worker, 0) for worker in workers]
        cost = Cost(time.perf_counter() - begin, max(used.ru_utime + used.ru_stime for *_, used in ended))
        if any(status for _, status, _ in ended):
            raise SystemExit(f"a worker of {arguments} failed")
        for file in files:
            file.seek(0)
        return cost, [file.read() for file in files]


def time_rendering(run: str, count: int, views: int, size: int, folder: Path) -> Cost:
    """Return what it costs to render views with `count` workers."""
    options = ["--views", str(views), "--size", str(size), "--output", str(folder)]
    cost, _ = run_workers(["-m", "unrender", "render", run, *options], count)
    return cost


def time_training(command: str, scene: str, count: int, shards: int, checkpoint: Path) -> Cost:
    """Return what a step costs with `count` workers."""
    arguments = [__file__, command, scene, "--child", str(checkpoint), "--shards", str(shards)]
    _, printed = run_workers(arguments, count)
    costs = [Cost(**json.loads(text)) for text in printed]
    return Cost(max(cost.wall for cost in costs), max(cost.cpu for cost in costs))


def train(command: str, scene: str, shards: int, checkpoint: Path) -> None:
    """Train to a checkpoint, or take a few steps from there and print what one of them costs."""
    import unrender
    from unrender.fields.schedules import HashSchedule, VoxelSchedule
    from unrender.training.schedule import Schedule
    from unrender.training.step import TrainingStep
    from unrender.workers import joined_workers

    resume = checkpoint if any(checkpoint.iterdir()) else None
    target = checkpoint if resume is None else None
    with joined_workers():
        data = unrender.load_scene(scene)
        steps: Iterator[TrainingStep[Any]]
        if command == "fit-volume":  # full resolution from step 61 of 200 on
            volume, voxels = (
                unrender.FitVolume(steps=200, shards=shards),
                Schedule(field=VoxelSchedule(pruning_steps=30)),
            )
            steps = unrender.fit_volume(data, volume, schedule=voxels, checkpoints=target, resume=resume)
        else:
            nerf, hashed = (
                unrender.FitNerf(steps=100, shards=shards),
                Schedule(field=HashSchedule(pruning_steps=30)),
            )
            steps = unrender.fit_nerf(data, nerf, schedule=hashed, checkpoints=target, resume=resume)
        last = SAVED_STEP[command] + (0 if resume is None else WARM_STEPS + STEPS)
        with contextlib.closing(cast("Generator[TrainingStep[Any]]", steps)):
            for step in steps:
                if step.index == last - STEPS:
                    wall, cpu = time.perf_counter(), time.process_time()
                if step.index == last:
                    break
            spent = Cost((time.perf_counter() - wall) / STEPS, (time.process_time() - cpu) / STEPS)
    print(json.dumps(dataclasses.asdict(spent)))


def main() -> None:
    """Print the cost with each number of workers, and relative to one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["render", "fit-volume", "fit-nerf"])
    parser.add_argument("source", help="a run to render, or a scene to train on")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, help="folder of the training, to be used again")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        train(options.command, options.source, options.shards, options.child)
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-workers-"))
    checkpoint = options.checkpoint or folder
    checkpoint.mkdir(exist_ok=True)
    if options.command != "render" and not any(checkpoint.iterdir()):
        run_workers([*sys.argv, "--child", str(checkpoint)], 1)
    alone: Cost | None = None
    for count in options.workers:
        costs = []
        for number in range(options.repeats):
            if options.command == "render":
                target = folder / f"{count}-{number}"
                costs.append(time_rendering(options.source, count, options.views, options.size, target))
            else:
                costs.append(
                    time_training(options.command, options.source, count, options.shards, checkpoint)
                )
        best = Cost(min(cost.wall for cost in costs), min(cost.cpu for cost in costs))
        alone = alone or best
        print(
            f"{options.command}, workers {count}: {best.wall:.3f} s ({alone.wall / best.wall:.2f} ×), "
            f"CPU {best.cpu:.3f} s ({alone.cpu / best.cpu:.2f} ×)",
            flush=True,
        )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
