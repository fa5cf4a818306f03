"""The command line: one subcommand for each job, each in a module of its own, loaded when it is called."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from unrender._version import __version__
from unrender.errors import KernelError, UnrenderError

COMMANDS = {
    "demo": ("unrender.cli.demo", "all jobs on generated data, then one HTML report", ""),
    "fit-mesh": ("unrender.cli.fit_mesh", "mesh from a point cloud", "scan.ply"),
    "find-pose": (
        "unrender.cli.find_pose",
        "where an object stands in a photo or a cloud",
        "cup.obj photo.jpg",
    ),
    "import": ("unrender.cli.import_photos", "photos or a video to a scene", "holiday/"),
    "inspect": ("unrender.cli.inspect_scene", "what a scene holds, and what looks wrong", "chair/"),
    "fit-volume": ("unrender.cli.fit_volume", "voxels from posed images", "chair/"),
    "fit-nerf": ("unrender.cli.fit_nerf", "radiance field from posed images", "chair/ --minutes 5"),
    "render": ("unrender.cli.render", "new views of a run or a volume, and a film", "runs/fit-volume/chair"),
    "eval": ("unrender.cli.evaluate", "how good new views of a run are", "runs/fit-volume/chair"),
    "depth": ("unrender.cli.depth", "how far away what a run learned is", "runs/fit-volume/chair"),
    "export": ("unrender.cli.export", "points or a mesh of a run or of depths", "runs/fit-volume/chair"),
    "view": ("unrender.cli.view", "all of these, interactive, in the browser", "runs/fit-volume/chair"),
    "doctor": ("unrender.cli.doctor", "what this machine has, and what will be used", ""),
}

SPIN_COUNT = "10000"
"""Turns that OpenMP's threads wait for each other before they let other programs run. With their default, milliseconds,
all work is several times slower as soon as another program keeps one core busy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 when done, 1 when the job failed, 2 for bad arguments or input."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name in ("", "-h", "--help"):
        print(_overview())
        return 0
    if name == "--version":
        print(f"unrender {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"unrender: no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    _log_to_terminal()
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is loaded, below
    try:
        status = run_command(name, rest[:-1])
    except KernelError as error:
        print(f"unrender {name}: {error}", file=sys.stderr)
        return 1
    except (UnrenderError, OSError) as error:
        print(f"unrender {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"unrender {name}: stopped", file=sys.stderr)
        return 1
    return status or 0


def run_command(name: str, arguments: Sequence[str]) -> int | None:
    """Run one command with its arguments; what goes wrong is raised."""
    import tyro

    module = importlib.import_module(COMMANDS[name][0])
    command = module.command_for(arguments) if hasattr(module, "command_for") else module.command
    status: int | None = tyro.cli(
        command, prog=f"unrender {name}", args=arguments, config=(tyro.conf.OmitArgPrefixes,)
    )
    return status


def _overview() -> str:
    lines = [f"unrender {__version__}: from points and pictures to 3D", "", "usage: unrender COMMAND ...", ""]
    for name, (_, what, example) in COMMANDS.items():
        lines.append(f"  {f'unrender {name} {example}'.strip():42s}{what}")
    return "\n".join(
        [*lines, "", "unrender COMMAND --help tells all about one; results go to runs/ or --output."]
    )


def _log_to_terminal() -> None:
    logger = logging.getLogger("unrender")
    for before in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
        logger.removeHandler(before)  # who calls main from Python may have closed what it writes to
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
