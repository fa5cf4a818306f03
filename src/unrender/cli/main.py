"""The command line: one module per command, imported when the command is called."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from unrender._version import __version__
from unrender.errors import KernelError, UnrenderError
from unrender.runs.interruption import handled_signals

COMMANDS = {
    "demo": ("unrender.cli.demo", "run all tasks on generated data and write one report", ""),
    "fit-mesh": ("unrender.cli.fit_mesh", "fit a mesh to a point cloud", "scan.ply"),
    "find-pose": ("unrender.cli.find_pose", "find an object in a photo or a cloud", "cup.obj photo.jpg"),
    "import": ("unrender.cli.import_photos", "estimate the camera poses of photos", "holiday/"),
    "inspect": ("unrender.cli.inspect_scene", "check a scene before training", "chair/"),
    "fit-volume": ("unrender.cli.fit_volume", "fit a voxel volume to images", "chair/"),
    "fit-nerf": ("unrender.cli.fit_nerf", "train a radiance field on images", "chair/ --minutes 5"),
    "render": ("unrender.cli.render", "render new views and videos", "runs/fit-volume/chair"),
    "eval": ("unrender.cli.evaluate", "compute PSNR, SSIM and depth errors", "runs/fit-volume/chair"),
    "depth": ("unrender.cli.depth", "write depth maps", "runs/fit-volume/chair"),
    "export": ("unrender.cli.export", "export a point cloud or a mesh", "runs/fit-volume/chair"),
    "view": ("unrender.cli.view", "open an interactive viewer", "runs/fit-volume/chair"),
    "doctor": ("unrender.cli.doctor", "show versions and hardware, check the kernels", ""),
}
"""Module, summary and an example of each command."""

SPIN_COUNT = "10000"
"""How long idle OpenMP threads spin before they yield. With the default, milliseconds, everything is several times
slower as soon as another program keeps one core busy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 if it succeeded, 1 if it failed, 2 for invalid arguments or input, 128 plus the number of a signal that left its
    work incomplete: 130 after Ctrl-C, 143 after a request to terminate.
    """
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name in ("", "-h", "--help"):
        print(_overview())
        return 0
    if name == "--version":
        print(f"unrender {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"unrender: unknown command {name!r}; commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    _log_to_terminal()
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is imported, below
    with handled_signals() as interruption:
        try:
            status = run_command(name, rest[:-1])
        except KernelError as error:
            print(f"unrender {name}: {error}", file=sys.stderr)
            return 1
        except (UnrenderError, OSError) as error:
            print(f"unrender {name}: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            interruption.end_early()
            print(f"unrender {name}: stopped", file=sys.stderr)
            return interruption.exit_status()
        return interruption.exit_status() or status or 0


def run_command(name: str, arguments: Sequence[str]) -> int | None:
    """Run a command with its arguments; errors are raised."""
    import tyro

    from unrender.io.files import confinable_writes

    module = importlib.import_module(COMMANDS[name][0])
    command = module.command_for(arguments) if hasattr(module, "command_for") else module.command
    style = (tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)
    with confinable_writes(), handled_signals() as interruption, interruption.of_command():
        status: int | None = tyro.cli(command, prog=f"unrender {name}", args=arguments, config=style)
    return status


def _overview() -> str:
    lines = [f"unrender {__version__}: inverse rendering in PyTorch", "", "usage: unrender COMMAND ...", ""]
    for name, (_, what, example) in COMMANDS.items():
        lines.append(f"  {f'unrender {name} {example}'.strip():42s}{what}")
    return "\n".join(
        [
            *lines,
            "",
            "unrender COMMAND --help shows its options. Results are written to runs/, or to --output.",
        ]
    )


class _TerminalHandler(logging.Handler):
    """Writes messages to what is sys.stderr at the time: a caller may have replaced it since."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _log_to_terminal() -> None:
    logger = logging.getLogger("unrender")
    if not any(isinstance(handler, _TerminalHandler) for handler in logger.handlers):
        logger.addHandler(_TerminalHandler())
    logger.setLevel(logging.INFO)
