"""The command line: one module per command, imported when the command is called."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from unrender._version import __version__
from unrender.cli.distributed import as_worker
from unrender.cli.terminal import prepare_streams
from unrender.errors import InputError, KernelError, UnrenderError, WorkerError
from unrender.runs.interruption import handled_signals

COMMANDS = {
    "demo": ("unrender.cli.demo", "run all tasks on generated data and write one report", ""),
    "fit-mesh": ("unrender.cli.fit_mesh", "fit a mesh to a point cloud", "CLOUD"),
    "regions": ("unrender.cli.regions", "find flat regions where a robot can grip", "MESH"),
    "find-pose": ("unrender.cli.find_pose", "find an object in a photo or a point cloud", "MESH PHOTO"),
    "track-pose": ("unrender.cli.track_pose", "track an object through a video", "MESH VIDEO"),
    "import": ("unrender.cli.import_photos", "estimate the camera poses of photos", "PHOTOS"),
    "inspect": ("unrender.cli.inspect_scene", "check a scene before training", "SCENE"),
    "fit-volume": ("unrender.cli.fit_volume", "fit a voxel volume to posed images", "SCENE"),
    "fit-nerf": ("unrender.cli.fit_nerf", "train a radiance field on posed images", "SCENE"),
    "fit-surface": ("unrender.cli.fit_surface", "fit a colored mesh to posed images", "RUN"),
    "render": ("unrender.cli.render", "render new views and videos", "RUN"),
    "eval": ("unrender.cli.evaluate", "compute PSNR, SSIM and depth errors", "RUN"),
    "depth": ("unrender.cli.depth", "write depth maps", "RUN"),
    "export": ("unrender.cli.export", "export a point cloud or a mesh", "RUN"),
    "view": ("unrender.cli.view", "open a run, mesh, point cloud, scene or volume in the browser", "SOURCE"),
    "doctor": ("unrender.cli.doctor", "show versions and hardware, check the kernels", ""),
}
"""Module, summary and inputs of each command."""

SPIN_COUNT = "10000"
"""How long idle OpenMP threads spin before they yield. With the default, milliseconds, everything is several times
slower as soon as another program keeps one core busy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 if it succeeded, 1 if it failed, 2 for invalid arguments or input, 3 if the result of `fit-mesh` is written but
    mostly not supported by points, 128 plus the number of a signal that left its
    work incomplete: 130 after Ctrl-C, 143 after a request to terminate.
    """
    if arguments is None:
        prepare_streams()
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
        except (KernelError, WorkerError) as error:
            print(f"unrender {name}: {error}", file=sys.stderr)
            return 1
        except (UnrenderError, OSError) as error:
            from unrender.io.files import DiskFullError

            print(f"unrender {name}: {error}", file=sys.stderr)
            return 1 if isinstance(error, DiskFullError) else 2
        except UnicodeEncodeError as error:
            print(f"unrender {name}: {error}; set LC_ALL=C.UTF-8 for names of files", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            interruption.end_early()
            print(f"unrender {name}: stopped", file=sys.stderr)
            return interruption.exit_status()
        return interruption.exit_status() or status or 0


def run_command(name: str, arguments: Sequence[str]) -> int | None:
    """Run a command with its arguments; errors are raised."""
    from unrender.cli.arguments import parse, with_option_names
    from unrender.io.confinement import confinable_writes

    module = importlib.import_module(COMMANDS[name][0])
    command = module.command_for(arguments) if hasattr(module, "command_for") else module.command
    with (
        as_worker(name),
        confinable_writes(),
        handled_signals() as interruption,
        interruption.of_command(),
    ):
        try:
            status: int | None = parse(command, name, arguments)
        except InputError as error:
            error.args = (with_option_names(str(error), command).removeprefix(f"{name.replace('-', '_')}: "),)
            raise
    return status


def _overview() -> str:
    lines = [f"unrender {__version__}: inverse rendering in PyTorch", "", "usage: unrender COMMAND ...", ""]
    for name, (_, summary, inputs) in COMMANDS.items():
        lines.append(f"  {f'unrender {name} {inputs}':32s}{summary}")
    return "\n".join(
        [
            *lines,
            "",
            "SCENE is a folder of images with camera poses, RUN the folder that fit-volume or fit-nerf wrote,",
            "or a file of Gaussian splats (ply, splat, spz).",
            "Results are written to runs/, or to --output. `unrender COMMAND --help` lists the options.",
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
