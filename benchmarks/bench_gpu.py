"""Check and time everything that runs on a GPU, in at most four minutes: one JSON, from which the tables are made.

    python benchmarks/bench_gpu.py --output gpu.json [--data ../shared/data] [--only chamfer raster] [--seconds 225]
    python benchmarks/bench_gpu.py --device cpu      # a rehearsal: Warp on the CPU, tiny sizes

Each kernel is compared with its reference on the device first. A row that fails is written down with its traceback; if
it takes the process with it (a fault on the device does), the rest go on in a new one. Rows stand in gpu_*_rows.py.
"""

import argparse
import datetime
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

MODULES = ("gpu_mesh_rows", "gpu_field_rows", "gpu_task_rows")
FAULT = 70
"""Exit code of a process whose device does not answer any more."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, default=None, help="the shared data; else scenes are generated")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of rows to run")
    parser.add_argument("--seconds", type=float, default=225.0, help="no row begins later than that")
    parser.add_argument("--end", type=float, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.end = options.end or time.time() + options.seconds
    if options.data is None:
        places = (Path(__file__).parents[1] / "../shared/data", Path("shared/data"))
        options.data = next((place for place in places if place.exists()), None)
    return work(options) if options.worker else watch(options)


def watch(options: argparse.Namespace) -> int:
    """Start workers until every row has an answer; write the JSON and print it as a table."""
    start, log = time.time(), options.output.with_suffix(".jsonl")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", "--end", str(options.end)]
    for _ in range(8):
        code = subprocess.run(command, check=False).returncode
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        if code == 0:
            break
        if entries and "began" in entries[-1]:  # the row that took the process with it
            with log.open("a") as file:
                print(
                    json.dumps({"name": entries[-1]["began"], "failed": f"process ended with {code}"}),
                    file=file,
                )
    rows = {entry["name"]: entry for entry in entries if "name" in entry}
    about = next((entry["about"] for entry in entries if "about" in entry), {})
    content = {"about": about, "seconds": time.time() - start, "rows": list(rows.values())}
    options.output.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    report(content)
    return 0 if all("failed" not in row for row in content["rows"]) else 1


def work(options: argparse.Namespace) -> int:
    """Run the rows that have no answer yet."""
    log = options.output.with_suffix(".jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    done = {entry["name"] for entry in entries if "name" in entry}

    def note(entry: dict[str, Any]) -> None:
        with log.open("a") as file:
            print(json.dumps(entry), file=file)

    if options.device == "cpu":
        os.environ["UNRENDER_KERNELS"] = "warp"
    import torch
    from gpu_rows import ROWS, Bench

    for module in MODULES:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001  the rows of the other file still count
            note({"name": f"rows of {module}", "failed": traceback.format_exc()})
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        note({"name": "everything", "skipped": "there is no NVIDIA GPU; --device cpu rehearses"})
        return 0
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    note({"about": about(device, options)})
    bench = Bench(device, options.data, tiny=device.type == "cpu")
    for row in sorted(ROWS, key=lambda row: row.order):
        if row.name in done or (options.only and not any(part in row.name for part in options.only)):
            continue
        if time.time() > options.end:
            note({"name": row.name, "skipped": "out of time"})
            continue
        note({"began": row.name})
        start = time.perf_counter()
        try:
            result = row.run(bench)
            bench.synchronize()
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on
            result = {"failed": traceback.format_exc()}
            print(f"{row.name}: {type(error).__name__}: {error}"[:300], flush=True)
        note({"name": row.name, **result, "seconds": time.perf_counter() - start})
        figures = " ".join(f"{key} {result[key]:.3g}" for key in ("ms", "stream_ms") if key in result)
        print(f"{row.name}: {figures or ('failed' if 'failed' in result else 'ok')}", flush=True)
        if "failed" in result and not answers(device):
            return FAULT
    return 0


def answers(device: Any) -> bool:
    """Say whether the device still works: after a fault, nothing of this process does."""
    import torch

    try:
        return bool((torch.ones(4, device=device).sum() == 4).item())
    except RuntimeError:
        return False


def about(device: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Say what was measured, on what."""
    import torch

    described = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    try:
        import warp

        warp_version = warp.__version__
    except ImportError:
        warp_version = None
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "warp": warp_version,
        "python": sys.version.split()[0],
        "commit": described.stdout.strip() or "unknown",
        "date": datetime.date.today().isoformat(),
        "data": None if options.data is None else str(options.data),
    }


def report(content: dict[str, Any]) -> None:
    """Print one line for each row, failures last."""
    print(f"\n{content['about']}\n{content['seconds']:.0f} s")
    print(f"{'':58}{'ms':>9}{'stream':>9}{'reach':>8}{'torch3d':>9}{'MiB':>7}{'first':>8}")
    for row in content["rows"]:
        if "ms" in row:
            columns = {
                "ms": 9,
                "stream_ms": 9,
                "reach_ms": 8,
                "pytorch3d_ms": 9,
                "peak_mib": 7,
                "first_ms": 8,
            }
            values = [f"{row[key]:.4g}" if row.get(key) is not None else "" for key in columns]
            padded = [value.rjust(width) for value, width in zip(values, columns.values(), strict=True)]
            print(f"{row['name']:58}" + "".join(padded))
        elif "skipped" in row:
            print(f"{row['name']:58} skipped: {row['skipped']}")
        elif "failed" not in row:
            known = {key: value for key, value in row.items() if key not in ("name", "seconds")}
            print(f"{row['name']:58} {json.dumps(known)[:160]}")
    for row in content["rows"]:
        if "failed" in row:
            print(f"\nFAILED {row['name']}\n{row['failed'][-1500:]}")


if __name__ == "__main__":
    sys.exit(main())
