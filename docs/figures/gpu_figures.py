"""Measurements on a GPU: take those of a run of benchmarks/bench_gpu.py into docs/gpu.json, and lay them out in tables.

    python docs/figures/gpu_figures.py RUN.json --commit 7d2a483

`<!-- gpu: timings -->`, `trainings`, `checks` and `machine` in a page are replaced by what docs/gpu.json says.
"""

import argparse
import json
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).parents[1] / "gpu.json"
DROPPED = {"seconds", "runs", "min_ms"}
"""What a run writes down that no table shows."""


def main() -> None:
    """Write docs/gpu.json from the JSON of a run."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--commit", help="of the measured tree, if the run does not know it")
    options = parser.parse_args()
    run = json.loads(options.run.read_text("utf-8"))
    about = {name: value for name, value in run["about"].items() if name != "data"}
    if options.commit:
        about["commit"] = options.commit
    if about["commit"] == "unknown":
        parser.error(f"{options.run} does not say which commit was measured; give --commit")
    rows = [
        {name: _short(value) for name, value in row.items() if name not in DROPPED} for row in run["rows"]
    ]
    content = {"about": about, "rows": rows}
    MEASURED.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _short(value: Any) -> Any:
    """Keep four digits, and of errors the last line."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value]
    if isinstance(value, str) and value.startswith("Traceback"):
        return value.strip().splitlines()[-1]
    return value


def table(name: str) -> str:
    """Return what replaces a mark."""
    content = json.loads(MEASURED.read_text("utf-8"))
    return {"machine": _machine, "timings": _timings, "trainings": _trainings, "checks": _checks}[name](
        content
    )


def _machine(content: dict[str, Any]) -> str:
    about = content["about"]
    return (
        f"Machine: one {about['device']}, torch {about['torch']}, Warp {about['warp']}, Python {about['python']}; "
        f"commit {about['commit']}, {about['date']}."
    )


def _timings(content: dict[str, Any]) -> str:
    lines = ["| work | ms | target | PyTorch3D |", "|---|---|---|---|"]
    for row in content["rows"]:
        if "ms" in row:
            cells = (f"**{row['ms']:.3g}**", *(_number(row.get(key)) for key in ("reach_ms", "pytorch3d_ms")))
        elif (
            ("failed" in row or "skipped" in row)
            and not row["name"].startswith("check ")
            and ("test views" not in row["name"])
        ):
            cells = ("*not measured*", "", "")
        else:
            continue
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _trainings(content: dict[str, Any]) -> str:
    lines = ["| training | PSNR | one view | one step | before training |", "|---|---|---|---|---|"]
    for row in content["rows"]:
        name = row["name"].removesuffix(": test views on white").replace("as it is", "default settings")
        if "psnr" in row:
            view = f"{row['view_ms']:.0f} ms" if "view_ms" in row else ""
            figures = (f"**{row['psnr']:.2f} dB**", view, f"{row['ms a step']:.1f} ms")
            start = f"{row['seconds to start']['starting']:.1f} s" if "seconds to start" in row else ""
            lines.append(f"| {name} | {' | '.join(figures)} | {start} |")
        elif "test views" in row["name"]:
            lines.append(f"| {name} | *not measured* | | | |")
    return "\n".join(lines)


def _checks(content: dict[str, Any]) -> str:
    lines = [
        "| compared with the reference on the GPU | largest relative error | two runs |",
        "|---|---|---|",
    ]
    for row in content["rows"]:
        if "failed" in row and row["name"].startswith("check "):
            lines.append(f"| {row['name'].removeprefix('check ')} | *not measured* | |")
        if "same_bits" in row:
            error = f"{max(row['errors']):.1e}" if row.get("errors") else ""
            bits = "same bits" if row["same_bits"] else "**different bits**"
            lines.append(f"| {row['name'].removeprefix('check ')} | {error} | {bits} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


if __name__ == "__main__":
    main()
