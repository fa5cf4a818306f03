"""Measurements on a GPU: take those of a run of benchmarks/bench_gpu.py into docs/gpu.json, and lay them out in tables.

    python docs/figures/gpu_figures.py RUN.json --commit 7d2a483

Rows of the run replace those of the same name; the others keep the GPU and the commit that they were measured with.
`<!-- gpu: timings -->`, `trainings`, `checks`, `machine`, `compilation` and `calling_thread` in a page are replaced by
what docs/gpu.json says.
"""

import argparse
import json
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).parents[1] / "gpu.json"
DROPPED = {"seconds", "runs", "min_ms"}
"""What a run writes down that no table shows."""


def main() -> None:
    """Take the rows of a run into docs/gpu.json."""
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
    rows = {row["name"]: row for row in json.loads(MEASURED.read_text("utf-8"))["rows"]}
    for row in run["rows"]:
        if "failed" in row or "skipped" in row:
            print(f"left out, not measured: {row['name']}")
            continue
        figures = {name: _short(value) for name, value in row.items() if name not in DROPPED}
        rows[row["name"]] = figures | {"device": about["device"], "commit": about["commit"]}
    content = {"about": about, "rows": list(rows.values())}
    MEASURED.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _short(value: Any) -> Any:
    """Keep four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value]
    return value


def table(name: str) -> str:
    """Return what replaces a mark."""
    content = json.loads(MEASURED.read_text("utf-8"))
    writers = {
        "machine": _machine,
        "timings": _timings,
        "trainings": _trainings,
        "checks": _checks,
        "compilation": _compilation,
        "calling_thread": _calling_thread,
    }
    return writers[name](content)


def _machine(content: dict[str, Any]) -> str:
    about = content["about"]
    others = sorted({row["device"] for row in content["rows"]} - {about["device"]})
    also = "".join(f" (in rows that say {_card(name)}, one {name})" for name in others)
    return (
        f"Machine: one {about['device']}{also}, torch {about['torch']}, Warp {about['warp']}, "
        f"Python {about['python']}; {about['date']}. Each row names the GPU and the commit that it was measured with."
    )


def _timings(content: dict[str, Any]) -> str:
    lines = ["| work | ms | PyTorch3D, ms | measured with |", "|---|---|---|---|"]
    for row in content["rows"]:
        ms = row.get("ms", 1000 * row.get("s", 0.0))
        if ms:
            theirs = row.get("pytorch3d_ms")
            cells = (f"**{ms:.3g}**", "" if theirs is None else f"{theirs:g}", _origin(row))
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _trainings(content: dict[str, Any]) -> str:
    lines = [
        "| training | PSNR | one view | one step | before training | measured with |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        if "psnr" in row:
            name = row["name"].removesuffix(": test views on white").replace("as it is", "default settings")
            view = f"{row['view_ms']:.0f} ms" if "view_ms" in row else ""
            start = f"{row['seconds to start']['starting']:.1f} s" if "seconds to start" in row else ""
            cells = (f"**{row['psnr']:.2f} dB**", view, f"{row['ms a step']:.1f} ms", start, _origin(row))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _checks(content: dict[str, Any]) -> str:
    lines = [
        "| compared with the reference on the GPU | largest relative error | two runs | measured with |",
        "|---|---|---|---|",
    ]
    for row in content["rows"]:
        if "same_bits" in row:
            error = f"{max(row['errors']):.1e}" if row.get("errors") else ""
            bits = "same bits" if row["same_bits"] else "**different bits**"
            lines.append(f"| {row['name'].removeprefix('check ')} | {error} | {bits} | {_origin(row)} |")
    return "\n".join(lines)


def _compilation(content: dict[str, Any]) -> str:
    (row,) = (row for row in content["rows"] if "compiled_s" in row)
    return f"Compiling all kernels for float32 took {row['compiled_s']:.0f} s ({_origin(row)})."


def _calling_thread(content: dict[str, Any]) -> str:
    (row,) = (row for row in content["rows"] if row["name"] == "handing over to autograd")
    lines = [
        f"| ms ({_origin(row)}) | backward in autograd's thread | in the calling thread |",
        "|---|---|---|",
    ]
    for name in (key.removesuffix(", own thread, ms") for key in row if key.endswith(", own thread, ms")):
        own, calling = (row[f"{name}, {where} thread, ms"] for where in ("own", "calling"))
        lines.append(f"| {name} | {own:.3g} | **{calling:.3g}** |")
    return "\n".join(lines)


def _origin(row: dict[str, Any]) -> str:
    return f"{_card(row['device'])}, {row['commit']}"


def _card(device: str) -> str:
    """Return the short name of a GPU: H100."""
    return device.removeprefix("NVIDIA ").split()[0]


if __name__ == "__main__":
    main()
