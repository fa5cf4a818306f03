"""Checkpoints of a fit: all that its next step depends on, in one file."""

import dataclasses
import hashlib
import json
import logging
import math
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from unrender._version import __version__
from unrender.errors import FileAccessError, FileFormatError, InputError
from unrender.geometry.mesh import Mesh
from unrender.geometry.topology import is_watertight
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.files import DiskFullError, check_space, reading, remove_unfinished
from unrender.tasks.mesh.prepare_cloud import PreparedCloud

CHECKPOINT = "checkpoint.safetensors"
KIND, FORMAT = "mesh fit checkpoint", 1
SECONDS_BETWEEN_CHECKPOINTS = 15.0
"""A killed fit loses that, and up to three steps."""
PLY_BYTES, TENSOR_BYTES = 24 + 2 * 13, 24 + 2 * 24
"""Bytes of a vertex and its two faces in a ply file and in a checkpoint."""
REPORT_BYTES = 2**20
"""Size of a report, about."""
MAY_DIFFER = ("steps",)
"""Settings that may change when a fit is resumed."""
NUMBERS = ("start_area", "smoothness", "index", "stage", "final_steps")
log = logging.getLogger("unrender")


class Trial(NamedTuple):
    """A smoothness weight that was tried in a stage."""

    score: float
    """Mean distance of the validation points times the area: the lower, the likelier."""
    smoothness: float
    mesh: Mesh


@dataclasses.dataclass
class FitState:
    """How far a fit is, between two smoothness weights."""

    start_area: float
    """Area of the initial surface, on which the stages depend."""
    mesh: Mesh
    smoothness: float
    """Smoothness that the stage before has selected."""
    random: Tensor
    """State of the random generator."""
    index: int = 0
    """Steps taken."""
    stage: int = 0
    """Stages completed."""
    trials: list[Trial] = dataclasses.field(default_factory=list)
    """Smoothness weights tried in this stage; the last one has led to `mesh`."""
    final_steps: int = 0
    """Steps taken after the last stage."""

    def best(self) -> Trial:
        """Return the likeliest trial of the stage."""
        return min(self.trials, key=lambda trial: trial.score)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved as tensors; of the trials before the last one, only the best mesh is needed again."""
        tensors = {"vertices": self.mesh.vertices, "faces": self.mesh.faces, "random": self.random}
        if self.trials:
            best = self.best().mesh
            tensors |= {"best_vertices": best.vertices, "best_faces": best.faces}
        return tensors

    def numbers(self) -> dict[str, Any]:
        """Return the rest, as JSON can hold it."""
        numbers = {name: getattr(self, name) for name in NUMBERS}
        return numbers | {"trials": [[trial.score, trial.smoothness] for trial in self.trials]}

    @classmethod
    def from_saved(cls, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> Self:
        """Return the state that was saved; FileFormatError if values are out of range."""
        mesh = _mesh(tensors["vertices"], tensors["faces"])
        best = _mesh(tensors["best_vertices"], tensors["best_faces"]) if numbers["trials"] else mesh
        torch.Generator().set_state(tensors["random"])  # raises for what is no state
        trials = [Trial(_positive(score), _positive(weight), best) for score, weight in numbers["trials"]]
        trials[-1:] = [trial._replace(mesh=mesh) for trial in trials[-1:]]
        return cls(
            _positive(numbers["start_area"]),
            mesh,
            _positive(numbers["smoothness"]),
            tensors["random"],
            _count(numbers["index"]),
            _count(numbers["stage"]),
            trials,
            _count(numbers["final_steps"]),
        )


class MeshCheckpoints:
    """The checkpoints of one fit, in a folder; without a folder, there are none."""

    def __init__(self, folder: Path | None, cloud: PreparedCloud, config: dict[str, Any]) -> None:
        self._folder = folder
        settings = {name: value for name, value in config.items() if name not in MAY_DIFFER}
        self._settings = json.loads(json.dumps(settings))
        self._cloud = hashlib.sha256(cloud.points.numpy().tobytes()).hexdigest()
        self._due = time.perf_counter() + SECONDS_BETWEEN_CHECKPOINTS

    def check_space(self, num_vertices: float) -> None:
        """Raise DiskFullError if the disk has no space for a mesh; warn if it has none for all that is written."""
        if self._folder is None:
            return
        mesh = round(PLY_BYTES * num_vertices)
        checkpoint = round(2 * TENSOR_BYTES * num_vertices)  # a checkpoint can hold two meshes
        check_space(self._folder, mesh, "the mesh cannot be saved")
        try:  # a checkpoint stays until the next one is written
            total = mesh + 2 * checkpoint + REPORT_BYTES
            check_space(
                self._folder, total, "not all results may be saved", largest=max(checkpoint, REPORT_BYTES)
            )
        except DiskFullError as error:
            log.warning("%s", error)

    def save(self, state: FitState, *, is_stage_end: bool = True) -> None:
        """Save a state at the end of a stage, or if it is time; if it cannot be written, warn."""
        if self._folder is None or (not is_stage_end and time.perf_counter() < self._due):
            return
        description = {"kind": KIND, "format": FORMAT, "unrender": __version__}
        description |= {"settings": self._settings, "cloud": self._cloud, "numbers": state.numbers()}
        try:
            save_tensors(state.tensors(), description, self._folder / CHECKPOINT)
        except FileAccessError as error:
            log.warning("no checkpoint was saved after step %d: %s", state.index, error)
        self._due = time.perf_counter() + SECONDS_BETWEEN_CHECKPOINTS

    def read(self, folder: Path) -> FitState:
        """Read a state, and delete what a killed process left unfinished beside it.

        Raises InputError if it is of another cloud or other settings, FileFormatError if it is damaged.
        """
        path = folder / CHECKPOINT
        tensors, description = load_tensors(path)
        with reading(path):
            if (description.get("kind"), description.get("format")) != (KIND, FORMAT):
                raise FileFormatError(f"not a {KIND} of this version of unrender; start a new run")
            before = dict(description["settings"])
            state = FitState.from_saved(tensors, description["numbers"])
        differences = [
            f"{name} was {before.get(name)!r}, is {value!r}"
            for name, value in self._settings.items()
            if before.get(name) != value
        ]
        if description.get("cloud") != self._cloud:
            differences.append("the cloud has other points")
        if differences:
            raise InputError(
                f"{path}: the run was started with different settings: {'; '.join(differences)}. Give the same "
                "settings, or start a new run"
            )
        remove_unfinished(folder)
        return state


def _mesh(vertices: Tensor, faces: Tensor) -> Mesh:
    if vertices.dtype != torch.float64 or faces.dtype != torch.int64 or not bool(vertices.isfinite().all()):
        raise FileFormatError("vertices should be finite float64, and faces int64")
    mesh = Mesh(vertices, faces)
    if not len(faces) or not is_watertight(mesh):
        raise FileFormatError("the mesh is not closed")
    return mesh


def _positive(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise FileFormatError(f"expected a finite number of at least 0, got {value!r}")
    return float(value)


def _count(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise FileFormatError(f"expected a count, got {value!r}")
    return value
