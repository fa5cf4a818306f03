"""Programs written against PyTorch3D's names run unmodified, and what they minimize falls."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from unrender.compat.pytorch3d.__main__ import main
from unrender.compat.pytorch3d._names import MissingNameError

PROGRAMS = Path(__file__).parent / "programs"
SMALL = {
    "deform_sphere": "--level 2 --samples 300 --steps 30",
    "camera_position": "--size 48 --layers 30 --steps 40",
    "fit_volume": "--views 6 --size 16 --volume 12 --points 20 --views-a-step 3 --steps 25",
    "simple_nerf": "--views 4 --size 16 --rays 60 --points 16 --views-a-step 4 --hidden 32 --steps 100",
}


@pytest.fixture
def run(monkeypatch):
    """Run a script in this process, which has loaded torch; what it changes of the interpreter is undone."""
    for name in ("argv", "path", "meta_path"):
        monkeypatch.setattr(sys, name, getattr(sys, name)[:])
    modules = set(sys.modules)
    yield lambda *arguments: main([str(argument) for argument in arguments])
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] == "pytorch3d":
            del sys.modules[name]


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")  # as programs do
@pytest.mark.parametrize("name", SMALL)
def test_runs_unmodified(name, run, capsys):
    assert run(PROGRAMS / f"{name}.py", *SMALL[name].split()) == 0
    printed = capsys.readouterr().out
    first, last = (float(x) for x in re.search(r"from ([\d.]+) to ([\d.]+)", printed).groups())
    assert last < 0.97 * first  # means over a fifth of the steps


def test_script_gets_its_arguments_name_and_neighbors(tmp_path):
    (tmp_path / "neighbor.py").write_text("import pytorch3d.utils\nball = pytorch3d.utils.ico_sphere(1)\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pytorch3d\nfrom neighbor import ball\n"
        "import pytorch3d.utils.ico_sphere, pytorch3d.renderer.mesh.rasterizer as rasterizer\n"
        "assert __name__ == '__main__' and rasterizer is pytorch3d.renderer.mesh.rasterizer\n"
        "print(sys.argv[1:], len(ball.verts_packed()), pytorch3d.__version__)\n"
        "sys.exit(3)\n"
    )
    command = [sys.executable, "-m", "unrender.compat.pytorch3d", str(script), "--a", "b c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "['--a', 'b c'] 42 0.7.9\n"), done.stderr


def test_says_what_is_wrong(run, tmp_path, capsys):
    assert run(tmp_path / "none.py") == 2
    assert "no such file" in capsys.readouterr().err
    assert run() == 2
    assert run("--help") == 0
    assert "SCRIPT.py" in capsys.readouterr().out
    for line, name in (
        ("from pytorch3d.renderer import Nothing", "pytorch3d.renderer.Nothing"),
        ("import pytorch3d.implicitron", "pytorch3d.implicitron"),
    ):
        (tmp_path / "script.py").write_text(line)
        message = f"{name} is not supported by unrender; docs/coming-from-pytorch3d.md"
        with pytest.raises(MissingNameError, match=re.escape(message)):
            run(tmp_path / "script.py")
    (tmp_path / "script.py").write_text("from pytorch3d.renderer.cameras import Nothing")
    with pytest.raises(ImportError, match=r"cannot import name 'Nothing' from 'unrender\.compat\.pytorch3d"):
        run(tmp_path / "script.py")
    (tmp_path / "script.py").write_text("import pytorch3d\npytorch3d.ops.nothing")
    with pytest.raises(AttributeError, match=r"pytorch3d\.ops\.nothing is not supported by unrender"):
        run(tmp_path / "script.py")
