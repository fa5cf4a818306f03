"""Shared by the benchmarks: timing relative to a matrix product, a description of the machine, and recording.

"mm" is one float32 matrix product 2048³ of the same run. On a shared machine, times drift and ratios to mm much less.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

_matrix = torch.rand(2048, 2048)


def timed(work: Callable[[], object], repeats: int = 9) -> tuple[float, float]:
    """Return the median time in ms, and relative to a matrix product timed in alternation."""
    work()
    times, products = [], []
    for _ in range(repeats):
        products.append(seconds(lambda: _matrix @ _matrix))
        times.append(seconds(work))
    return 1000 * statistics.median(times), statistics.median(times) / statistics.median(products)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def machine() -> str:
    """Describe the processor, the number of threads, the torch version and the commit."""
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, commit {_commit()}"


def record(key: str, measured: str) -> None:
    """Write a measurement, as text, into the row `key` of the file $UNRENDER_FIGURES, with commit and date.

    The tables in the documentation are generated from that file. Without the variable, or such a row, do nothing.
    """
    if (path := os.environ.get("UNRENDER_FIGURES")) is None:
        return
    content = json.loads(Path(path).read_text("utf-8"))
    rows = [figure for figure in content["figures"] if figure["key"] == key]
    if not rows:
        print(f"{path} has no row {key!r}")
        return
    rows[0] |= {"measured": measured, "commit": _commit(), "date": datetime.date.today().isoformat()}
    Path(path).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _commit() -> str:
    described = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
