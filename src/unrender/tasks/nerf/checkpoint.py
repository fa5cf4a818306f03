"""All that a fit needs to go on, in one file."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unrender._version import __version__
from unrender.data.scenes import Scene
from unrender.errors import FileFormatError, InputError
from unrender.io.checkpoints import load_tensors, save_tensors
from unrender.io.files import FileAccessError, reading
from unrender.tasks.nerf.config import CHECKPOINT, FitNerf
from unrender.tasks.nerf.trainer import Learner

KIND = "checkpoint of fit-nerf"
MAY_DIFFER = ("minutes", "steps", "memory_mib")
"""Settings that a fit may be resumed with others of."""
log = logging.getLogger("unrender")


def save_checkpoint(folder: Path, learner: Learner, scene: Scene, config: FitNerf) -> None:
    """Save, whole or not at all; where the disk does not take it, say so: the last one is still there."""
    tensors, state = learner.state()
    description = {
        "kind": KIND,
        "unrender": __version__,
        "scene": _fingerprint(scene),
        "config": dataclasses.asdict(config),
        "state": state,
    }
    try:
        save_tensors(tensors, description, folder / CHECKPOINT)
    except FileAccessError as error:
        log.warning("no checkpoint was saved after step %d: %s", learner.index, error)


class Checkpoint(NamedTuple):
    """Where a fit stopped."""

    path: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def restore(self, learner: Learner) -> None:
        """Set a learner to it."""
        with reading(self.path):
            learner.restore(self.tensors, self.state)


def read_checkpoint(folder: Path, scene: Scene, config: FitNerf) -> Checkpoint:
    """Read where a fit stopped; InputError if it was one of another scene, or with other settings."""
    path = folder / CHECKPOINT
    tensors, description = load_tensors(path)
    with reading(path):
        if description.get("kind") != KIND:
            raise FileFormatError(f"it holds {description.get('kind')!r}, not a {KIND}")
        state = dict(description["state"])
        taken = int(state["index"])
    _check_same(path, description, scene, config)
    if config.steps is not None and taken > config.steps:
        raise InputError(
            f"{path}: the fit has taken {taken} steps, more than {config.steps}; give more `steps`"
        )
    return Checkpoint(path, tensors, state)


def _check_same(path: Path, description: dict[str, Any], scene: Scene, config: FitNerf) -> None:
    before, now = description["config"], json.loads(json.dumps(dataclasses.asdict(config)))
    differ = [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in MAY_DIFFER and before.get(name) != now.get(name)
    ]
    if description["scene"] != _fingerprint(scene):
        differ.append("the scene has other frames or cameras")
    if differ:
        raise InputError(
            f"{path}: the fit was begun with other settings: {'; '.join(differ)}. Give the same ones, or begin anew"
        )


def _fingerprint(scene: Scene) -> str:
    """Tell scenes with other frames, or frames that stand elsewhere, apart."""
    told = hashlib.sha256()
    for frame in scene.frames:
        told.update(f"{frame.name} {frame.split} {frame.camera.height} {frame.camera.width}".encode())
        told.update(f"{frame.camera.lens} {frame.mask_path and frame.mask_path.name}".encode())
        depth, points = frame.depth_file, frame.points
        told.update(f"{depth and depth.scale} {points is not None and len(points)}".encode())
        for tensor in (frame.camera.camera_from_world, frame.camera.focal, frame.camera.center):
            told.update(tensor.numpy().tobytes())
    return told.hexdigest()
