"""Checkpoints: all that a training needs to resume, in one file."""

import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrender._version import __version__
from unrender.data.frames import frames_fingerprint
from unrender.data.scenes import Scene
from unrender.errors import FileAccessError, FileFormatError, InputError
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.files import reading, remove_unfinished
from unrender.training.state import State

CHECKPOINT = "checkpoint.safetensors"
"""The file, in the folder for checkpoints, from which a training resumes."""
KIND, FORMAT = "training checkpoint", 1
"""What the file says it holds, and in which version of the format."""
MAY_DIFFER = ("minutes", "steps", "memory_mib", "device")
"""Settings that may change when a training is resumed."""
log = logging.getLogger("unrender")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a checkpoint belongs to: it resumes only the same task, with the same scene and settings."""

    task: str
    scene: Scene
    config: Mapping[str, Any]
    schedule: object = None
    """Schedule of the field; None for its default."""

    def fingerprint(self) -> str:
        """Tell trainings apart that would not compute the same."""
        settings = json.dumps(self.settings(), sort_keys=True)
        text = f"{__version__} {self.task} {frames_fingerprint(self.scene.frames)} {settings}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def settings(self) -> dict[str, Any]:
        """Return all that a resumed training has to have in common, in JSON types."""
        schedule = None if self.schedule is None else repr(self.schedule)
        settings: dict[str, Any] = json.loads(json.dumps(dict(self.config) | {"schedule": schedule}))
        return settings


class CheckpointWriter:
    """Writes checkpoints to a folder while training goes on."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self._folder, self._origin = folder, origin
        self._thread: threading.Thread | None = None

    def save(self, state: State) -> None:
        """Start to write a state, which must not change any more; wait for the one before."""
        self.wait()
        arguments = (self._folder, self._origin, state)
        self._thread = threading.Thread(target=save_checkpoint, args=arguments, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last state is written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def save_checkpoint(folder: Path, origin: Origin, state: State) -> None:
    """Save a checkpoint, whole or not at all; if it cannot be written, warn: the one before is still there.

    The disk has to hold both until the new one is complete.
    """
    description = {
        "kind": KIND,
        "format": FORMAT,
        "unrender": __version__,
        "task": origin.task,
        "scene": frames_fingerprint(origin.scene.frames),
        "settings": origin.settings(),
        "numbers": state.numbers,
    }
    try:
        save_tensors(state.tensors, description, folder / CHECKPOINT)
    except FileAccessError as error:
        log.warning("no checkpoint was saved after step %d: %s", state.numbers["index"], error)


def saved_step(folder: Path) -> int | None:
    """Return the number of the step after which the checkpoint in a folder was written; None if there is none."""
    try:
        _, description = load_tensors(folder / CHECKPOINT)
    except (FileAccessError, FileFormatError):
        return None
    index = description.get("numbers", {}).get("index")
    return index if isinstance(index, int) else None


def read_checkpoint(folder: Path, origin: Origin) -> State:
    """Read a checkpoint, and delete what a killed process left unfinished beside it.

    Raises InputError if the checkpoint belongs to another scene or other settings, FileFormatError if it is damaged or
    of another version of the format.
    """
    path = folder / CHECKPOINT
    tensors, description = load_tensors(path)
    with reading(path):
        _check_format(description)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise FileFormatError(f"damaged: {name} has values that are not finite")
        state = State(tensors, dict(description["numbers"]))
        index = int(state.numbers["index"])
        differences = _differences(description, origin)
    if differences:
        raise InputError(
            f"{path}: the run was started with different settings: {'; '.join(differences)}. Give the same settings, "
            "or start a new run"
        )
    steps = origin.config.get("steps")
    if steps is not None and index > steps:
        raise InputError(f"{path}: the run has taken {index} steps, more than {steps}; give more `steps`")
    remove_unfinished(folder)
    return state


def _check_format(description: Mapping[str, Any]) -> None:
    kind = str(description.get("kind"))
    if kind != KIND and not kind.startswith("checkpoint of"):
        raise FileFormatError(f"it holds {kind!r}, not a {KIND}")
    if kind != KIND or description.get("format") != FORMAT:
        raise FileFormatError(
            f"unrender {description.get('unrender')} wrote this checkpoint in a format that {__version__} does not "
            "read; start a new run"
        )


def _differences(description: Mapping[str, Any], origin: Origin) -> list[str]:
    """Say in what a checkpoint differs from the training to resume."""
    if description["task"] != origin.task:
        return [f"it is of {description['task']}, not {origin.task}"]
    before, now = description["settings"], origin.settings()
    differences = [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in MAY_DIFFER and before.get(name) != now.get(name)
    ]
    if description["scene"] != frames_fingerprint(origin.scene.frames):
        differences.append("the scene has other frames, cameras or depth")
    return differences
