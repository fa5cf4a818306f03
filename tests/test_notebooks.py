"""Every notebook runs from top to bottom, shows what its cells end with, and keeps no outputs."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples/notebooks").glob("*.ipynb"))


def cells_of(notebook: Path, kind: str) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text("utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def run_cell(source: str, names: dict[str, object], where: str) -> object:
    """Run a cell as a notebook does, and return what its last line is worth."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), where, "eval"), names)


@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    shown = 0
    for number, cell in enumerate(cells_of(notebook, "code")):
        value = run_cell("".join(cell["source"]), names, f"{notebook.name}, cell {number}")
        if hasattr(value, "_repr_png_"):
            assert value._repr_png_()
            shown += 1
    assert shown >= 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_a_notebook_without_outputs_that_begins_with_its_title(notebook):
    content = json.loads(notebook.read_text("utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    for cell in cells_of(notebook, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    assert content["cells"][0]["source"][0].startswith("# ")
    names = [cell["id"] for cell in content["cells"]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9-_]+", name) for name in names)


def test_there_is_one_for_each_job():
    assert len(NOTEBOOKS) == 5
    index = (Path(__file__).parents[1] / "docs/notebooks.md").read_text("utf-8")
    assert all(f"notebooks/{path.name}" in index for path in NOTEBOOKS)
