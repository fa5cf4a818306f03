"""Commands and Python code that reports print to reproduce a run."""

import shlex
from pathlib import Path

import torch

import unrender
from unrender import FindPose
from unrender.reports.reproduce import Name, call, command_line, construct, python_code, reproduce


def test_commands_are_quoted_and_unset_options_left_out() -> None:
    options = {
        "min_opacity": 0.3,
        "background": (1.0, 0.0, 0.0),
        "video": False,
        "quick": True,
        "views": None,
    }
    line = command_line("render", [Path("my run")], options)
    expected = "render 'my run' --min-opacity 0.3 --background 1.0 0.0 0.0 --no-video --quick"
    assert line == f"unrender {expected}"
    assert shlex.split(line)[2] == "my run"


def test_calls_evaluate_to_what_was_passed() -> None:
    rotation = torch.eye(4, dtype=torch.float64)
    keywords = {"path": Path("a 'quoted' file.ply"), "guess": rotation, "texture": None, "scale": 0.001}
    code = call("dict", keywords=keywords)
    made = eval(code, {"torch": torch})
    assert made["path"] == "a 'quoted' file.ply"
    assert made["guess"].dtype == torch.float64
    assert torch.equal(made["guess"], rotation)
    assert (made["texture"], made["scale"]) == (None, 0.001)
    assert call("f", Name("mesh"), 1) == "f(mesh, 1)"


def test_configs_are_written_with_what_differs_from_their_defaults() -> None:
    config = FindPose(num_views=20)
    assert construct(config) == "unrender.FindPose(num_views=20)"
    assert eval(construct(config), {"unrender": unrender}) == config
    assert construct(FindPose()) == "unrender.FindPose()"


def test_torch_is_imported_where_it_is_needed() -> None:
    assert python_code("x = 1") == "import unrender\n\nx = 1"
    assert python_code("x = torch.zeros(3)").startswith("import torch\nimport unrender\n\n")


def test_a_section_has_the_command_and_the_code() -> None:
    assert reproduce("unrender demo").code == ["unrender demo"]
    section = reproduce("unrender demo", "import unrender")
    assert (section.title, section.code) == ("Reproduce", ["unrender demo", "import unrender"])
