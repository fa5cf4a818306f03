"""Gaussian splat files."""

from pathlib import Path

from fuzzing import layouts
from fuzzing.kinds import Kind
from splat_files import random_gaussians, write
from unrender import Camera, load_field


def _render(path: Path) -> object:
    field = load_field(path)
    output = field.render(Camera.look_at((3.0, 2.0, -6.0), height=6, width=8))
    return field.bounds(), output.color, output.opacity, output.distance, field.describe()


def _kind(name: str, layout: layouts.Layout) -> Kind:
    file = f"gaussians.{name}"

    def make(folder: Path) -> None:
        write(random_gaussians(6, 1), folder / file)

    return Kind(f"splats-{name}", file, make, lambda folder: _render(folder / file), layout)


KINDS = [_kind("ply", layouts.PLY), _kind("splat", layouts.BINARY), _kind("spz", layouts.GZIP)]
