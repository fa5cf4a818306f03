import ast
import functools
import importlib.util
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

import unrender
from known_shapes import lopsided_model
from unrender.cli.main import COMMANDS
from unrender.fields import registry
from unrender.geometry.simplify import cluster_vertices

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs/figures"
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in TEXTS if "```python\n" in page.read_text("utf-8")]
OPTIONS_OF_OTHERS = {
    *("--logdir", "--orientation-method", "--center-method", "--auto-scale-poses"),  # tensorboard, nerfstudio
    "--durations",  # pytest
    *("--help", "--version"),
    *(
        "--clouds",
        "--data",
        "--meshes",
        "--poses",
        "--cpu-time",
        "--rays",
        "--frames",
        "--only",
        "--face",
        "--set",
    ),  # benchmarks
}


@pytest.fixture
def folder_with_input(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    ball = unrender.ico_sphere(3)  # made a rod, which is fitted with 10,430 faces; a torus with 27,074
    rod = ball.replace(vertices=ball.vertices * torch.tensor([1.0, 0.15, 0.15]))
    samples = unrender.sample_points_from_mesh(rod, 600, generator=torch.Generator().manual_seed(0))
    unrender.save_cloud(unrender.PointCloud(samples.points), tmp_path / "scan.ply")
    unrender.save_linear_model(lopsided_model(), tmp_path / "shapes.npz")
    mesh = cluster_vertices(unrender.demo_object(), 20).to(torch.float32)
    unrender.save_mesh(mesh, tmp_path / "object.ply")
    camera = unrender.Camera.look_at([2.0, 1.2, 3.0], fov_degrees=40.0, height=120, width=120)
    photo = unrender.render_mesh(mesh, camera, background=None, supersampling=2)
    unrender.save_image(photo.clamp(0, 1), tmp_path / "photo.png")
    across, down = np.meshgrid(np.arange(160) - 80, np.arange(120) - 60)
    Image.fromarray((1000 + across + down // 2).astype(np.uint16)).save(tmp_path / "depth.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "FIELDS", dict(registry.FIELDS))  # a page registers a field of its own


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_run(page, folder_with_input):
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(page), "exec"), names)


def test_no_block_is_of_a_kind_that_nothing_checks():
    for page in TEXTS:
        kinds = set(re.findall(r"^```(\S.*)$", page.read_text("utf-8"), re.MULTILINE))
        assert all(kind == "python" or kind.startswith("{ .python title=") for kind in kinds), page


def commands_in(page: Path) -> Iterator[list[str]]:
    """Find the commands of unrender in console blocks."""
    for block in re.findall(r"^```\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("unrender ") and "COMMAND" not in line:
                yield shlex.split(line, comments=True)[1:]


def parser_of(name: str, arguments: Sequence[str] = ()) -> Callable[..., object]:
    """Return what reads the arguments of a command and does nothing; a resumed run has its input."""
    command = importlib.import_module(COMMANDS[name][0]).command
    parser = functools.wraps(command)(lambda *arguments, **options: None)
    inputs = inspect.signature(command).parameters.keys() & {"scene", "cloud"}
    return (
        functools.partial(parser, **dict.fromkeys(inputs, Path("input")))
        if "--resume" in arguments
        else parser
    )


@pytest.mark.parametrize("page", [page for page in TEXTS if list(commands_in(page))], ids=name_of)
def test_commands_exist_with_their_options(page):
    for name, *arguments in commands_in(page):
        assert name in COMMANDS, f"unrender {name}"
        tyro.cli(parser_of(name, arguments), args=arguments, config=(tyro.conf.OmitArgPrefixes,))


def test_options_in_texts_exist(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            tyro.cli(parser_of(name), args=["--help"], config=(tyro.conf.OmitArgPrefixes,))
    known = OPTIONS_OF_OTHERS | set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
    for page in TEXTS:
        for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text("utf-8")):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", span):
                assert option in known, f"{page}: {span}"


def test_every_kernel_has_a_page_with_its_definition():
    kernels = {path.parent.name for path in (ROOT / "src/unrender/kernels").glob("*/reference.py")}
    assert {page.stem for page in (ROOT / "docs/kernels").glob("*.md")} == kernels | {"index"}
    for kernel in kernels:
        page = (ROOT / f"docs/kernels/{kernel}.md").read_text("utf-8")
        assert f'--8<-- "src/unrender/kernels/{kernel}/reference.py"' in page


def test_every_page_can_be_reached():
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    included = {match for page in TEXTS for match in re.findall(r'--8<-- "docs/(.+\.md)"', page.read_text())}
    assert pages - included == set(re.findall(r"\S+\.md", nav))


def test_messages_that_are_explained_are_those_of_the_code():
    """In docs/troubleshooting.md, … stands for what differs."""
    words = []
    for path in (ROOT / "src/unrender").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                words.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.append(re.sub(r"%[sd]|%\.\d[a-z]", "…", node.value))
    words.append((ROOT / "Makefile").read_text("utf-8"))
    page = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    first_cells = re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
    messages = [span for cell in first_cells for span in re.findall(r"`([^`]+ [^`]+ [^`]+)`", cell)]
    assert len(messages) > 30
    for message in messages:
        assert any(message in text for text in words), message


def load(name: str) -> ModuleType:
    """Import a script of docs/figures."""
    spec = importlib.util.spec_from_file_location(name, FIGURES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_drawings_are_what_their_script_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FIGURES), *sys.path])
    load("draw").main(tmp_path)
    drawn = {path.name: path.read_text("utf-8") for path in tmp_path.glob("*.svg")}
    assert set(drawn) == {path.name for path in FIGURES.glob("*.svg")}
    number = re.compile(r"-?\d+\.\d+")
    for name, text in drawn.items():
        kept = (FIGURES / name).read_text("utf-8")
        assert number.sub("#", text) == number.sub("#", kept), f"{name}: make figures"
        ours, theirs = (np.array(number.findall(each), float) for each in (text, kept))
        np.testing.assert_allclose(ours, theirs, atol=0.11)  # rounding, on another processor


def test_pictures_of_figures_are_small_and_shown():
    shown = "".join(page.read_text("utf-8") for page in TEXTS)
    for path in [*FIGURES.glob("*.svg"), *FIGURES.glob("*.png")]:
        assert path.stat().st_size <= 60 * 1024
        assert f"figures/{path.name}" in shown, path


def measured() -> list[dict[str, object]]:
    return json.loads((ROOT / "docs/performance.json").read_text("utf-8"))["figures"]


def test_figures_say_how_they_were_measured():
    keys = [figure["key"] for figure in measured()]
    assert len(keys) == len(set(keys))
    for figure in measured():
        assert (ROOT / "benchmarks" / str(figure["command"]).split()[0]).is_file(), figure
        if figure["measured"] is not None:
            assert re.fullmatch(r"[0-9a-f]{7,}", str(figure["commit"])), figure
            assert re.fullmatch(r"20\d\d-\d\d-\d\d", str(figure["date"])), figure


def test_every_figure_stands_on_the_page_of_figures():
    page = load("fill_pages").on_page_markdown((ROOT / "docs/performance.md").read_text("utf-8"))
    assert "<!-- figures" not in page
    for figure in measured():
        row = f"| {figure['name']} | {'*not measured*' if figure['measured'] is None else '**'}"
        assert page.count(row + str(figure["measured"] or "")) == 1, figure


def test_every_measurement_on_a_gpu_stands_on_its_page():
    page = load("fill_pages").on_page_markdown((ROOT / "docs/gpu.md").read_text("utf-8"))
    content = json.loads((ROOT / "docs/gpu.json").read_text("utf-8"))
    assert "<!-- gpu" not in page
    assert all(str(content["about"][name]) in page for name in ("device", "commit", "date"))
    timings = [row for row in content["rows"] if "ms" in row]
    assert len(timings) > 10
    for row in timings:
        assert page.count(f"| {row['name']} | **{row['ms']:.3g}** |") == 1, row["name"]


def card(row: dict[str, str]) -> str:
    return row["device"].removeprefix("NVIDIA ").split()[0]


def test_the_readme_states_the_trainings_on_a_gpu_that_were_measured():
    rows = json.loads((ROOT / "docs/gpu.json").read_text("utf-8"))["rows"]
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    short, long = (
        next(row for row in rows if row["name"].startswith(f"hash field trained for {seconds} s, as it is"))
        for seconds in (5, 60)
    )
    assert (
        f"reaches {short['psnr']:.1f} dB after 5 s of training on an {card(short)}, "
        f"and {long['psnr']:.1f} dB after 60 s on an {card(long)}"
    ) in readme


def test_pages_state_the_figures_that_were_measured():
    for figure in measured():
        for page, words in dict(figure.get("stated", {})).items():
            text = (ROOT / page).read_text("utf-8")
            assert words in text, f"{page} does not say {words}: {figure['name']}"
            numbers = re.findall(r"\d+\.\d+", words)
            close = [float(number) for number in re.findall(r"\d+\.\d+", str(figure["measured"]))]
            assert all(any(abs(float(n) - c) <= 0.051 for c in close) for n in numbers), figure
