"""mkdocs hook: insert tables of measurements into pages, and publish the notebooks.

`<!-- figures: TABLE -->` in a page is replaced by a table of rows of performance.json, which benchmarks write:
`UNRENDER_FIGURES=docs/performance.json python benchmarks/bench_….py`. `<!-- gpu: TABLE -->` is replaced by a table of
gpu.json; see gpu_figures.py.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
FIGURES = DOCS / "performance.json"
NOTEBOOKS = DOCS.parent / "examples/notebooks"
MARK = re.compile(r"^<!-- figures: (\w+) -->$", re.MULTILINE)
GPU_MARK = re.compile(r"^<!-- gpu: (\w+) -->$", re.MULTILINE)
NO_BREAK = "\u2011"
"""A non-breaking hyphen."""
NOT_MEASURED = "*not measured*"


def table(name: str) -> str:
    """Return one table of measurements as markdown."""
    rows = [figure for figure in json.loads(FIGURES.read_text("utf-8"))["figures"] if figure["table"] == name]
    lines = [
        "| benchmark | measured | target | command | commit |",
        "|---|---|---|---|---|",
        *map(_row, rows),
    ]
    return "\n".join(lines)


def _row(figure: dict[str, Any]) -> str:
    measured = NOT_MEASURED if figure["measured"] is None else f"**{figure['measured']}**"
    when = f"{figure['commit']}<br>{figure['date'].replace('-', NO_BREAK)}" if "commit" in figure else ""
    cells = (figure["name"], measured, figure.get("aim", ""), f"`{figure['command']}`", when)
    return f"| {' | '.join(cells)} |"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the marks of a page by tables (called by mkdocs)."""
    sys.path.insert(0, str(Path(__file__).parent))
    import gpu_figures

    markdown = GPU_MARK.sub(lambda found: gpu_figures.table(found[1]), markdown)
    return MARK.sub(lambda found: table(found[1]), markdown)


def on_files(files: Any, *, config: Any) -> Any:
    """Add the notebooks to the site (called by mkdocs)."""
    from mkdocs.structure.files import File

    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{notebook.name}", abs_src_path=str(notebook)))
    return files
