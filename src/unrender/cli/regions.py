"""unrender regions: flat regions of a surface, where a robot can grip it."""

import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from unrender.cli.arguments import Folder
from unrender.cli.confine import confinable
from unrender.errors import InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.points import PointCloud
from unrender.io.clouds import load_cloud, save_cloud
from unrender.io.formats import CLOUD_READERS, MESH_READERS, read_geometry_data
from unrender.io.meshes import load_mesh, save_mesh
from unrender.reports import regions_report
from unrender.reports.reproduce import Name, call, command_line, construct, python_code, reproduce
from unrender.runs.folder import start_run, write_json
from unrender.runs.options import changed_options
from unrender.tasks.regions.find_regions import FindRegions, find_regions

TASK = "regions"
Axis = Literal["x", "y", "z", "-x", "-y", "-z"]


@confinable
def command(
    surface: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MESH|CLOUD")],
    /,
    find: FindRegions = FindRegions(),
    up: Axis = "y",
    output: Folder = None,
) -> None:
    """Find the flat regions of a mesh or a point cloud, where a suction cup or a gripper can hold it.

    Examples:
        unrender regions part.stl --cup-radius 0.01
        unrender regions scan.ply --pairs 0.08

    Args:
        surface: File of a mesh or a point cloud.
        find: Which regions are listed.
        up: Up axis of the images in the report.
        output: Output folder. Default: runs/regions/NAME-TIME.
    """
    shape = _load(surface)
    start = time.perf_counter()
    found = find_regions(shape, find)
    seconds = time.perf_counter() - start
    folder = start_run(TASK, surface.stem, output, {"surface": surface, "config": find, "up": up})
    colored = regions_report.colored_surface(shape, found)
    path = folder / "regions.ply"
    if isinstance(colored, Mesh):
        save_mesh(colored, path)
    else:
        save_cloud(colored, path)
    write_json(folder / "regions.json", regions_report.as_json(found))
    metrics = {"num_regions": len(found.regions), "num_pairs": len(found.pairs), "seconds": seconds}
    areas = {"area": sum(region.area for region in found.regions), "max_deviation": found.max_deviation}
    write_json(folder / "metrics.json", metrics | areas)
    options = changed_options(find) | ({} if up == "y" else {"up": up})
    how = reproduce(command_line(TASK, [surface], options), _code(surface, shape, find))
    title = f"Flat regions of {surface.name}"
    regions_report.write_regions_report(folder / "report.html", title, colored, found, up, how)
    print(regions_report.summary(found))
    print(folder / "regions.json", path, folder / "report.html", sep="\n")


def _load(path: Path) -> Mesh | PointCloud:
    suffix = path.suffix.lower()
    if path.is_dir():
        raise InputError(f"{path}: a folder, not the file of a mesh or a point cloud")
    if suffix in MESH_READERS and read_geometry_data(path, MESH_READERS).faces is not None:
        return load_mesh(path)
    if suffix in MESH_READERS | CLOUD_READERS:
        return load_cloud(path)
    kinds = ", ".join(sorted({*MESH_READERS, *CLOUD_READERS}))
    raise InputError(f"{path}: unsupported suffix {suffix!r}; use one of {kinds}")


def _code(path: Path, shape: Mesh | PointCloud, config: FindRegions) -> str:
    load = "load_mesh" if isinstance(shape, Mesh) else "load_cloud"
    return python_code(
        f"surface = {call(f'unrender.{load}', path)}",
        f"found = {call('unrender.find_regions', Name('surface'), construct(config))}",
        "for region in found.regions:",
        "    print(region.area, region.center, region.normal, region.disc_radius)",
    )
