"""The options of `unrender fit-mesh` for known shapes: templates and linear shape models."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from unrender.errors import InputError
from unrender.runs.options import changed_options
from unrender.tasks.mesh.fit_mesh import FitMesh

TASK = "fit-mesh"
Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
MeshFormat = Literal["ply", "obj", "stl", "glb"]
SHARED_OPTIONS = ("max_points", "seed")
"""Options of the fit of a free mesh that known shapes have, too."""


@dataclasses.dataclass(frozen=True)
class KnownShape:
    """Known shape: deform a template, or fit a linear shape model, instead of a free mesh."""

    template: Path | None = None
    """Mesh to deform onto the cloud; its faces and its vertex order stay."""
    linear_model: Path | None = None
    """Linear shape model (npz): fit pose, scale, identity and expression. A folder of clouds is tracked as a sequence.
    """
    free_vertices: bool = False
    """Deform the mesh freely after the fit of a linear shape model, for details that the model does not have."""
    landmarks: Path | None = None
    """Text file with a line `vertex x y z` for each known position of a vertex in the cloud."""
    scale: float | None = None
    """Units of the cloud per unit of the known shape, where known. Default: estimated."""


@dataclasses.dataclass(frozen=True)
class MeshResult:
    """Results."""

    mesh_format: MeshFormat = "ply"
    """File format of the mesh."""
    reference: Path | None = None
    """Ground-truth mesh to measure the result against."""
    up: Axis = "y"
    """Up axis of the images in the report."""


def refuse_other_options(fit: FitMesh, others: Mapping[str, object]) -> None:
    """Raise InputError for options that a known shape does not have."""
    changed = [name for name in changed_options(fit) if name not in SHARED_OPTIONS]
    changed += [name for name, value in others.items() if value]
    if "resume" in changed:
        raise InputError("--resume does not apply to a known shape: its fit takes seconds; start it again")
    if changed:
        raise InputError(f"--{changed[0].replace('_', '-')} does not apply to a known shape")


def is_known(shape: KnownShape) -> bool:
    """Say whether a known shape is given; raise InputError for options that need one, if there is none."""
    if shape.template is not None and shape.linear_model is not None:
        raise InputError("give either --template or --linear-model, not both")
    if shape.free_vertices and shape.linear_model is None:
        raise InputError("--free-vertices needs --linear-model; the vertices of a template are free")
    if shape.template is not None or shape.linear_model is not None:
        return True
    for name in changed_options(shape):
        raise InputError(f"--{name.replace('_', '-')} needs a known shape: give --template or --linear-model")
    return False
