"""unrender render: pictures and a film of what is given."""

from pathlib import Path
from typing import Annotated

import tyro

from unrender.cli.render_run import Route, render_run
from unrender.cli.render_volume import Look, render_volume_file
from unrender.errors import InputError
from unrender.io.files import MissingFileError
from unrender.runs.folder import as_options, changes
from unrender.runs.video_options import Film


def command(
    source: Annotated[Path, tyro.conf.Positional],
    /,
    film: Film = Film(),
    route: Route = Route(),
    look: Look = Look(),
) -> None:
    """Show what a run learned, or a volume (npy, nrrd, nii, nii.gz), from new sides: pictures, a film and a report.

    Examples: unrender render runs/fit-volume/chair --quick, unrender render head.nii.gz --window 150 900

    Args:
        source: The folder of a run of `unrender fit-volume` or `unrender fit-nerf`, or a file with a volume.
        film: What to write.
        route: How to show a run.
        look: How to show a volume.
    """
    film.check()
    if not source.exists():
        raise MissingFileError(
            f"{source}: there is no such file or folder; give a run of `unrender fit-volume`, or a volume"
        )
    other, kind = (look, "run") if source.is_dir() else (route, "volume")
    if meaningless := as_options(changes(other)):
        raise InputError(f"{source}: {' '.join(meaningless)} means nothing for a {kind}; leave it out")
    if source.is_dir():
        render_run(source, route, film)
    else:
        render_volume_file(source, look, film)
